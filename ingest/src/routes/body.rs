//! Request bodies: bounded in size, decompressed or not, in time, and in what all of them hold
//! together, those of one project and those of all.

use std::cell::Cell;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Decompress;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use crate::error::IngestError;
use crate::memory::Reservation;

/// How fast bodies have to arrive. Senders have proved themselves before, so this bounds slow
/// ones, and what a customer's mistake or malice can hold; a phone does better than 8 KiB/s.
const PACE: Pace = Pace {
    within: Duration::from_secs(15),
    grace: Duration::from_secs(3),
    bytes_per_second: 8 << 10,
};
/// Compressed bytes that are fed to the decompressor at once. It gives out all that they expand
/// to, up to 1,032 times as much, before anybody can say stop; and so few it decodes in place,
/// without a thread of its own.
const COMPRESSED_PIECE_BYTES: usize = 1 << 10;

/// Bounds on the time that a body takes.
#[derive(Clone, Copy)]
struct Pace {
    /// The longest, whatever its size.
    within: Duration,
    /// From when on the rate counts.
    grace: Duration,
    /// As it arrives, compressed or not.
    bytes_per_second: u32,
}

impl Pace {
    /// When more must be there, or the end, after `bytes` have arrived; from the beginning.
    fn next_within(self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / self.bytes_per_second.max(1);
        self.within.min(self.grace + earned)
    }

    /// What somebody is told who has not kept it.
    fn missed(self, bytes: usize) -> IngestError {
        IngestError::TooSlow(match self.next_within(bytes) == self.within {
            true => "the body did not arrive in time",
            false => "the body arrives too slowly",
        })
    }
}

/// Reads the whole body, decompressed if it says that it is gzip or deflate. What comes with it is
/// its share of what may be held at once, to be kept for as long.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    reservation: Reservation,
) -> Result<(Vec<u8>, Reservation), IngestError> {
    // What says that it is too large need not be awaited. A compressed body speaks of itself only.
    let declared = declared_bytes(request).filter(|_| !is_encoded(request));
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(too_large(bytes_max));
    }
    collect(request, payload, bytes_max, reservation, PACE).await
}

