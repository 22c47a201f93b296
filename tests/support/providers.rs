//! Callbacks as providers send them: their payloads in the documented shape, signed their way.
//!
//! The signatures are computed here from the primitives, not by the code that checks them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// A signed request body and the headers that it comes with.
#[derive(Clone, Debug)]
pub struct Callback {
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// BambooHR signs the body followed by the timestamp header's text.
pub fn bamboohr(secret: &str, body: Vec<u8>, timestamp: &str) -> Callback {
    let signature = hmac_hex(secret, &[&body, timestamp.as_bytes()]);
    Callback {
        headers: vec![
            ("Content-Type", "application/json".into()),
            ("X-BambooHR-Timestamp", timestamp.to_owned()),
            ("X-BambooHR-Signature", signature),
        ],
        body,
    }
}

/// Greenhouse signs the body alone, and numbers its deliveries in a header.
pub fn greenhouse(secret: &str, body: Vec<u8>, event_id: &str) -> Callback {
    let signature = format!("sha256 {}", hmac_hex(secret, &[&body]));
    Callback {
        headers: vec![
            ("Content-Type", "application/json".into()),
            ("Signature", signature),
            ("Greenhouse-Event-ID", event_id.to_owned()),
        ],
        body,
    }
}

/// A field-based callback of BambooHR about one employee, at a time as BambooHR writes it.
pub fn bamboohr_employee_updated(employee: &str, first_name: &str, at: &str) -> Vec<u8> {
    let body = json!({
        "employees": [{
            "id": employee,
            "action": "Updated",
            "timestamp": at,
            "changedFields": ["First Name", "Job Title"],
            "fields": {
                "Employee #": { "value": "300" },
                "First Name": { "value": first_name },
                "Last Name": { "value": "Adams" },
                "Job Title": { "value": "Bell Founder" },
            },
        }],
    });
    body.to_string().into_bytes()
}

/// A callback of Greenhouse that says that a candidate changed. Greenhouse escapes `<`, `>` and
/// `&` before it signs.
pub fn greenhouse_candidate_updated(candidate: u64, first_name: &str) -> Vec<u8> {
    let body = json!({
        "action": "update_candidate",
        "payload": {
            "candidate": {
                "id": candidate,
                "first_name": first_name,
                "last_name": "Lovelace",
                "title": "Engineer",
                "company": "Babbage & Daughters",
                "created_at": "2026-01-12T09:30:00Z",
                "external_id": Value::Null,
                "phone_numbers": [{ "value": "555-555-5555", "type": "mobile" }],
                "email_addresses": [{ "value": "ada@example.com", "type": "work" }],
                "tags": [],
                "custom_fields": {},
            },
        },
    });
    let text = body
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    text.into_bytes()
}

fn hmac_hex(secret: &str, parts: &[&[u8]]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    for part in parts {
        mac.update(part);
    }
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(callback: &'a Callback, name: &str) -> &'a str {
        let found = callback.headers.iter().find(|(other, _)| *other == name);
        found.unwrap().1.as_str()
    }

    #[test]
    fn bamboohr_matches_the_public_fixture() {
        let body = br##"{"employees":[{"changedFields":["First name"],"fields":{"Employee #":{"value":"300"},"First name":{"value":"Tefi"},"Last name":{"value":"Adams"}},"id":"5"}]}"##;
        let callback = bamboohr(
            "123b929362d51613054f71e5e5d4bf2c",
            body.to_vec(),
            "1658248023",
        );
        assert_eq!(
            header(&callback, "X-BambooHR-Signature"),
            "56491dd9c2b352bc5f4fc627159aae20ddff9c8cb19f239a6de6771dc5310bac"
        );
        assert_eq!(header(&callback, "X-BambooHR-Timestamp"), "1658248023");
    }

    /// The vector that GitHub publishes, whose scheme differs by its prefix alone.
    #[test]
    fn greenhouse_signs_the_body_alone() {
        let callback = greenhouse(
            "It's a Secret to Everybody",
            b"Hello, World!".to_vec(),
            "e1",
        );
        assert_eq!(
            header(&callback, "Signature"),
            "sha256 757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn greenhouse_escapes_before_it_signs() {
        let body = String::from_utf8(greenhouse_candidate_updated(1, "<Ada>")).unwrap();
        assert!(
            body.contains("\\u003cAda\\u003e") && !body.contains(['<', '>', '&']),
            "{body}"
        );
        assert!(serde_json::from_str::<Value>(&body).is_ok());
    }
}
