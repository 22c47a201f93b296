//! The stage: services, a receiver, and through the API a project with two accounts and a webhook.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use support::api::text;
use support::cluster::{Cluster, Tenant};
use support::receiver::Receiver;
use support::stored::Stored;

use crate::page::Page;

pub(crate) const PROJECT_NAME: &str = "Carillon demonstration";
pub(crate) const HOOK_PATH: &str = "/hooks/everything";

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) receiver: Receiver,
    pub(crate) stored: Stored,
    pub(crate) tenant: Tenant,
    pub(crate) webhook: String,
    pub(crate) webhook_secret: String,
    pub(crate) bamboohr: Account,
    pub(crate) greenhouse: Account,
}

pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) provider: &'static str,
    pub(crate) ingest_url: String,
    /// What the provider signs with.
    pub(crate) signing_secret: String,
}

impl Account {
    /// The part of the ingest URL that nobody can guess.
    pub(crate) fn ingest_key(&self) -> &str {
        self.ingest_url.rsplit('/').next().unwrap_or_default()
    }
}

impl Scene {
    /// The webhook comes before the accounts, so that it is told of them.
    pub(crate) async fn set(folder: &Path, page: &Page) -> Result<Self> {
        page.line(
            "",
            "Starting nats-server, ingest, dispatcher and a receiver.",
        );
        let receiver = Receiver::start()?;
        let cluster = Cluster::builder().folder(folder).start().await?;
        let stored = Stored::connect(&cluster.nats.url()).await?;
        let tenant = cluster.tenant(PROJECT_NAME).await?;
        let webhook = json!({ "url": receiver.url(HOOK_PATH), "events": ["*"] });
        let webhook = tenant.client.create_webhook(&webhook).await?.expect(201)?;
        let webhook_secret = text(&webhook, "/signing_secrets/0/secret")?;
        receiver.trust(HOOK_PATH, &webhook_secret);
        let bamboohr = bamboohr(&tenant).await?;
        let greenhouse = greenhouse(&tenant).await?;
        Ok(Self {
            webhook: text(&webhook, "/id")?,
            webhook_secret,
            bamboohr,
            greenhouse,
            cluster,
            receiver,
            stored,
            tenant,
        })
    }
}

/// BambooHR makes the key, and tells it once to whoever creates the webhook there.
async fn bamboohr(tenant: &Tenant) -> Result<Account> {
    let key = hex::encode(shared::random::bytes::<16>());
    let account = json!({
        "provider": "bamboohr",
        "name": "Bell foundry",
        "origin_owner_id": "customer-17",
        "origin_owner_name": "Great Paul & Sons",
        "credentials": { "signing_secret": key },
    });
    let created = tenant.client.create_account(&account).await?.expect(201)?;
    Ok(Account {
        id: text(&created, "/id")?,
        provider: "bamboohr",
        ingest_url: text(&created, "/ingest/url")?,
        signing_secret: key,
    })
}

/// At Greenhouse the customer types our secret in.
async fn greenhouse(tenant: &Tenant) -> Result<Account> {
    let account = json!({
        "provider": "greenhouse",
        "name": "Hiring",
        "origin_owner_id": "customer-17",
    });
    let created = tenant.client.create_account(&account).await?.expect(201)?;
    let signing_secret = text(&created, "/ingest/secret")
        .context("a manual provider's account comes with a secret to sign with")?;
    ensure!(!signing_secret.is_empty(), "the account's secret is empty");
    Ok(Account {
        id: text(&created, "/id")?,
        provider: "greenhouse",
        ingest_url: text(&created, "/ingest/url")?,
        signing_secret,
    })
}
