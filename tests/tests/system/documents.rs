//! What the documents for subscribers and operators say can be done, is done here: each call that
//! they show is made against a stack, as it stands there, and answered as they say. What they name
//! is there.
//!
//! A block of the language `sh` is a call. Its last line is a comment that says the status and what
//! the answer's JSON holds, as pointers, or what is printed. Each block has a project of its own,
//! with something in it to ask about.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};
use support::api::{Client, text};
use support::cluster::Tenant;
use support::eventually::eventually;
use support::receiver::Answer;
use support::tools;

use crate::stage::{HOOK, SOON, Stage, event, post_all};

/// What every metric's name begins with.
const METRIC: &str = "carillon_";
/// What the endpoint never takes.
const REFUSED: &str = "refused";
/// Prints the status below the answer.
const PRELUDE: &str = r#"set -eu
curl() { command curl --silent --show-error --max-time 30 --write-out '\n%{http_code}' "$@"; }
"#;

/// A fenced block.
struct Block {
    language: String,
    text: String,
}

fn document(name: &str) -> String {
    std::fs::read_to_string(tools::workspace().join("deploy/docs").join(name)).unwrap()
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block {
            language: language.to_owned(),
            text: text.join("\n"),
        });
    }
    blocks
}

fn of_language(document: &str, language: &str) -> Vec<String> {
    let blocks = blocks(document).into_iter();
    let of = blocks.filter(|block| block.language == language);
    let texts: Vec<_> = of.map(|block| block.text).collect();
    assert!(!texts.is_empty(), "there is no {language}");
    texts
}

async fn call(client: &Client, method: Method, path: &str, body: Option<Value>) -> Value {
    let reply = client.call(method, path, body.as_ref()).await.unwrap();
    reply.success().unwrap()
}

/// A stack whose endpoint echoes what verifies it and takes events but for one record's.
async fn stack() -> Stage {
    let stage = Stage::without_webhook().await;
    stage.receiver.answer(|arrival| {
        if arrival.event.is_empty() {
            Answer::status(200).with_body(&arrival.body)
        } else if arrival.record_id == REFUSED {
            Answer::status(500).with_body("no room")
        } else {
            Answer::status(200)
        }
    });
    stage
}

/// What a block may name, by the names of variables.
async fn project(stage: &Stage) -> BTreeMap<&'static str, String> {
    let tenant = stage.cluster.tenant("Documents").await.unwrap();
    let client = &tenant.client;
    let account = json!({"provider": "greenhouse", "origin_owner_id": "customer-1"});
    let account = call(client, Method::POST, "/v1/accounts", Some(account)).await;
    let policy = json!({"retry_schedule_ms": [50]});
    let webhook = stage.webhook(&tenant, HOOK, json!(["*"]), policy).await;
    let path = format!("/v1/webhooks/{webhook}");
    let secrets = format!("{path}/signing_secrets");
    let secret = call(client, Method::POST, &secrets, None).await;
    let exhausted = with_an_event_given_up(&tenant, &webhook).await;
    let replay = json!({"event_ids": [exhausted]});
    let replays = format!("{path}/replays");
    let replay = call(client, Method::POST, &replays, Some(replay)).await;
    BTreeMap::from([
        ("API", stage.cluster.dispatcher.http_url()),
        ("INGEST", stage.cluster.ingest.http_url()),
        ("DISPATCHER_OPS", stage.cluster.dispatcher.ops_url()),
        ("INGEST_OPS", stage.cluster.ingest.ops_url()),
        ("ADMIN_TOKEN", stage.cluster.admin_token().to_owned()),
        ("URL", stage.receiver.url("/watching")),
        ("ACCOUNT", text(&account, "/id").unwrap()),
        ("SECRET", text(&secret, "/id").unwrap()),
        ("REPLAY", text(&replay, "/id").unwrap()),
        ("HR_ON_WEBHOOK", hr_on_webhook(stage, &tenant).await),
        ("EVENT", exhausted),
        ("WEBHOOK", webhook),
        ("PROJECT", tenant.project),
        ("KEY_ID", tenant.key_id),
        ("KEY", tenant.key),
    ])
}

