//! Endpoints that would make the dispatcher call into its own network are refused.

use serde_json::json;
use support::cluster::Cluster;

const PUBLIC: &str = "https://203.0.114.1/hook";

#[tokio::test]
async fn endpoints_that_are_not_public_are_refused() {
    let cluster = Cluster::builder()
        .endpoint_allow_cidrs("")
        .start()
        .await
        .unwrap();
    let client = cluster.tenant("System test").await.unwrap().client;
    let webhook = json!({ "url": PUBLIC, "events": ["*"] });
    let existing = client
        .create_webhook(&webhook)
        .await
        .unwrap()
        .id(201)
        .unwrap();
    for url in [
        "https://127.0.0.1/hook",
        "https://10.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/hook",
        // Other spellings of 127.0.0.1.
        "https://2130706433/hook",
        "https://0x7f.1/hook",
        // Public, but in the clear.
        "http://203.0.114.1/hook",
    ] {
        let created = client
            .create_webhook(&json!({ "url": url, "events": ["*"] }))
            .await
            .unwrap();
        let changed = client
            .patch_webhook(&existing, &json!({ "url": url }))
            .await
            .unwrap();
        for reply in [created, changed] {
            assert_eq!(reply.status, 422, "{url}: {reply}");
            let problem = reply.header("content-type").unwrap_or_default();
            assert!(
                problem.starts_with("application/problem+json"),
                "{url}: {problem}"
            );
            assert_eq!(reply.json["code"], "invalid", "{url}: {reply}");
            assert_eq!(reply.json["errors"][0]["pointer"], "/url", "{url}: {reply}");
            let detail = reply.json["errors"][0]["detail"]
                .as_str()
                .unwrap_or_default();
            assert!(
                detail.len() > 10,
                "{url}: a person must understand {detail:?}"
            );
        }
    }
    let listed = client.list_webhooks("").await.unwrap().expect(200).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["url"], PUBLIC, "{listed}");
}
