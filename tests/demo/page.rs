//! How it looks: aligned text, in colour on a terminal that wants it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use support::cluster::Cluster;
use support::receiver::{Delivery, Verdict};
use support::stored::StoredEvent;

use crate::acts::Act;
use crate::fields::Fields;
use crate::scene::{Account, HOOK_PATH, PROJECT_NAME, Scene};
use crate::show::Row;

/// Long values go on in further lines.
const WIDTH: usize = 88;
/// Of a log, when something has failed.
const LOG_LINES: usize = 15;
const SIGNATURE_HEADERS: [&str; 4] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-stackone-signature",
];

#[derive(Clone, Copy)]
enum Ink {
    Title,
    Label,
    Good,
    Bad,
    Plain,
}

pub(crate) struct Page {
    colour: bool,
}

impl Page {
    pub(crate) fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stdout().is_terminal() && !refused,
        }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Title => "1",
            Ink::Label => "2",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Plain => return text.to_owned(),
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn line(&self, before: &str, text: &str) {
        put(&format!("{before}{text}"));
    }

    fn headline(&self, text: &str) {
        put(&format!("\n{}", self.ink(Ink::Title, text)));
    }

    /// `   label      value`, the value in as many lines as it takes.
    fn entry(&self, label: &str, value: &str, ink: Ink) {
        let mut label = self.ink(Ink::Label, &format!("{label:<11}"));
        for line in wrapped(value, WIDTH) {
            put(&format!("   {label} {}", self.ink(ink, &line)));
            label = " ".repeat(11);
        }
    }

    fn header(&self, name: &str, value: &str) {
        self.entry("", &format!("{name}: {value}"), Ink::Plain);
    }

    pub(crate) fn scene(&self, scene: &Scene) {
        let cluster = &scene.cluster;
        self.headline("On stage");
        let entry = |label, value: &str| self.entry(label, value, Ink::Plain);
        let store = cluster.nats.store_dir();
        entry(
            "NATS",
            &format!("{}   store {}", cluster.nats.url(), store.display()),
        );
        entry("ingest", &cluster.ingest.http_url());
        entry("dispatcher", &cluster.dispatcher.http_url());
        entry("receiver", &scene.receiver.url(HOOK_PATH));
        entry(
            "project",
            &format!("{}   {PROJECT_NAME}", scene.tenant.project),
        );
        entry(
            "webhook",
            &format!("{}   every event, to the receiver", scene.webhook),
        );
        for account in [&scene.bamboohr, &scene.greenhouse] {
            entry("account", &format!("{}   {}", account.id, account.provider));
        }
    }

    pub(crate) fn title(&self, number: usize, title: &str) {
        self.headline(&format!("{number}  {title}"));
    }

    pub(crate) fn came_in(&self, act: &Act, status: u16) {
        let path = act.url.splitn(4, '/').nth(3).unwrap_or_default();
        // In one line, so that it can be copied.
        let label = self.ink(Ink::Label, &format!("{:<11}", "came in"));
        put(&format!("   {label} POST /{path}"));
        for (name, value) in &act.callback.headers {
            self.header(name, value);
        }
        self.entry("", &String::from_utf8_lossy(&act.callback.body), Ink::Plain);
        self.entry("", &format!("answered {status}"), Ink::Good);
    }

    pub(crate) fn stored(&self, stored: &StoredEvent) {
        let StoredEvent {
            sequence,
            subject,
            event,
        } = stored;
        let entry = |label, value: &str| self.entry(label, value, Ink::Plain);
        entry("stored", &format!("EVENTS #{sequence}  {subject}"));
        entry("", &format!("{}  {}", event.id, event.event_type));
        let source = serde_json::to_value(event.source).unwrap_or_default();
        let source = source.as_str().unwrap_or_default();
        entry("", &format!("record {}  source {source}", event.record_id));
    }

    pub(crate) fn delivered(&self, delivery: &Delivery, after: Duration) {
        let status = delivery.answered.map_or(0, |answered| answered.status);
        let first = format!(
            "POST {}  {} ms after it came in",
            delivery.path,
            after.as_millis()
        );
        self.entry("delivered", &first, Ink::Plain);
        for name in SIGNATURE_HEADERS {
            if let Some(value) = delivery.headers.get(name) {
                self.header(name, value);
            }
        }
        self.body(&delivery.body);
        self.entry("", &format!("answered {status}"), Ink::Good);
        self.signatures(&delivery.verdict);
    }

    /// One line a field, as they were sent.
    fn body(&self, body: &[u8]) {
        let Ok(Fields(fields)) = serde_json::from_slice(body) else {
            return self.entry("", &String::from_utf8_lossy(body), Ink::Plain);
        };
        self.entry("", "{", Ink::Plain);
        let last = fields.len();
        for (number, (name, value)) in (1..).zip(fields) {
            let comma = if number == last { "" } else { "," };
            self.entry("", &format!("  \"{name}\": {value}{comma}"), Ink::Plain);
        }
        self.entry("", "}", Ink::Plain);
    }

    fn signatures(&self, verdict: &Verdict) {
        let Verdict::Checked {
            standard_webhooks,
            stackone,
        } = verdict
        else {
            return self.entry("verdict", "not verified: the secret is unknown", Ink::Bad);
        };
        let checks = [
            (
                "verdict",
                standard_webhooks,
                "Standard Webhooks, by the official verifier",
            ),
            ("", stackone, "x-stackone-signature, computed independently"),
        ];
        for (label, check, what) in checks {
            match check {
                Ok(()) => self.entry(label, &format!("valid    {what}"), Ink::Good),
                Err(error) => self.entry(label, &format!("INVALID  {what}: {error}"), Ink::Bad),
            }
        }
    }

    pub(crate) fn accounts_created(&self, told: &[(&Account, Delivery)]) {
        let names: Vec<_> = told
            .iter()
            .map(|(account, delivery)| format!("{} ({})", account.provider, word(delivery)))
            .collect();
        self.headline("Also delivered");
        self.entry(
            "",
            &format!("account.created for {}", names.join(" and ")),
            Ink::Plain,
        );
    }

    /// The whole show, one line an act.
    pub(crate) fn glance(&self, rows: &[Row]) {
        self.headline("At a glance");
        let columns = format!(
            "   {:<16} {:<9} {:<10} {:<24} {:<10} signatures",
            "came in", "answered", "stored", "event", "delivered"
        );
        put(&self.ink(Ink::Label, &columns));
        for row in rows {
            let (verdict, ink) = if row.verified {
                ("both valid", Ink::Good)
            } else {
                ("NOT VALID", Ink::Bad)
            };
            let stored = format!("EVENTS #{}", row.stored);
            let took = format!("{} ms", row.took.as_millis());
            put(&format!(
                "   {:<16} {:<9} {stored:<10} {:<24} {took:<10} {}",
                row.came_in,
                row.answered,
                row.event,
                self.ink(ink, verdict)
            ));
        }
    }

    pub(crate) fn verdict(&self, text: &str) {
        put(&format!("\n{}", self.ink(Ink::Good, text)));
    }

    /// Something that arrived after the show.
    pub(crate) fn arrived(&self, delivery: &Delivery) {
        let ink = if delivery.verdict.verified() {
            Ink::Plain
        } else {
            Ink::Bad
        };
        let text = format!(
            "{}  record {}  {}  {}",
            delivery.event(),
            delivery.record_id(),
            delivery.id(),
            word(delivery)
        );
        self.entry("delivered", &text, ink);
    }

    /// Commands that can be pasted as they are, so they are not wrapped.
    pub(crate) fn try_next(&self, scene: &Scene) {
        let (ingest, dispatcher) = (&scene.cluster.ingest, &scene.cluster.dispatcher);
        let key = format!("-H 'Authorization: Bearer {}'", scene.tenant.key);
        let event =
            r#"{"event":"crm_contacts.updated","record_id":"contact-77","data":{"city":"Rouen"}}"#;
        let commands = [
            (
                "Post an event; it appears below",
                format!(
                    "curl -sS {}/v1/events {key} -H 'Content-Type: application/json' -d '{event}'",
                    ingest.http_url()
                ),
            ),
            (
                "List webhooks",
                format!("curl -sS {}/v1/webhooks {key}", dispatcher.http_url()),
            ),
            (
                "List accounts",
                format!("curl -sS {}/v1/accounts {key}", dispatcher.http_url()),
            ),
            (
                "Metrics of ingest",
                format!("curl -sS {}/metrics", ingest.ops_url()),
            ),
            (
                "Metrics of the dispatcher",
                format!("curl -sS {}/metrics", dispatcher.ops_url()),
            ),
            (
                "Logs",
                format!(
                    "tail -f {} {}",
                    ingest.log().display(),
                    dispatcher.log().display()
                ),
            ),
        ];
        self.headline("Try next (Ctrl-C ends everything)");
        for (what, command) in commands {
            put(&format!(
                "   {}\n   {command}\n",
                self.ink(Ink::Label, what)
            ));
        }
    }

    /// For whoever has to find out why the show failed: the folder may be gone then.
    pub(crate) fn logs(&self, cluster: &Cluster) {
        for (name, tail) in [
            ("ingest", cluster.ingest.log_tail()),
            ("dispatcher", cluster.dispatcher.log_tail()),
        ] {
            let lines: Vec<_> = tail.lines().collect();
            let first = lines.len().saturating_sub(LOG_LINES);
            eprintln!(
                "\n{}",
                self.ink(Ink::Title, &format!("Last lines of {name}'s log"))
            );
            for line in lines.iter().skip(first) {
                eprintln!("   {line}");
            }
        }
    }
}

fn word(delivery: &Delivery) -> &'static str {
    if delivery.verdict.verified() {
        "verified"
    } else {
        "NOT VERIFIED"
    }
}

/// Whoever closes the pipe early has seen enough; what is shown goes on and ends as always.
fn put(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Lines of at most `width` characters, broken after a comma where there is one.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut rest = characters.as_slice();
    let mut lines = Vec::new();
    while let Some(line) = rest.get(..width).filter(|_| rest.len() > width) {
        let gap = line.iter().rposition(|character| *character == ',');
        // A gap near the start would leave next to nothing in the line.
        let end = gap
            .filter(|gap| *gap > width / 2)
            .map_or(width, |gap| gap + 1);
        let (line, more) = rest.split_at(end);
        lines.push(line.iter().collect());
        rest = more;
    }
    lines.push(rest.iter().collect());
    lines
}