/// One event that was taken, and one that was not.
async fn with_an_event_given_up(tenant: &Tenant, webhook: &str) -> String {
    let events = [event("taken", 1), event(REFUSED, 2)];
    let ids = post_all(&tenant.client, &events).await;
    for (id, status) in ids.iter().zip(["delivered", "exhausted"]) {
        eventually(status, SOON, async || {
            let path = format!("/v1/events/{id}");
            let told = call(&tenant.client, Method::GET, &path, None).await;
            let delivery = &told["deliveries"][0];
            (delivery["webhook_id"] == webhook && delivery["status"] == status)
                .then_some(())
                .ok_or_else(|| told.to_string())
        })
        .await
        .unwrap();
    }
    ids.into_iter().next_back().unwrap()
}

async fn hr_on_webhook(stage: &Stage, tenant: &Tenant) -> String {
    let webhook = json!({"endpoint": stage.receiver.url("/hr-on"),
        "eventNames": ["EmployeeUpdated"], "token": "a-token"});
    let path = "/hr-on/v1/webhooks";
    let created = call(&tenant.client, Method::POST, path, Some(webhook)).await;
    let id = text(&created, "/item/id").unwrap();
    let verify = format!("{path}/{id}/verify");
    let verified = call(&tenant.client, Method::POST, &verify, None).await;
    assert_eq!(verified["success"], true, "{verified}");
    id
}

/// The variables that a block names and does not set.
fn named(block: &str) -> BTreeSet<&str> {
    let names = block.split('$').skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    });
    names
        .filter(|name| !name.is_empty() && !block.contains(&format!("{name}=")))
        .collect()
}

fn run(script: &str, variables: &BTreeMap<&str, String>) -> Output {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).env_clear().envs(variables);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.output().unwrap()
}

/// Runs a block, and compares what came of it with what its last line says. An error tells what is
/// otherwise.
fn check(block: &str, variables: &BTreeMap<&str, String>) -> Result<(), String> {
    let mut names = named(block).into_iter();
    if let Some(name) = names.find(|name| !variables.contains_key(name)) {
        return Err(format!("nothing is called ${name}"));
    }
    let expected = block.lines().next_back().unwrap_or_default();
    let expected = expected
        .strip_prefix("# ")
        .ok_or("it does not say what comes of it")?;
    if let Some(text) = expected.strip_prefix("prints ") {
        let output = run(block, variables);
        let printed = String::from_utf8_lossy(&output.stdout);
        let is_right = output.status.success() && printed.trim() == text;
        return is_right.then_some(()).ok_or(format!("{output:?}"));
    }
    let output = run(&format!("{PRELUDE}{block}"), variables);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (answer, status) = printed.rsplit_once('\n').unwrap_or_default();
    let mut words = expected.split(' ');
    if words.next() != Some(status) {
        return Err(format!("{output:?}"));
    }
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    words.try_for_each(|word| holds(&answer, word))
}

/// Whether the answer has what a word says: a place in it, or a place and what is there.
fn holds(answer: &Value, word: &str) -> Result<(), String> {
    let (place, value) = match word.split_once('=') {
        Some((place, value)) => (place, Some(value)),
        None => (word, None),
    };
    let found = answer.pointer(&format!("/{place}"));
    let found = found.ok_or_else(|| format!("{place} is not in {answer}"))?;
    let shown = found
        .as_str()
        .map_or_else(|| found.to_string(), str::to_owned);
    match value {
        Some(value) if value != shown => Err(format!("{place} is {shown}")),
        Some(_) | None => Ok(()),
    }
}

