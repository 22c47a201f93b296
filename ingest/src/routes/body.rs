//! Request bodies: bounded in size, decompressed or not, in time, and in what all of them hold
//! together.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Decompress;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use crate::error::IngestError;
use crate::memory::{Budget, Reservation};

/// The longest that a body may take. Senders have proved themselves before it is read, so this
/// bounds slow ones, not attackers.
const BODY_WITHIN: Duration = Duration::from_secs(15);
/// Compressed bytes that are fed to the decompressor at once. It gives out all that they expand
/// to, up to 1,032 times as much, before anybody can say stop; and so few it decodes in place,
/// without a thread of its own.
const COMPRESSED_PIECE_BYTES: usize = 1 << 10;

/// Reads the whole body, decompressed if it says that it is gzip or deflate. What comes with it is
/// its share of what may be held at once, to be kept for as long.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    budget: &Budget,
) -> Result<(Vec<u8>, Reservation), IngestError> {
    // What says that it is too large need not be awaited. A compressed body speaks of itself only.
    let declared = declared_bytes(request).filter(|_| !is_encoded(request));
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let collected = collect(request, payload, bytes_max, budget);
    tokio::time::timeout(BODY_WITHIN, collected)
        .await
        .unwrap_or(Err(IngestError::TooSlow))
}

async fn collect(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    budget: &Budget,
) -> Result<(Vec<u8>, Reservation), IngestError> {
    let pieces = match is_encoded(request) {
        true => in_pieces(payload).left_stream(),
        false => payload.right_stream(),
    };
    let mut chunks = std::pin::pin!(Decompress::from_headers(pieces, request.headers()));
    let mut body = Vec::new();
    let mut reservation = budget.reservation();
    while let Some(chunk) = chunks.next().await {
        let unreadable = |_| IngestError::Malformed("the body could not be read".into());
        let chunk = chunk.map_err(unreadable)?;
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        reservation.grow(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok((body, reservation))
}

fn in_pieces(payload: web::Payload) -> impl Stream<Item = Result<Bytes, PayloadError>> {
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
    use actix_web::test::TestRequest;

    use super::*;

    /// gzip of 2 MiB of zeroes, as Python's `gzip.compress(bytes(2 << 20), 9, mtime=0)` makes it:
    /// 2 KiB, almost all of them zero too.
    fn bomb() -> Vec<u8> {
        let head =
            b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x31\x01\0\0\0\xc2\xa0\xf5\x4f\x6d\x0c\x1f\xa0";
        let tail = b"\xbe\x06\x7e\x87\x89\x8d\0\0\x20\0";
        [head.as_slice(), &[0; 2_032], tail].concat()
    }

    const ROOMY: usize = 8 << 20;

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
        read(&request, payload, bytes_max, budget)
            .await
            .map(|(body, _)| body)
    }
    #[actix_web::test]
    async fn bodies_are_read_whole_and_decompressed() {
        let budget = Budget::new(ROOMY);
        let plain = vec![b'x'; 100_000];
        for encoding in [None, Some("identity"), Some("br")] {
            let read = read_with(plain.clone(), encoding, ROOMY, &budget).await;
            assert_eq!(read.as_ref(), Ok(&plain), "{encoding:?}");
        }
        let read = read_with(bomb(), Some("gzip"), ROOMY, &budget).await;
        assert_eq!(read, Ok(vec![0; 2 << 20]));
        assert_eq!(
            budget.reservation().grow(ROOMY),
            Ok(()),
            "all is given back"
        );
    }

    #[actix_web::test]
    async fn a_body_is_bounded_by_what_it_expands_to_and_by_what_is_held() {
        let (exact, budget) = (2 << 20, Budget::new(ROOMY));
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
        let tight = Budget::new(exact - 1);
        assert_eq!(read(exact, &tight).await, Err(IngestError::Busy));
        let long = read_with(vec![b'x'; 11], None, 10, &budget).await;
        assert!(matches!(long, Err(IngestError::TooLarge(_))), "{long:?}");
    }

    #[actix_web::test]
    async fn a_damaged_body_is_not_understood() {
        let budget = Budget::new(ROOMY);
        let mut cut = bomb();
        cut.truncate(1_000);
        for damaged in [cut, b"no gzip".to_vec()] {
            let read = read_with(damaged, Some("gzip"), ROOMY, &budget).await;
            assert!(matches!(read, Err(IngestError::Malformed(_))), "{read:?}");
        }
    }
}
