//! Event ids, which are message ids too (`protocol.md`, rule 1).
//!
//! Invariant: an event that names what identifies it gets the same id whenever and wherever it is
//! received again, and no other event ever gets it. One that names nothing is never deduplicated.

use std::collections::HashMap;

use shared::domain::event::{DedupTuple, EventType};
use shared::ids::{AccountId, EventId, IdRandom, ProjectId};
use shared::time::Timestamp;

/// Connector of first-party events in the dedup tuple.
pub(crate) const FIRST_PARTY: &str = "first_party";

/// Where randomness comes from; the shell passes it in.
pub(crate) type NewRandom<'a> = &'a mut dyn FnMut() -> IdRandom;

/// The ids of one callback's or one request's events.
pub(crate) struct MessageIds<'a> {
    pub(crate) project: ProjectId,
    /// Connector key, or [`FIRST_PARTY`].
    pub(crate) connector: &'a str,
    pub(crate) now: Timestamp,
    new_random: NewRandom<'a>,
    /// How often each tuple came before in this callback, by its id at index 0.
    seen: HashMap<EventId, u32>,
}

impl<'a> MessageIds<'a> {
    pub(crate) fn new(
        project: ProjectId,
        connector: &'a str,
        now: Timestamp,
        new_random: NewRandom<'a>,
    ) -> Self {
        Self {
            project,
            connector,
            now,
            new_random,
            seen: HashMap::new(),
        }
    }

    /// Of an event whose equals in one callback are events of their own: a provider may tell of
    /// two changes with one id of its own.
    pub(crate) fn distinct(
        &mut self,
        identity: Option<&str>,
        account: Option<AccountId>,
        event_type: &EventType,
        record_id: &str,
    ) -> EventId {
        let Some(identity) = identity else {
            return self.random();
        };
        let tuple = self.tuple(identity, account, event_type, record_id);
        let first = tuple.event_id();
        let before = self.seen.entry(first).or_default();
        let index = *before;
        *before = before.saturating_add(1);
        if index == 0 {
            first
        } else {
            DedupTuple { index, ..tuple }.event_id()
        }
    }

    /// Of an event whose equals are repeats of it: the caller chose the key to say so.
    pub(crate) fn repeatable(
        &mut self,
        key: Option<&str>,
        account: Option<AccountId>,
        event_type: &EventType,
        record_id: &str,
    ) -> EventId {
        match key {
            Some(key) => self.tuple(key, account, event_type, record_id).event_id(),
            None => self.random(),
        }
    }

    fn random(&mut self) -> EventId {
        EventId::new(self.now, &(self.new_random)())
    }

    fn tuple<'t>(
        &self,
        identity: &'t str,
        account: Option<AccountId>,
        event_type: &'t EventType,
        record_id: &'t str,
    ) -> DedupTuple<'t>
    where
        'a: 't,
    {
        DedupTuple {
            project: self.project,
            account,
            connector: self.connector,
            identity,
            event_type,
            record_id,
            index: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tuples_of_one_callback_are_told_apart_the_same_way_each_time() {
        let event_type = EventType::parse("hris_employees.updated").unwrap();
        let mut random = || [7; 10];
        let mut callback = || {
            let now = Timestamp::from_millis(1);
            let project = ProjectId::from_bytes([1; 16]);
            let mut ids = MessageIds::new(project, "bamboohr", now, &mut random);
            [("a", "1"), ("a", "1"), ("a", "2"), ("a", "1")]
                .map(|(identity, record)| ids.distinct(Some(identity), None, &event_type, record))
        };
        let first = callback();
        assert_eq!(first, callback());
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(different.len(), 4);
        assert!(first.iter().all(|id| id.uuid().get_version_num() == 8));
    }

    #[test]
    fn without_an_identity_ids_are_random() {
        let event_type = EventType::parse("hris_employees.updated").unwrap();
        let mut count = 0;
        let mut random = || {
            count += 1;
            [count; 10]
        };
        let project = ProjectId::from_bytes([1; 16]);
        let mut ids = MessageIds::new(project, FIRST_PARTY, Timestamp::from_millis(1), &mut random);
        let first = ids.distinct(None, None, &event_type, "1");
        assert_ne!(first, ids.repeatable(None, None, &event_type, "1"));
        assert_eq!(first.uuid().get_version_num(), 7);
    }
}
