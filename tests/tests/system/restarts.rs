//! Several projects in several partitions, through restart after restart.

use std::collections::BTreeMap;

use serde_json::json;
use support::cluster::Tenant;

use crate::stage::{IN_A_WHILE, Stage, event, post_all};

const TENANTS: usize = 6;
const ROUNDS: usize = 4;

/// Each round, every project gets events in a batch of its own, alone and side by side, so that
/// batches of the tail end in any partition; then the dispatcher stops, cleanly or not.
#[tokio::test]
async fn partitions_of_many_projects_start_again_and_again() {
    let mut stage = Stage::without_webhook().await;
    let mut tenants: Vec<Tenant> = Vec::new();
    for number in 0..TENANTS {
        let tenant = stage
            .cluster
            .tenant(&format!("Tenant {number}"))
            .await
            .unwrap();
        // The last one has events and nobody who wants them.
        if number + 1 < TENANTS {
            let path = format!("/{number}");
            stage.webhook(&tenant, &path, json!(["*"]), json!({})).await;
        }
        tenants.push(tenant);
    }
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        for (number, tenant) in tenants.iter().enumerate() {
            let count = 1 + (number + round) % 3;
            let events: Vec<_> = (0..count)
                .map(|index| event(&format!("record-{index}"), round))
                .collect();
            post_all(&tenant.client, &events).await;
            if number + 1 < TENANTS {
                *expected.entry(format!("/{number}")).or_default() += count;
            }
        }
        // A webhook that comes and goes leaves its partition with nothing to look back for.
        let passing = stage
            .webhook(
                &tenants[TENANTS - 1],
                "/passing",
                json!(["ats_jobs.*"]),
                json!({}),
            )
            .await;
        let deleted = tenants[TENANTS - 1].client.delete_webhook(&passing).await;
        deleted.unwrap().expect(204).unwrap();

        stage
            .receiver
            .wait_for("everything", IN_A_WHILE, |all| {
                all.len() >= expected.values().sum::<usize>()
            })
            .await
            .unwrap();
        if round % 2 == 0 {
            let status = stage.cluster.dispatcher.terminate().await.unwrap();
            assert!(status.success(), "the dispatcher ended with {status}");
        } else {
            stage.cluster.dispatcher.kill();
        }
        stage.cluster.dispatcher.restart().await.unwrap();
    }
    let mut arrived: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for delivery in stage.receiver.deliveries() {
        let ids = arrived.entry(delivery.path.clone()).or_default();
        *ids.entry(delivery.id().to_owned()).or_default() += 1;
    }
    let distinct: BTreeMap<String, usize> = arrived
        .into_iter()
        .map(|(path, ids)| (path, ids.len()))
        .collect();
    assert_eq!(distinct, expected);
    stage.receiver.all_verified().unwrap();
    stage.cluster.stop().await.unwrap();
}
