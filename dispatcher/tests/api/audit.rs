//! Who changed what, and when.

use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::{ADMIN, Api};

fn shown(entries: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let shown = |entry: &Value| {
        (
            text(&entry["by"]),
            text(&entry["action"]),
            text(&entry["target"]["id"]),
        )
    };
    entries.iter().map(shown).collect()
}

#[actix_web::test]
async fn every_change_of_the_project_is_told_newest_first_with_who_made_it() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("ours").await;
    let by = |action: &str, id: &str| (project.key_id.clone(), action.to_owned(), id.to_owned());
    let mut expected = vec![
        (
            ADMIN_NAME.to_owned(),
            "project.created".to_owned(),
            project.id.clone(),
        ),
        (
            ADMIN_NAME.to_owned(),
            "api_key.created".to_owned(),
            project.key_id.clone(),
        ),
    ];
    for number in 0..30 {
        // Others' entries lie between.
        if number % 7 == 0 {
            api.project("theirs").await;
        }
        let body = json!({"provider": "greenhouse", "origin_owner_id": "1"});
        let made = api
            .post(&project.key, "/v1/accounts", body)
            .await
            .expect(201);
        let id = made.text("/id");
        expected.push(by("account.created", &id));
        let path = format!("/v1/accounts/{id}");
        let changed = json!({"origin_owner_name": "Acme"});
        api.patch(&project.key, &path, changed).await.expect(200);
        expected.push(by("account.updated", &id));
        api.delete(&project.key, &path).await.expect(204);
        expected.push(by("account.deleted", &id));
    }
    expected.reverse();
    for limit in [7, 46, 100] {
        let entries = api.all_pages(&project.key, "/v1/audit", limit).await;
        assert_eq!(shown(&entries), expected, "in pages of {limit}");
    }
    let page = api
        .get(&project.key, "/v1/audit?limit=100")
        .await
        .expect(200);
    let entries = page.body["items"].as_array().unwrap();
    assert_eq!(entries.last().unwrap()["name"], "ours");
    assert!(!page.raw.contains(&project.key));
    api.get(ADMIN, "/v1/audit").await.expect(401);
}

/// What the operator is called in entries.
const ADMIN_NAME: &str = "admin";