async fn collect(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    mut reservation: Reservation,
    pace: Pace,
) -> Result<(Vec<u8>, Reservation), IngestError> {
    let begun = Instant::now();
    let arrived = Cell::new(0_usize);
    let payload = payload.inspect(|chunk| {
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        arrived.set(arrived.get().saturating_add(bytes));
    });
    let pieces = match is_encoded(request) {
        true => in_pieces(payload).left_stream(),
        false => payload.right_stream(),
    };
    let mut chunks = std::pin::pin!(Decompress::from_headers(pieces, request.headers()));
    let mut body = Vec::new();
    loop {
        let until = begun + pace.next_within(arrived.get());
        let chunk = tokio::time::timeout_at(until, chunks.next()).await;
        let Some(chunk) = chunk.map_err(|_| pace.missed(arrived.get()))? else {
            return Ok((body, reservation));
        };
        let unreadable = |_| IngestError::Malformed("the body could not be read".into());
        let chunk = chunk.map_err(unreadable)?;
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        reservation.grow(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
}

fn in_pieces(
    payload: impl Stream<Item = Result<Bytes, PayloadError>>,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    payload.flat_map(|chunk| {
        let (chunk, error) = match chunk {
            Ok(chunk) => (chunk, None),
            Err(error) => (Bytes::new(), Some(Err(error))),
        };
        let pieces = std::iter::successors(Some((Bytes::new(), chunk)), |(_, rest)| {
            let mut rest = rest.clone();
            let piece = rest.split_to(rest.len().min(COMPRESSED_PIECE_BYTES));
            (!piece.is_empty()).then_some((piece, rest))
        });
        let pieces = pieces.skip(1).map(|(piece, _)| Ok(piece));
        stream::iter(pieces.chain(error))
    })
}

fn is_encoded(request: &HttpRequest) -> bool {
    request.headers().contains_key(CONTENT_ENCODING)
}

fn declared_bytes(request: &HttpRequest) -> Option<usize> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn too_large(bytes_max: usize) -> IngestError {
    IngestError::TooLarge(format!("a body may have {bytes_max} bytes").into())
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest as _;
    use actix_web::dev::Payload;
    use actix_web::test::TestRequest;
    use shared::ids::ProjectId;

    use super::*;
    use crate::memory::Budget;

    /// gzip of 2 MiB of zeroes, as Python's `gzip.compress(bytes(2 << 20), 9, mtime=0)` makes it:
    /// 2 KiB, almost all of them zero too.
    fn bomb() -> Vec<u8> {
        let head =
            b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x31\x01\0\0\0\xc2\xa0\xf5\x4f\x6d\x0c\x1f\xa0";
        let tail = b"\xbe\x06\x7e\x87\x89\x8d\0\0\x20\0";
        [head.as_slice(), &[0; 2_032], tail].concat()
    }

    const ROOMY: usize = 8 << 20;

    fn reservation(budget: &Budget) -> Reservation {
        budget.reservation(ProjectId::from_bytes([1; 16]))
    }

    async fn read_with(
        body: Vec<u8>,
        encoding: Option<&str>,
        bytes_max: usize,
        budget: &Budget,
    ) -> Result<Vec<u8>, IngestError> {
        let mut request = TestRequest::post().set_payload(body);
        if let Some(encoding) = encoding {
            request = request.insert_header((CONTENT_ENCODING, encoding));
        }
        let (request, mut payload) = request.to_http_parts();
        let payload = web::Payload::from_request(&request, &mut payload)
            .await
            .unwrap();
        read(&request, payload, bytes_max, reservation(budget))
            .await
            .map(|(body, _)| body)
    }

    #[actix_web::test]
    async fn bodies_are_read_whole_and_decompressed() {
        let budget = Budget::new(4 * ROOMY);
        let plain = vec![b'x'; 100_000];
        for encoding in [None, Some("identity"), Some("br")] {
            let read = read_with(plain.clone(), encoding, ROOMY, &budget).await;
            assert_eq!(read.as_ref(), Ok(&plain), "{encoding:?}");
        }
        let read = read_with(bomb(), Some("gzip"), ROOMY, &budget).await;
        assert_eq!(read, Ok(vec![0; 2 << 20]));
        assert_eq!(
            reservation(&budget).grow(ROOMY),
            Ok(()),
            "all is given back"
        );
    }

    #[actix_web::test]
    async fn a_body_is_bounded_by_what_it_expands_to_and_by_what_is_held() {
        let (exact, budget) = (2 << 20, Budget::new(4 * ROOMY));
        let read = |max, budget: &Budget| {
            let budget = budget.clone();
            async move { read_with(bomb(), Some("gzip"), max, &budget).await }
        };
        assert!(read(exact, &budget).await.is_ok());
        let refused = read(exact - 1, &budget).await;
        assert!(
            matches!(refused, Err(IngestError::TooLarge(_))),
            "{refused:?}"
        );
        let tight = Budget::new(4 * (exact - 1));
        assert_eq!(read(exact, &tight).await, Err(IngestError::ProjectBusy));
        let long = read_with(vec![b'x'; 11], None, 10, &budget).await;
        assert!(matches!(long, Err(IngestError::TooLarge(_))), "{long:?}");
    }

    #[actix_web::test]
    async fn a_damaged_body_is_not_understood() {
        let budget = Budget::new(4 * ROOMY);
        let mut cut = bomb();
        cut.truncate(1_000);
        for damaged in [cut, b"no gzip".to_vec()] {
            let read = read_with(damaged, Some("gzip"), ROOMY, &budget).await;
            assert!(matches!(read, Err(IngestError::Malformed(_))), "{read:?}");
        }
    }

    #[test]
    fn the_time_that_a_body_has_grows_with_what_has_arrived() {
        for (bytes, ms) in [
            (0, 3_000),
            (1, 3_000),
            (8 << 10, 4_000),
            (80 << 10, 13_000),
            (96 << 10, 15_000),
            (8 << 20, 15_000),
            (usize::MAX, 15_000),
        ] {
            assert_eq!(PACE.next_within(bytes).as_millis(), ms, "{bytes}");
        }
        assert_eq!(
            [PACE.missed(0), PACE.missed(8 << 20)],
            [
                IngestError::TooSlow("the body arrives too slowly"),
                IngestError::TooSlow("the body did not arrive in time"),
            ]
        );
    }

    /// The compressed one expands to 2 MiB, which must not count.
    #[actix_web::test]
    async fn a_body_that_trickles_is_not_waited_for() {
        let pace = Pace {
            within: Duration::from_secs(60),
            grace: Duration::from_millis(20),
            bytes_per_second: 100 << 10,
        };
        for (start, encoding) in [(vec![b'x'; 2_000], "identity"), (bomb(), "gzip")] {
            let request = TestRequest::post()
                .insert_header((CONTENT_ENCODING, encoding))
                .to_http_request();
            let start = stream::iter([Ok(Bytes::from(start))]);
            let mut payload: Payload = Payload::Stream {
                payload: Box::pin(start.chain(stream::pending())),
            };
            let payload = web::Payload::from_request(&request, &mut payload)
                .await
                .unwrap();
            let budget = Budget::new(4 * ROOMY);
            let read = collect(&request, payload, ROOMY, reservation(&budget), pace);
            let read = tokio::time::timeout(Duration::from_secs(10), read).await;
            let slow = IngestError::TooSlow("the body arrives too slowly");
            assert_eq!(read.unwrap().err(), Some(slow), "{encoding}");
        }
    }
}
