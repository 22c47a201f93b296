//! Bytes of our own messages; the only place that names bincode.
//!
//! `[version 1][bincode 2, standard configuration]`, and for an event `[body]` after it. bincode
//! structs cannot grow fields, so each version's wire structs are frozen once released: from the
//! first tagged release that can write them on. Until then they are edited in place, since no
//! bytes of theirs outlive a test. A variant that is appended to an enum takes the next version
//! byte too, with the same structs behind it: an older release must see a later one, not a
//! malformed message (`protocol.md`, rule 26). Decoding bounds what it allocates and refuses
//! trailing bytes, which bincode itself does not.

use bytes::Bytes;

use crate::domain::event::Event;
use crate::domain::journal::{EpochEntry, Pack};
use crate::domain::registry::RegistryRecord;
use crate::domain::snapshot::SnapshotManifest;
use crate::domain::state::PartitionState;
use crate::limits::{DECODE_BYTES_MAX, STATE_BYTES_MAX};
use mirror::Mirror as _;

mod mirror;
mod v1;
mod v1_journal;
mod v1_registry;
mod v1_snapshot;
mod v1_state;

const VERSION_1: u8 = 1;
/// The highest version that this release reads (`protocol.md`, rule 26).
pub const READABLE_VERSION: u8 = VERSION_1;

/// The bytes are no message of ours, or of a later release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A later release wrote it: the reader must give way, never skip.
    #[error("unknown version {0}")]
    UnknownVersion(u8),
    #[error("malformed: {0}")]
    Malformed(String),
}

impl DecodeError {
    fn malformed(what: impl std::fmt::Display) -> Self {
        Self::Malformed(what.to_string())
    }
}

pub fn encode_event(event: &Event) -> Bytes {
    let mut bytes = encode(&v1::EventHead::from(event), event.body.len());
    bytes.extend_from_slice(&event.body);
    bytes.into()
}

/// The body is a slice of `bytes`, not a copy.
pub fn decode_event(bytes: &Bytes) -> Result<Event, DecodeError> {
    let (head, used) = decode::<v1::EventHead<'_>, DECODE_BYTES_MAX>(bytes)?;
    let body = bytes.slice(used..);
    if u64::try_from(body.len()) != Ok(head.body_bytes) {
        return Err(DecodeError::malformed("body length"));
    }
    head.into_event(body)
}

pub fn encode_record(record: &RegistryRecord) -> Vec<u8> {
    encode(&v1_registry::Record::from(record), 0)
}

pub fn decode_record(bytes: &[u8]) -> Result<RegistryRecord, DecodeError> {
    decode_whole::<v1_registry::Record, DECODE_BYTES_MAX>(bytes)?.try_into()
}

pub fn encode_pack(pack: &Pack) -> Vec<u8> {
    encode(&v1_journal::Pack::of(pack), 0)
}

pub fn decode_pack(bytes: &[u8]) -> Result<Pack, DecodeError> {
    decode_whole::<v1_journal::Pack, DECODE_BYTES_MAX>(bytes).map(|wire| wire.into_domain())
}

pub fn encode_epoch(entry: &EpochEntry) -> Vec<u8> {
    encode(&v1::EpochEntry::of(entry), 0)
}

pub fn decode_epoch(bytes: &[u8]) -> Result<EpochEntry, DecodeError> {
    decode_whole::<v1::EpochEntry, DECODE_BYTES_MAX>(bytes).map(|wire| wire.into_domain())
}

pub fn encode_snapshot_manifest(manifest: &SnapshotManifest) -> Vec<u8> {
    encode(&v1_snapshot::Manifest::from(manifest), 0)
}

pub fn decode_snapshot_manifest(bytes: &[u8]) -> Result<SnapshotManifest, DecodeError> {
    decode_whole::<v1_snapshot::Manifest, DECODE_BYTES_MAX>(bytes).map(Into::into)
}

/// Equal states give equal bytes, so that a snapshot can be compared with a replay. A result
/// longer than [`STATE_BYTES_MAX`] cannot be decoded; whoever stores it looks at its length.
pub fn encode_state(state: &PartitionState) -> Vec<u8> {
    encode(&v1_state::Partition::of(state), 0)
}

pub fn decode_state(bytes: &[u8]) -> Result<PartitionState, DecodeError> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(DecodeError::malformed("longer than a state may be"));
    }
    // bincode counts a number by its full width, which is up to eight times what it takes here; so
    // the length above is the limit, and what was written within it can always be read.
    const WIDTHS_MAX: usize = 8 * STATE_BYTES_MAX;
    decode_whole::<v1_state::Partition, WIDTHS_MAX>(bytes).map(|wire| wire.into_domain())
}

/// Encoded bytes, with room for `more` behind them.
fn encode<T: serde::Serialize>(wire: &T, more: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + more);
    bytes.push(VERSION_1);
    #[expect(
        clippy::expect_used,
        reason = "wire structs hold nothing that bincode cannot encode"
    )]
    bincode::serde::encode_into_std_write(wire, &mut bytes, bincode::config::standard())
        .expect("a Vec takes all bytes and wire structs have known lengths");
    bytes
}

/// The message, whose numbers at their full width and other bytes make at most `BYTES_MAX`, and
/// how many bytes it took, the version byte included.
fn decode<'a, T: serde::Deserialize<'a>, const BYTES_MAX: usize>(
    bytes: &'a [u8],
) -> Result<(T, usize), DecodeError> {
    let configuration = bincode::config::standard().with_limit::<BYTES_MAX>();
    match bytes.split_first() {
        Some((&VERSION_1, rest)) => bincode::serde::borrow_decode_from_slice(rest, configuration)
            .map(|(wire, used)| (wire, used + 1))
            .map_err(DecodeError::malformed),
        Some((&version, _)) => Err(DecodeError::UnknownVersion(version)),
        None => Err(DecodeError::malformed("empty")),
    }
}

fn decode_whole<'a, T: serde::Deserialize<'a>, const BYTES_MAX: usize>(
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    let (wire, used) = decode::<T, BYTES_MAX>(bytes)?;
    if used == bytes.len() {
        Ok(wire)
    } else {
        Err(DecodeError::malformed("trailing bytes"))
    }
}
