//! How long partitions were without deliveries when their owner was lost.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::ids::{PartitionId, ReplicaId, WebhookId};
use shared::time::Timestamp;

use super::records::{Fault, FaultKind, JournalContent, Records};

/// A partition that lost its owner by a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Takeover {
    pub partition: PartitionId,
    pub fault_at: Timestamp,
    /// When the next owner announced itself.
    pub taken_at: Timestamp,
    /// When the first delivery came after that.
    pub back_at: Timestamp,
}

impl Takeover {
    pub fn millis(&self) -> i64 {
        self.back_at.millis_since(self.fault_at)
    }
}

/// Takeovers of all partitions that have webhooks, as far as anything was delivered after them.
/// They measure the services only while there is always something to deliver.
pub fn takeovers(records: &Records) -> Vec<Takeover> {
    let arrivals = arrivals(records);
    let mut owners: BTreeMap<PartitionId, (Timestamp, ReplicaId)> = BTreeMap::new();
    let mut takeovers = Vec::new();
    for line in &records.journal {
        let JournalContent::Epoch(entry) = &line.content else {
            continue;
        };
        let before = owners.insert(line.partition, (line.stored_at, entry.owner));
        let Some((since, owner)) = before else {
            continue;
        };
        let of = records.faults.iter().filter(|fault| {
            ends_ownership(fault, owner) && since <= fault.at && fault.at <= line.stored_at
        });
        let Some(fault_at) = of.map(|fault| fault.at).max() else {
            continue;
        };
        let all = arrivals.get(&line.partition);
        let back = all.and_then(|all| all.range(line.stored_at..).next());
        if let Some(back_at) = back {
            takeovers.push(Takeover {
                partition: line.partition,
                fault_at,
                taken_at: line.stored_at,
                back_at: *back_at,
            });
        }
    }
    takeovers
}

fn ends_ownership(fault: &Fault, owner: ReplicaId) -> bool {
    match fault.kind {
        FaultKind::DispatcherKilled | FaultKind::DispatcherPaused | FaultKind::DispatcherCutOff => {
            fault.replica.is_none_or(|replica| replica == owner)
        }
        // A clean stop is not a loss.
        FaultKind::DispatcherStopped | FaultKind::DispatcherAdded | FaultKind::Other => false,
    }
}

/// Times of arrivals by partition.
fn arrivals(records: &Records) -> BTreeMap<PartitionId, BTreeSet<Timestamp>> {
    let partitions: BTreeMap<_, _> = records
        .events
        .iter()
        .map(|line| (line.event.project, line.partition))
        .collect();
    let webhooks: BTreeMap<WebhookId, PartitionId> = records
        .registry
        .iter()
        .filter_map(|line| Some((line.webhook, *partitions.get(&line.project)?)))
        .collect();
    let mut arrivals: BTreeMap<PartitionId, BTreeSet<Timestamp>> = BTreeMap::new();
    for request in &records.receiver.requests {
        let path = records.receiver.paths.get(request.path);
        let webhook = path.and_then(|path| records.endpoints.get(path));
        if let Some(partition) = webhook.and_then(|webhook| webhooks.get(webhook)) {
            let at = records.receiver.wall(request.at_us);
            arrivals.entry(*partition).or_default().insert(at);
        }
    }
    arrivals
}
