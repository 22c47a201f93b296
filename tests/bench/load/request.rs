//! Requests as templates: of each one that is sent, only marks, keys and signatures differ.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::mark::{self, Mark, write_digits};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// First-party events for ingest.
    FirstParty,
    /// Greenhouse's callback about a candidate, signed its way.
    Greenhouse,
    /// What a delivery looks like, for the receiver itself.
    Delivery,
}

/// Where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) path: String,
    /// An API key, or what callbacks are signed with.
    pub(crate) secret: String,
}

/// Stands for the ordering key, in digits that are replaced.
const KEY: &str = "18273645";
/// Stands for the signature.
const SIGNATURE: &str = "5555555555555555555555555555555555555555555555555555555555555555";
/// Stands for the number of a callback.
const CALLBACK: &str = "callback-1111111122222222";

/// A whole request, in which places are written to.
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// Of each event.
    marks: Vec<usize>,
    /// Of each event; none where the receiver reads the mark alone.
    keys: Vec<usize>,
    callback: Option<Callback>,
}

struct Callback {
    hmac: Hmac<Sha256>,
    body: Range<usize>,
    signature: Range<usize>,
    id: Range<usize>,
}

impl Request {
    pub(crate) fn new(
        shape: Shape,
        target: &Target,
        host: SocketAddr,
        event_bytes: usize,
        batch: usize,
    ) -> Result<Self> {
        let event = event(shape, event_bytes);
        let body = match batch {
            1 => event,
            _ => format!("[{}]", vec![event; batch].join(",")),
        };
        let headers = headers(shape, &target.secret);
        let (path, length) = (&target.path, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n"
        );
        let body_start = head.len();
        let text = head + &body;
        let places = |wanted: &str| text.match_indices(wanted).map(|(place, _)| place).collect();
        let callback = match shape {
            Shape::Greenhouse => {
                let range = |wanted: &str| {
                    let start = text.find(wanted).context("a place of the template")?;
                    anyhow::Ok(start..start + wanted.len())
                };
                Some(Callback {
                    hmac: Hmac::new_from_slice(target.secret.as_bytes())?,
                    body: body_start..text.len(),
                    signature: range(SIGNATURE)?,
                    id: range(CALLBACK)?,
                })
            }
            Shape::FirstParty | Shape::Delivery => None,
        };
        Ok(Self {
            marks: places("~"),
            keys: places(KEY),
            callback,
            bytes: text.into_bytes(),
        })
    }

    /// Makes it a request of the event with this mark, as the n-th of its batch.
    pub(crate) fn mark(&mut self, place: usize, mark: &Mark) {
        if let Some(bytes) = self
            .marks
            .get(place)
            .and_then(|at| self.bytes.get_mut(*at..))
        {
            mark.write(bytes);
        }
        let key = self.keys.get(place);
        let key = key.and_then(|at| self.bytes.get_mut(*at..at + KEY.len()));
        if let Some(bytes) = key {
            write_digits(bytes, mark.key);
        }
        let id = self.callback.as_ref().map(|callback| callback.id.clone());
        if let Some(bytes) = id.and_then(|id| self.bytes.get_mut(id)) {
            // Keys are divided among the connections, so that key and number together are unique.
            let (rest, number) = bytes.split_at_mut(bytes.len() - mark::NUMBER_DIGITS);
            write_digits(number, mark.number);
            let start = rest.len() - mark::KEY_DIGITS;
            if let Some(key) = rest.get_mut(start..) {
                write_digits(key, mark.key);
            }
        }
    }

    /// The bytes to send, with the signature where one belongs.
    pub(crate) fn signed(&mut self) -> &[u8] {
        if let Some(callback) = &self.callback {
            let mut hmac = callback.hmac.clone();
            hmac.update(self.bytes.get(callback.body.clone()).unwrap_or_default());
            let signature = hex::encode(hmac.finalize().into_bytes());
            if let Some(place) = self.bytes.get_mut(callback.signature.clone()) {
                place.copy_from_slice(signature.as_bytes());
            }
        }
        &self.bytes
    }
}

fn event(shape: Shape, event_bytes: usize) -> String {
    let mark = Mark {
        at_us: 0,
        key: 0,
        number: 0,
    };
    let mark = mark.text();
    let with = |padding: &str| match shape {
        Shape::FirstParty | Shape::Delivery => format!(
            r#"{{"event":"crm_contacts.updated","record_id":"{KEY}","data":{{"mark":"{mark}","padding":"{padding}"}}}}"#
        ),
        // As `support::providers` has it, with a 1 since numbers do not begin with 0; the padding is a field that nothing is mapped from.
        Shape::Greenhouse => format!(
            r#"{{"action":"update_candidate","payload":{{"candidate":{{"id":1{KEY},"first_name":"{mark}","last_name":"Lovelace","title":"Engineer","company":"Babbage \u0026 Daughters","created_at":"2026-01-12T09:30:00Z","external_id":null,"phone_numbers":[{{"value":"555-555-5555","type":"mobile"}}],"email_addresses":[{{"value":"ada@example.com","type":"work"}}],"tags":[],"custom_fields":{{"note":"{padding}"}}}}}}}}"#
        ),
    };
    let without = with("").len();
    with(&"x".repeat(event_bytes.saturating_sub(without)))
}

/// Whole lines.
fn headers(shape: Shape, secret: &str) -> String {
    match shape {
        Shape::FirstParty => format!("authorization: Bearer {secret}\r\n"),
        Shape::Greenhouse => {
            // Unlike that of any load before, for repeats are not published again.
            let load = shared::random::number();
            format!("signature: sha256 {SIGNATURE}\r\ngreenhouse-event-id: {load}-{CALLBACK}\r\n")
        }
        Shape::Delivery => super::bare::HEADERS
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(shape: Shape, batch: usize) -> String {
        let target = Target {
            path: "/p".into(),
            secret: "secret".into(),
        };
        let host = "127.0.0.1:1".parse().unwrap();
        let mut request = Request::new(shape, &target, host, 1_024, batch).unwrap();
        for place in 0..batch {
            let number = u64::try_from(place).unwrap();
            let mark = Mark {
                at_us: 5,
                key: 3 + number,
                number: 70 + number,
            };
            request.mark(place, &mark);
        }
        String::from_utf8(request.signed().to_vec()).unwrap()
    }

    #[test]
    fn each_event_of_a_batch_has_its_own_mark_and_key() {
        let text = request(Shape::FirstParty, 3);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("authorization: Bearer secret"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let events: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
        for (place, event) in events.iter().enumerate() {
            assert_eq!(event["record_id"], format!("0000000{}", 3 + place));
            let mark = event["data"]["mark"].as_str().unwrap();
            let mark = Mark::find(mark.as_bytes()).unwrap();
            assert_eq!(mark.number, 70 + u64::try_from(place).unwrap());
            assert_eq!(event.to_string().len(), 1_024);
        }
    }

    #[test]
    fn a_callback_is_signed_over_its_body_and_numbered() {
        let text = request(Shape::Greenhouse, 1);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let expected =
            support::providers::greenhouse("secret", body.as_bytes().to_vec(), "any").headers;
        let (_, signature) = expected
            .iter()
            .find(|(name, _)| *name == "Signature")
            .unwrap();
        assert!(
            head.contains(&format!("signature: {signature}\r\n")),
            "{head}"
        );
        assert!(head.contains("callback-0000000300000070"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["payload"]["candidate"]["id"], 100_000_003);
    }
}
