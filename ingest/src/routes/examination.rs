//! Callbacks verified, mapped and rendered, large ones apart from the thread that accepts.
//!
//! Invariant: what one callback makes the processor do delays its like, and nobody else. There is
//! one thread that accepts; a connector's program over a mebibyte may take a good part of a second.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use shared::connector::{Callback, Connector};
use shared::domain::account::Account;
use shared::time::Timestamp;

use crate::app::App;
use crate::core::callback::{self, Judgement, VerifyRefusal};
use crate::error::IngestError;

/// At once, apart from the thread that accepts. Few: they use the processor alone, and the
/// dispatcher may run on the same machine.
pub(crate) const EXAMINATIONS_MAX: usize = 2;
/// Up to here a callback is examined where it is: usual ones have 1 or 2 KiB and a single change,
/// and would pay more for the way to another thread than for the work. What costs is the number of
/// changes, of which this many bytes hold a few hundred at most.
const INLINE_BYTES_MAX: usize = 8 << 10;
/// How long a large callback waits for its turn, before its provider is asked to send it again.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// A callback that has arrived, and what it is examined with.
pub(super) struct Arrived {
    pub(super) app: web::Data<App>,
    pub(super) method: String,
    pub(super) query: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) at: Timestamp,
    /// The server's.
    pub(super) max_payload: usize,
}

impl Arrived {
    pub(super) fn is_large(&self) -> bool {
        self.body.len() > INLINE_BYTES_MAX
    }

    fn callback(&self) -> Callback<'_> {
        Callback {
            method: &self.method,
            query: &self.query,
            headers: &self.headers,
            body: &self.body,
        }
    }
}

/// Accounts are made for providers that the dispatcher knows; a replica that does not know one is
/// set up otherwise, and another may.
pub(super) fn connector<'a>(app: &'a App, account: &Account) -> Result<&'a Connector, IngestError> {
    let provider = &account.definition.provider;
    app.connectors.get(provider).ok_or_else(|| {
        tracing::error!(account.id = %account.id, provider, "there is no such connector here");
        IngestError::Unavailable("the provider's connector is not there")
    })
}

/// What the callback comes to, if it is the account's.
pub(super) async fn examine(
    arrived: &Arc<Arrived>,
    account: &Arc<Account>,
) -> Result<Result<Judgement, VerifyRefusal>, IngestError> {
    if !arrived.is_large() {
        return examine_here(arrived, account);
    }
    let turn = arrived.app.examinations.clone().acquire_owned();
    let turn = tokio::time::timeout(TURN_WITHIN, turn).await;
    let Ok(Ok(turn)) = turn else {
        return Err(IngestError::Busy);
    };
    let (arrived, account) = (arrived.clone(), account.clone());
    let examined = web::block(move || {
        // Kept for as long as the work takes, even if nobody waits for it any more.
        let _turn = turn;
        examine_here(&arrived, &account)
    });
    examined.await.unwrap_or_else(|error| {
        tracing::error!(%error, "examining a callback has panicked");
        Err(IngestError::Unavailable("the callback was not examined"))
    })
}

fn examine_here(
    arrived: &Arrived,
    account: &Arc<Account>,
) -> Result<Result<Judgement, VerifyRefusal>, IngestError> {
    let connector = connector(&arrived.app, account)?;
    let callback = arrived.callback();
    if let Err(refusal) = callback::verify(account, connector, &callback, arrived.at) {
        return Ok(Err(refusal));
    }
    Ok(Ok(callback::judge(
        account,
        connector,
        &callback,
        arrived.at,
        arrived.max_payload,
        &mut shared::random::for_id,
    )))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use shared::connector::Connectors;
    use shared::domain::account::{AccountDefinition, AccountSecrets};
    use shared::ids::{AccountId, ProjectId, Sequence};
    use shared::secret::Secret;
    use shared::telemetry::metrics::Registry;
    use shared::time::SystemClock;

    use super::*;

    fn account() -> Arc<Account> {
        let at = Timestamp::default();
        Arc::new(Account {
            id: AccountId::from_bytes([2; 16]),
            project: ProjectId::from_bytes([1; 16]),
            definition: AccountDefinition {
                provider: "greenhouse".into(),
                name: None,
                origin_owner_id: "customer-1".into(),
                origin_owner_name: None,
                origin_username: None,
                sealed_secrets: Vec::new(),
            },
            secrets: AccountSecrets {
                ingest_key: Secret::new("key"),
                signing_secret: Some(Secret::new("hush")),
                signing_secret_generated: true,
                credentials: None,
                settings: None,
            },
            created_at: at,
            updated_at: at,
            sequence: Sequence(1),
        })
    }

    fn arrived(app: &web::Data<App>, body_bytes: usize) -> Arc<Arrived> {
        Arc::new(Arrived {
            app: app.clone(),
            method: "POST".into(),
            query: String::new(),
            headers: Vec::new(),
            body: vec![b' '; body_bytes],
            at: Timestamp::default(),
            max_payload: 1 << 20,
        })
    }

    #[actix_web::test]
    async fn only_small_callbacks_are_examined_on_the_thread_that_accepts() {
        let connectors = Connectors::embedded().unwrap();
        let clock = Arc::new(SystemClock::new());
        let app = web::Data::new(App::new(connectors, clock, &Registry::new()));
        let small = arrived(&app, INLINE_BYTES_MAX);
        let large = arrived(&app, INLINE_BYTES_MAX + 1);
        let account = account();
        // Not asked twice: done where it was asked, or not yet done.
        let unsigned = examine(&small, &account).now_or_never().unwrap().unwrap();
        assert!(matches!(unsigned, Err(VerifyRefusal::BadSignature(_))));
        assert!(examine(&large, &account).now_or_never().is_none());
        let unsigned = examine(&large, &account).await.unwrap();
        assert!(matches!(unsigned, Err(VerifyRefusal::BadSignature(_))));

        let permits = u32::try_from(EXAMINATIONS_MAX).unwrap();
        let turns = app.examinations.acquire_many(permits).await.unwrap();
        let mut waiting = Box::pin(examine(&large, &account));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(examine(&small, &account).now_or_never().is_some());
        drop(turns);
        assert!(waiting.await.is_ok());
    }
}
