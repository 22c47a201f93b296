//! A webhook's attempts as JOURNAL tells of them, newest first: each entry says where the one
//! before lies, so that a reader goes from link to link, whichever replica it is in.

use std::sync::Arc;

use shared::codec::{self, DecodeError};
use shared::domain::journal::{EntryPlace, JournalEntry, Pack};
use shared::ids::{PartitionId, Sequence};
use shared::nats::read::{Lookup, message_at};
use shared::nats::{Nats, Unavailable};
use shared::subjects;

/// Packs that one reader reads. Each takes a request, mostly well below a millisecond, and up to
/// [`shared::limits::PACK_BYTES_MAX`].
const PACKS_MAX: usize = 256;
const BYTES_MAX: usize = 16 << 20;

/// A reader of one partition's packs. It remembers the pack that it read last: links go to the
/// same pack or an earlier one.
pub(crate) struct AttemptLog<'a> {
    nats: &'a Nats,
    partition: PartitionId,
    last: Option<(Sequence, Arc<Pack>)>,
    packs: usize,
    bytes: usize,
}

/// What lies at a place.
pub(crate) enum Read {
    Entry(Logged),
    /// JOURNAL has forgotten it, and all before it.
    Forgotten,
    /// The reader has read as much as it may.
    Enough,
    /// Nothing that a link can lead to.
    Foreign,
}

/// An entry in its pack.
pub(crate) struct Logged {
    pack: Arc<Pack>,
    place: EntryPlace,
}

impl Logged {
    /// `None` never: it was looked up before.
    pub(crate) fn entry(&self) -> Option<&JournalEntry> {
        self.pack.entries.get(usize::from(self.place.index))
    }

    pub(crate) fn pack(&self) -> &Pack {
        &self.pack
    }

    /// Where a link of this entry leads; one may stand for its own pack.
    pub(crate) fn follow(&self, link: Option<EntryPlace>) -> Option<EntryPlace> {
        link.map(|link| match link.pack {
            Sequence(0) => EntryPlace {
                pack: self.place.pack,
                ..link
            },
            Sequence(_) => link,
        })
    }
}

impl<'a> AttemptLog<'a> {
    pub(crate) fn new(nats: &'a Nats, partition: PartitionId) -> Self {
        Self {
            nats,
            partition,
            last: None,
            packs: 0,
            bytes: 0,
        }
    }

    pub(crate) async fn read(&mut self, place: EntryPlace) -> Result<Read, Unavailable> {
        let pack = match &self.last {
            Some((at, pack)) if *at == place.pack => Arc::clone(pack),
            Some(_) | None => {
                if self.packs >= PACKS_MAX || self.bytes >= BYTES_MAX {
                    return Ok(Read::Enough);
                }
                match self.pack(place.pack).await? {
                    Ok(pack) => pack,
                    Err(read) => return Ok(read),
                }
            }
        };
        if pack.entries.len() <= usize::from(place.index) {
            return Ok(Read::Foreign);
        }
        Ok(Read::Entry(Logged { pack, place }))
    }

    async fn pack(&mut self, at: Sequence) -> Result<Result<Arc<Pack>, Read>, Unavailable> {
        self.packs += 1;
        let message = match message_at(&self.nats.journal, at).await? {
            Lookup::Found(message) => message,
            // Nobody erases packs but an operator who means it.
            Lookup::Expired | Lookup::Erased => return Ok(Err(Read::Forgotten)),
        };
        self.bytes += message.payload.len();
        if message.subject != subjects::journal(self.partition) {
            return Ok(Err(Read::Foreign));
        }
        let pack = match codec::decode_pack(&message.payload) {
            Ok(pack) => Arc::new(pack),
            // A later release wrote it, and one of those must show it.
            Err(error @ DecodeError::UnknownVersion(_)) => {
                return Err(Unavailable(error.to_string()));
            }
            Err(DecodeError::Malformed(_)) => return Ok(Err(Read::Forgotten)),
        };
        self.last = Some((at, Arc::clone(&pack)));
        Ok(Ok(pack))
    }
}
