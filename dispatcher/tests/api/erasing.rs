//! What is erased is gone, and what stays is still read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use shared::codec;
use shared::domain::event::EventType;
use shared::domain::registry::{Aggregate, Command, RegistryEntry, SEALED_DATA_KEY, seal_context};
use shared::ids::{ProjectId, Sequence, WebhookId};
use shared::nats::Nats;
use shared::nats::erasing::{erase_events, overwrite};
use shared::nats::read::{Lookup, last_matching, message_at};
use shared::nats::registry_view::RegistryView;
use shared::secret::MasterKeys;
use shared::subjects;
use shared::time::{Clock as _, SystemClock};

use crate::nats_server::NatsServer;
use crate::support::{Api, MASTER_KEY, eventually};

const OURS: ProjectId = ProjectId::from_bytes([1; 16]);
const THEIRS: ProjectId = ProjectId::from_bytes([2; 16]);

fn subject(nats: &Nats, project: ProjectId) -> String {
    let event_type = EventType::parse("hris_employees.created").unwrap();
    subjects::event(nats.partitions.of(project), project, &event_type)
}

async fn publish(nats: &Nats, project: ProjectId, count: usize) {
    let mut acknowledged = Vec::new();
    for _ in 0..count {
        let published = nats.context.publish(subject(nats, project), "x".into());
        acknowledged.push(published.await.unwrap());
    }
    for one in acknowledged {
        one.await.unwrap();
    }
}

#[actix_web::test]
async fn events_of_a_project_are_erased_however_many_there_are() {
    let server = NatsServer::start().await;
    let api = Api::start(&server).await;
    let nats = api.nats();
    // More than are overwritten one by one, and then fewer.
    for count in [1_100, 30] {
        publish(nats, THEIRS, 1).await;
        publish(nats, OURS, count).await;
        let last = nats.events_last().await.unwrap();
        assert!(erase_events(nats, OURS).await.unwrap() > 0);
        assert_eq!(erase_events(nats, OURS).await.unwrap(), 0);
        assert_eq!(nats.events_last().await.unwrap(), last);
        let gone = message_at(&nats.events, last).await.unwrap();
        assert!(matches!(gone, Lookup::Erased), "{gone:?}");
        assert!(message_at(&nats.events, last.next()).await.is_err());
    }
    let left = last_matching(&nats.events, &subject(nats, THEIRS)).await;
    assert_eq!(left.unwrap().unwrap().sequence, Sequence(1_102));
    // What is gone is gone.
    overwrite(&nats.events, Sequence(2)).await.unwrap();
}

/// As if whoever sealed anew was cut off before the former entry was overwritten.
#[actix_web::test]
async fn a_former_entry_of_a_data_key_does_not_keep_a_replica_from_reading_on() {
    let server = NatsServer::start().await;
    let api = Api::start(&server).await;
    let project = api.project("Acme").await;
    let body = json!({"url": "https://1.1.1.1/hook", "events": ["*"]});
    let webhook = api.post(&project.key, "/v1/webhooks", body.clone()).await;
    let webhook: WebhookId = webhook.expect(201).text("/id").parse().unwrap();
    let (id, nats) = (project.id.parse().unwrap(), api.nats());
    let new = STANDARD.encode([9; 32]);
    let both = MasterKeys::new(&new, &[MASTER_KEY]).unwrap();
    let subject = subjects::registry(id, Aggregate::DataKey, &project.id);
    let created = last_matching(&nats.registry, &subject).await;
    let created = created.unwrap().unwrap();
    let record = codec::decode_record(&created.payload).unwrap();
    let RegistryEntry::DataKeyCreated { sealed } = record.entry else {
        panic!("{:?}", record.entry);
    };
    let context = seal_context(SEALED_DATA_KEY, id, &project.id);
    let key = both.unseal(&sealed, &context).unwrap();
    let command = Command::ResealDataKey {
        project: id,
        sealed: both.seal(&key, &context, &[0; 24]),
    };
    let clock = Arc::new(SystemClock::new());
    let resealed = api.view().execute(command, "test", clock.now()).await;
    resealed.unwrap();
    // This replica was not told of the new key, and goes on.
    api.post(&project.key, "/v1/webhooks", body)
        .await
        .expect(201);
    let keys = MasterKeys::new(&new, &[]).unwrap();
    let late = RegistryView::start(nats.clone(), keys, clock, None);
    let signs = |view: &RegistryView| {
        view.read(|state| {
            let webhook = state.webhook_of(id, webhook)?;
            webhook.signers.as_ref().map(drop)
        })
    };
    eventually(|| signs(&late)).await;
    eventually(|| late.is_current().then_some(())).await;
    assert_eq!(*late.fatal().borrow(), None);
    // Without either key nothing can be read.
    let other = MasterKeys::new(&STANDARD.encode([8; 32]), &[]).unwrap();
    let blind = RegistryView::start(nats.clone(), other, Arc::new(SystemClock::new()), None);
    eventually(|| blind.fatal().borrow().clone()).await;
}
