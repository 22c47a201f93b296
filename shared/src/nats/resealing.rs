//! Sealing anew what a former master key has sealed, while the services run.
//!
//! Master keys seal the projects' data keys and nothing else. A data key stays the same; under
//! another master key it is appended once more, checked by its subject's last sequence, and what
//! was there before is overwritten. Replicas that fold it go on with the key that they hold. Doing
//! it again does what is left.

use std::collections::BTreeMap;

use super::erasing::{HeldSubject, held, overwrite};
use super::registry_view::{ExecuteError, RegistryView};
use super::{Nats, Unavailable};
use crate::domain::registry::{
    Aggregate, Command, CommandError, RegistryEntry, SEALED_DATA_KEY, seal_context,
};
use crate::ids::ProjectId;
use crate::random;
use crate::secret::{MasterKeys, UnsealError};
use crate::subjects;
use crate::time::Clock;

/// Who seals, in REGISTRY.
const BY: &str = "reseal";
/// Looks at the log: the first does the work, and the next what came up meanwhile.
const LOOKS_MAX: usize = 5;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Data keys, all of which the current master key has sealed now.
    pub data_keys: usize,
    /// Of these, those that were sealed anew.
    pub resealed: usize,
    /// Former entries that were overwritten.
    pub overwritten: usize,
}

/// Why something is left that a former key has sealed.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("the data key of {project}: {error}")]
    Unseal {
        project: ProjectId,
        error: UnsealError,
    },
    #[error("the data key of {project}: {error}")]
    Execute {
        project: ProjectId,
        error: ExecuteError,
    },
    #[error(
        "{0} data keys are still sealed with a former key: replicas that seal with it run, or a \
         project that was just deleted is not erased yet"
    )]
    Left(usize),
}

/// Seals every data key with the current master key. `keys` must hold those that seal now.
pub async fn reseal(
    view: &RegistryView,
    nats: &Nats,
    keys: &MasterKeys,
    clock: &dyn Clock,
) -> Result<Resealed, ResealError> {
    let mut done = Resealed::default();
    let mut left = 0;
    for _ in 0..LOOKS_MAX {
        // Whatever is in the log that is looked at can be decided about.
        view.catch_up().await?;
        let subjects = look(nats).await?;
        let current = |held: &Held| last_sealed(held).is_none_or(|sealed| keys.is_current(sealed));
        left = subjects.values().filter(|held| !current(held)).count();
        done.data_keys = subjects.values().filter_map(last_sealed).count();
        if left == 0 {
            for held in subjects.values() {
                done.overwritten += overwrite_former(nats, held).await?;
            }
            return Ok(done);
        }
        for held in subjects.values().filter(|held| !current(held)) {
            done.resealed += usize::from(reseal_one(view, keys, clock, held).await?);
        }
    }
    Err(ResealError::Left(left))
}

/// A data key's subject; `None` for entries that seal nothing.
type Held = HeldSubject<Option<Vec<u8>>>;

async fn look(nats: &Nats) -> Result<BTreeMap<String, Held>, Unavailable> {
    let filter = subjects::registry_of_aggregate(Aggregate::DataKey);
    held(nats, &filter, |entry| match entry {
        Some(
            RegistryEntry::DataKeyCreated { sealed } | RegistryEntry::DataKeyResealed { sealed },
        ) => Some(sealed),
        Some(_) | None => None,
    })
    .await
}

fn last_sealed(held: &Held) -> Option<&Vec<u8>> {
    held.messages.last()?.1.as_ref()
}

/// Whether it was done: nothing is to be done for a project that is deleted, whose key is erased
/// by somebody else.
async fn reseal_one(
    view: &RegistryView,
    keys: &MasterKeys,
    clock: &dyn Clock,
    held: &Held,
) -> Result<bool, ResealError> {
    let project = held.project;
    let Some(sealed) = last_sealed(held) else {
        return Ok(false);
    };
    let context = seal_context(SEALED_DATA_KEY, project, &project.to_string());
    let key = keys
        .unseal(sealed, &context)
        .map_err(|error| ResealError::Unseal { project, error })?;
    let command = Command::ResealDataKey {
        project,
        sealed: keys.seal(&key, &context, &random::bytes()),
    };
    match view.execute(command, BY, clock.now()).await {
        Ok(_) => Ok(true),
        Err(ExecuteError::Refused(CommandError::NotFound)) => Ok(false),
        Err(error @ (ExecuteError::Refused(_) | ExecuteError::Unavailable(_))) => {
            Err(ResealError::Execute { project, error })
        }
    }
}

/// All but the last, which the server checks appends by.
async fn overwrite_former(nats: &Nats, held: &Held) -> Result<usize, Unavailable> {
    let Some((_, former)) = held.messages.split_last() else {
        return Ok(0);
    };
    for (sequence, _) in former {
        overwrite(&nats.registry, *sequence).await?;
    }
    Ok(former.len())
}
