//! Webhooks by the ten thousand, written into REGISTRY as the management API would write them.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shared::codec;
use shared::domain::endpoint_url::EndpointUrl;
use shared::domain::filter::{Pattern, Selection, Selector};
use shared::domain::policy::Policy;
use shared::domain::registry::{
    Aggregate, RegistryEntry, RegistryRecord, SEALED_DATA_KEY, SEALED_ENDPOINT, seal_context,
    signing_secret_context,
};
use shared::domain::webhook::{Dialect, Endpoint, Status, WebhookDefinition};
use shared::ids::{Position, ProjectId, SecretId, Sequence, WebhookId};
use shared::nats::append::{Expected, NewMessage};
use shared::nats::read::last_matching;
use shared::nats::topology::{self, TopologySettings};
use shared::nats::{self, Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::random;
use shared::secret::{DataKey, MasterKeys, new_signing_secret};
use shared::subjects;
use shared::time::Timestamp;

/// Webhooks that are written at once.
const UNDER_WAY: usize = 256;

pub(super) struct Writer {
    nats: Nats,
    keys: MasterKeys,
    now: Timestamp,
    from: Position,
}

impl Writer {
    /// Webhooks that it writes classify what is published from here on.
    pub(super) async fn connect(url: &str, keys: MasterKeys, now: Timestamp) -> Result<Self> {
        let settings = NatsSettings {
            urls: vec![url.to_owned()],
            client_name: "chaos".into(),
            ..NatsSettings::default()
        };
        let client = nats::connect(&settings).await?;
        let topology = TopologySettings {
            replicas: 1,
            partitions: PartitionCount::DEFAULT,
        };
        // Large, and made once.
        let nats = Box::pin(topology::ensure(&client, &topology)).await?;
        let from = Position {
            generation: nats.generation,
            sequence: nats.events_last().await?.next(),
        };
        Ok(Self {
            nats,
            keys,
            now,
            from,
        })
    }

    /// A webhook for each endpoint, enabled, taking everything, with the default policy.
    pub(super) async fn webhooks(
        &self,
        endpoints: impl Iterator<Item = (ProjectId, String)>,
    ) -> Result<()> {
        let endpoints: Vec<_> = endpoints.collect();
        let mut keys = HashMap::new();
        for (project, _) in &endpoints {
            if !keys.contains_key(project) {
                keys.insert(*project, self.data_key(*project).await?);
            }
        }
        let written = endpoints.into_iter().filter_map(|(project, url)| {
            let key = keys.get(&project)?;
            Some(self.webhook(project, key, url))
        });
        stream::iter(written)
            .buffer_unordered(UNDER_WAY)
            .try_collect::<()>()
            .await
    }

    async fn data_key(&self, project: ProjectId) -> Result<DataKey> {
        let id = project.to_string();
        let subject = subjects::registry(project, Aggregate::DataKey, &id);
        let last = last_matching(&self.nats.registry, &subject).await?;
        let last = last.context("the project's data key")?;
        let RegistryEntry::DataKeyCreated { sealed } = codec::decode_record(&last.payload)?.entry
        else {
            bail!("the data key of {project} was sealed anew");
        };
        let context = seal_context(SEALED_DATA_KEY, project, &id);
        let key = self.keys.unseal(&sealed, &context)?;
        Ok(DataKey::new(key.as_slice().try_into()?))
    }

    async fn webhook(&self, project: ProjectId, key: &DataKey, url: String) -> Result<()> {
        let id = WebhookId::new(self.now, &random::for_id());
        let secret_id = SecretId::new(self.now, &random::for_id());
        let secret = new_signing_secret(&random::bytes());
        let secret = RegistryEntry::SigningSecretAdded {
            webhook: id,
            sealed: key.seal(
                secret.reveal().as_bytes(),
                &signing_secret_context(project, secret_id),
                &random::bytes(),
            ),
        };
        let endpoint = Endpoint {
            url: EndpointUrl::parse(&url)?,
            headers: Vec::new(),
            token: None,
        };
        let everything = Selector {
            pattern: Pattern::All,
            providers: Vec::new(),
            sources: Vec::new(),
        };
        let definition = WebhookDefinition {
            dialect: Dialect::Stackone,
            sealed_endpoint: key.seal(
                &serde_json::to_vec(&endpoint)?,
                &seal_context(SEALED_ENDPOINT, project, &id.to_string()),
                &random::bytes(),
            ),
            selection: Selection::new(vec![everything])?,
            description: None,
            verification_required: false,
            verified_at: None,
            policy: Policy::default(),
            status: Status::Enabled,
            status_reason: None,
            active_secret: secret_id,
            previous_secret: None,
        };
        let created = RegistryEntry::WebhookCreated {
            from: self.from,
            definition,
        };
        // The secret first: whoever sees the webhook can sign for it.
        let secret_subject =
            subjects::registry(project, Aggregate::SigningSecret, &secret_id.to_string());
        self.append(secret_subject, secret).await?;
        let subject = subjects::registry(project, Aggregate::Webhook, &id.to_string());
        self.append(subject, created).await
    }

    async fn append(&self, subject: String, entry: RegistryEntry) -> Result<()> {
        let record = RegistryRecord {
            at: self.now,
            by: "chaos".into(),
            entry,
        };
        let message = NewMessage {
            payload: codec::encode_record(&record).into(),
            // Each subject is written once.
            message_id: subject.clone(),
            expected: Some(Expected {
                subject: subject.clone(),
                sequence: Sequence(0),
            }),
            subject,
            never_expires: false,
        };
        self.nats.append(message).await.context("a webhook")?;
        Ok(())
    }
}
