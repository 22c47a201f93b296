//! Has schemathesis call a running management API by the document that it serves of itself, and
//! check every answer against that document. Three runs: as a project that has nothing, on things
//! that are there, and as the operator. All that was started ends with this process.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "showing is what a run is for"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use serde_json::json;
use support::api::text;
use support::cluster::Cluster;
use support::receiver::Receiver;
use support::tools;

/// What an answer is checked for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// Calls made up for each operation, beside those that follow from the schema's bounds.
const EXAMPLES_MAX: &str = "30";
/// Of one call: longer than any bound that the services set themselves.
const ANSWER_SECONDS_MAX: &str = "30";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let passed = runtime
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(fuzz()));
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("api-fuzz: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every answer was as documented.
async fn fuzz() -> Result<bool> {
    let python = tools::schemathesis()?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let receiver = Receiver::start()?;
    let cluster = Cluster::start().await?;
    let run = |name: &str, token: &str, config: &str, filters: &[&str]| {
        println!("\n== {name}");
        let file = folder.path().join("schemathesis.toml");
        std::fs::write(&file, config).context("writing the configuration")?;
        let document = format!("{}/openapi.json", cluster.dispatcher.http_url());
        schemathesis(&python, &file, &document, token, filters)
    };
    let not_the_operators = ["--exclude-path-regex", "^/v1/projects"];
    let empty = cluster.tenant("empty").await?;
    let mut passed = run(
        "a project that has nothing",
        &empty.key,
        "",
        &not_the_operators,
    )?;
    let tenant = cluster.tenant("stocked").await?;
    let config = things(&tenant.client, &receiver).await?;
    // The things must stay there.
    let filters = [&not_the_operators[..], &["--exclude-method", "DELETE"]].concat();
    passed &= run("things that are there", &tenant.key, &config, &filters)?;
    let filters = ["--include-path-regex", "^/v1/projects"];
    passed &= run("the operator", cluster.admin_token(), "", &filters)?;
    cluster.stop().await?;
    Ok(passed)
}

/// One run; its own exit status says whether a check failed.
fn schemathesis(
    python: &Path,
    config: &Path,
    document: &str,
    token: &str,
    filters: &[&str],
) -> Result<bool> {
    let status = Command::new(python)
        // What it leaves behind goes with the folder.
        .current_dir(config.parent().unwrap_or(config))
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .args(["run", document, "--no-color", "--checks", CHECKS])
        .args(["--max-examples", EXAMPLES_MAX, "--continue-on-failure"])
        .args(["--request-timeout", ANSWER_SECONDS_MAX])
        .arg("--generation-deterministic")
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(filters)
        .status()
        .context("running schemathesis")?;
    Ok(status.success())
}

/// Makes an account and a webhook of each dialect, with what hangs on them, and names them in a
/// configuration: ids that are made up name nothing.
async fn things(client: &support::api::Client, receiver: &Receiver) -> Result<String> {
    let account = json!({"provider": "bamboohr", "origin_owner_id": "customer-17"});
    let account = client.create_account(&account).await?.id(201)?;
    let webhook = json!({"url": receiver.url("/fuzz"), "events": ["*"]});
    let webhook = client.create_webhook(&webhook).await?.expect(201)?;
    let (webhook, secret) = (
        text(&webhook, "/id")?,
        text(&webhook, "/signing_secrets/0/id")?,
    );
    let hr_on = json!({
        "endpoint": receiver.url("/fuzz-hr-on"), "eventNames": ["EmployeeCreated"], "token": "t",
    });
    let path = "/hr-on/v1/webhooks";
    let hr_on = client
        .call(reqwest::Method::POST, path, Some(&hr_on))
        .await?;
    let hr_on = text(&hr_on.expect(200)?, "/item/id")?;
    let event = json!({"event": "hris_employees.created", "record_id": "42", "data": {}});
    let event = client.post_events(&event).await?.expect(202)?;
    let event = text(&event, "/items/0/id")?;
    let mut config = String::new();
    for (paths, parameters) in [
        (
            "^/v1/webhooks/",
            vec![
                ("path.id", &webhook),
                ("path.secret", &secret),
                ("header.x-account-id", &account),
            ],
        ),
        ("^/hr-on/v1/webhooks/", vec![("path.id", &hr_on)]),
        ("^/v1/accounts/", vec![("path.id", &account)]),
        ("^/v1/events/", vec![("path.id", &event)]),
    ] {
        writeln!(
            config,
            "[[operations]]\ninclude-path-regex = {paths:?}\n[operations.parameters]"
        )?;
        for (name, value) in parameters {
            writeln!(config, "{name:?} = {value:?}")?;
        }
    }
    Ok(config)
}