async fn check_calls(name: &str) -> Stage {
    let stage = stack().await;
    let mut wrong = Vec::new();
    let text = document(name);
    let calls = blocks(&text).into_iter();
    let unseen = calls.filter(|block| block.language != "sh" && block.text.contains("curl "));
    assert_eq!(unseen.count(), 0, "calls of another language are not tried");
    for block in of_language(&text, "sh") {
        if let Err(error) = check(&block, &project(&stage).await) {
            wrong.push(format!("{block}\n{error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    stage
}

/// The names that begin with `prefix`, without it, and what stands behind each.
fn names<'a>(text: &'a str, prefix: &str) -> Vec<(&'a str, &'a str)> {
    let parts = text.split(prefix).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        rest.split_at(end.unwrap_or(rest.len()))
    });
    parts.collect()
}

/// Of the label matchers that follow a name, each as it is exposed.
fn labels(behind: &str) -> Vec<&str> {
    let inside = behind
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'));
    inside.map_or_else(Vec::new, |(labels, _)| labels.split(',').collect())
}

/// The family that a sample belongs to.
fn family(name: &str) -> &str {
    let suffixes = ["_bucket", "_count", "_sum"];
    let base = suffixes.iter().find_map(|suffix| {
        name.strip_suffix(suffix)
            .filter(|base| base.ends_with("_seconds"))
    });
    base.unwrap_or(name)
}

async fn check_metrics(stage: &Stage) {
    let services = [&stage.cluster.ingest, &stage.cluster.dispatcher];
    let mut exposed = String::new();
    for service in services {
        exposed.push_str(&service.metrics().await.unwrap());
    }
    let text = document("operators.md");
    for expression in of_language(&text, "promql") {
        for (name, behind) in names(&expression, METRIC) {
            let mut samples = exposed.lines().filter(|line| {
                line.strip_prefix(METRIC)
                    .and_then(|rest| rest.strip_prefix(name))
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            });
            let wanted = labels(behind);
            assert!(
                samples.any(|line| wanted.iter().all(|label| line.contains(label))),
                "{name} with {wanted:?} is not exposed"
            );
        }
    }
    let told = names(&text, METRIC).into_iter();
    let told: BTreeSet<_> = told.map(|(name, _)| family(name)).collect();
    let types = exposed
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let declared: BTreeSet<_> = types
        .filter_map(|line| line.split(' ').next()?.strip_prefix(METRIC))
        .collect();
    let untold: Vec<_> = declared.difference(&told).collect();
    assert!(
        untold.is_empty(),
        "operators.md does not tell of {untold:?}"
    );
    // A histogram shows once it has counted something.
    let gone: Vec<_> = told
        .difference(&declared)
        .filter(|name| !name.ends_with("_seconds"))
        .collect();
    assert!(gone.is_empty(), "there is no {gone:?}");
}

#[tokio::test]
async fn every_call_for_subscribers_is_answered_as_the_document_says() {
    check_calls("subscribers.md").await;
}

#[tokio::test]
async fn every_call_and_metric_for_operators_is_as_the_document_says() {
    let stage = check_calls("operators.md").await;
    check_metrics(&stage).await;
}

#[test]
fn every_setting_that_a_document_names_is_there() {
    let settings = tools::workspace().join("shared/default.toml");
    let settings = std::fs::read_to_string(settings).unwrap();
    let text = document("operators.md");
    let named = names(&text, "CARILLON_");
    assert!(named.len() > 10, "{named:?}");
    for (name, _) in named {
        let key = name.to_lowercase();
        let mut lines = settings.lines();
        assert!(
            lines.any(|line| line.starts_with(&format!("{key} ="))),
            "there is no setting {key}"
        );
    }
}

/// Texts in quotes within the function `readiness` of a source file.
fn reasons(file: &str) -> Vec<String> {
    let source = std::fs::read_to_string(tools::workspace().join(file)).unwrap();
    let (_, rest) = source.split_once("fn readiness(").unwrap();
    // The function ends before the next item's documentation or heading.
    let (body, _) = rest.split_once("\n\n").unwrap();
    let quoted = body.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_reason_not_to_be_ready_is_told() {
    let text = document("operators.md");
    let files = ["dispatcher/src/lib.rs", "ingest/src/app.rs"];
    let reasons: Vec<_> = files.into_iter().flat_map(reasons).collect();
    assert!(reasons.len() > files.len(), "{reasons:?}");
    for reason in reasons {
        assert!(text.contains(&format!("`{reason}`")), "{reason}");
    }
}

#[tokio::test]
async fn a_document_that_is_wrong_is_noticed() {
    let stage = Stage::without_webhook().await;
    let variables = BTreeMap::from([
        ("API", stage.cluster.dispatcher.http_url()),
        ("KEY", stage.tenant.key.clone()),
    ]);
    let list = r#"curl -u "$KEY:" "$API/v1/webhooks""#;
    check(&format!("{list}\n# 200 items next=null"), &variables).unwrap();
    for wrong in [
        format!("{list}\n# 201 items"),
        format!("{list}\n# 200 items webhooks"),
        format!("{list}\n# 200 next=more"),
        list.to_owned(),
        "curl \"$ELSEWHERE\"\n# 200".to_owned(),
        "printf %s one\n# prints two".to_owned(),
        "printf %s one; exit 1\n# prints one".to_owned(),
    ] {
        check(&wrong, &variables).unwrap_err();
    }
}
