//! The logs of a project's partition, written and read without the dispatcher.

use bytes::Bytes;
use shared::codec;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::journal::JournalEntry;
use shared::domain::state::PartitionState;
use shared::ids::{EventId, LaneHash, ProjectId, Sequence};
use shared::nats::read::read_all;
use shared::nats::topology::{self, TopologySettings};
use shared::nats::{self, Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::subjects;
use shared::time::Timestamp;

use crate::nats_server::NatsServer;
use crate::process::PARTITIONS;

pub(crate) struct Logs {
    nats: Nats,
    project: ProjectId,
}

pub(crate) async fn connect(server: &NatsServer) -> Nats {
    let settings = NatsSettings {
        urls: vec![server.url.clone()],
        ..NatsSettings::default()
    };
    let topology = TopologySettings {
        replicas: 1,
        partitions: PartitionCount::new(PARTITIONS).unwrap(),
    };
    let client = nats::connect(&settings).await.unwrap();
    topology::ensure(&client, &topology).await.unwrap()
}

impl Logs {
    pub(crate) async fn of(server: &NatsServer, project: &str) -> Self {
        Self {
            nats: connect(server).await,
            project: project.parse().unwrap(),
        }
    }

    /// An event of the one lane that there is; its id.
    pub(crate) async fn publish(&self, number: u128, record_id: &str) -> String {
        let id = EventId::from_bytes(number.to_be_bytes());
        let now = Timestamp::from_millis(1_750_000_000_000);
        let event = Event {
            id,
            project: self.project,
            event_type: EventType::parse("hris_employees.created").unwrap(),
            source: Source::FirstParty,
            account: None,
            provider: None,
            record_id: record_id.into(),
            occurred_at: now,
            published_at: now,
            lane: LaneHash(1),
            registry_sequence: None,
            body: Bytes::from_static(b"{}"),
        };
        let partition = self.nats.partitions.of(self.project);
        let subject = subjects::event(partition, self.project, &event.event_type);
        let stored = self
            .nats
            .context
            .publish(subject, codec::encode_event(&event));
        stored.await.unwrap().await.unwrap();
        id.to_string()
    }

    /// What JOURNAL says, and all its entries.
    pub(crate) async fn fold(&self) -> (PartitionState, Vec<JournalEntry>) {
        let (mut state, mut entries) = (PartitionState::default(), Vec::new());
        let subject = subjects::journal(self.nats.partitions.of(self.project));
        let read = read_all(&self.nats.journal, &subject, Sequence(0), |message| {
            let pack = codec::decode_pack(&message.payload).unwrap();
            state.apply(message.sequence, &pack).unwrap();
            entries.extend(pack.entries);
        });
        read.await.unwrap();
        (state, entries)
    }

    /// EVENTS' first and last sequence.
    pub(crate) async fn events(&self) -> (Sequence, Sequence) {
        nats::bounds(&self.nats.events).await.unwrap()
    }
}
