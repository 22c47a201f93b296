//! What is measured.

use std::str::FromStr;

use anyhow::Result;
use support::nats::SyncInterval;

use crate::figures::Round;
use crate::load::Until;
use crate::load::request::Shape;
use crate::receiver::Speaks;
use crate::stage::{Load, Publishing, Setup, Stage};

mod ceilings;
mod control;
mod curves;
mod drain;
mod noisy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Ceilings,
    One,
    Native,
    Ten,
    Projects,
    Drain,
    Noisy,
    Tls1,
    Tls2,
    Always,
    Three,
    Control,
    CurveWebhooks,
    CurveProjects,
    CurveBacklog,
    CurveJournal,
    CurveKeys,
    CurveBody,
}

/// Of each maximum, in seconds.
const MOST_SECONDS: f64 = 6.0;
/// Of each given rate.
const STEADY_SECONDS: f64 = 5.0;

impl Case {
    pub(crate) const ITEMS: [Self; 12] = [
        Self::Ceilings,
        Self::One,
        Self::Native,
        Self::Ten,
        Self::Projects,
        Self::Drain,
        Self::Noisy,
        Self::Tls1,
        Self::Tls2,
        Self::Always,
        Self::Three,
        Self::Control,
    ];
    pub(crate) const CURVES: [Self; 6] = [
        Self::CurveWebhooks,
        Self::CurveProjects,
        Self::CurveBacklog,
        Self::CurveJournal,
        Self::CurveKeys,
        Self::CurveBody,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ceilings => "ceilings",
            Self::One => "one",
            Self::Native => "native",
            Self::Ten => "ten",
            Self::Projects => "projects",
            Self::Drain => "drain",
            Self::Noisy => "noisy",
            Self::Tls1 => "tls1",
            Self::Tls2 => "tls2",
            Self::Always => "always",
            Self::Three => "three",
            Self::Control => "control",
            Self::CurveWebhooks => "curve-webhooks",
            Self::CurveProjects => "curve-projects",
            Self::CurveBacklog => "curve-backlog",
            Self::CurveJournal => "curve-journal",
            Self::CurveKeys => "curve-keys",
            Self::CurveBody => "curve-body",
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ITEMS.into_iter().chain(Self::CURVES);
        all.find(|case| case.as_str() == text)
            .ok_or_else(|| format!("no case is called {text:?}"))
    }
}

pub(crate) async fn run(case: Case, scale: f64, round: &mut Round) -> Result<()> {
    let usual = Setup::default();
    let through = |setup, shares: &'static [(f64, &'static str)]| Through {
        case: case.as_str(),
        setup,
        shares,
        scale,
    };
    match case {
        Case::Ceilings => ceilings::run(scale, round).await,
        Case::One => {
            through(usual, &[(0.1, "10 %"), HALF, (0.9, "90 %")])
                .run(round)
                .await
        }
        Case::Native => {
            let shape = Shape::Greenhouse;
            through(Setup { shape, ..usual }, &[HALF]).run(round).await
        }
        Case::Ten => {
            through(
                Setup {
                    webhooks: 10,
                    ..usual
                },
                &[HALF],
            )
            .run(round)
            .await
        }
        Case::Projects => {
            through(
                Setup {
                    projects: 100,
                    ..usual
                },
                &[HALF],
            )
            .run(round)
            .await
        }
        Case::Drain => drain::run(scale, round).await,
        Case::Noisy => noisy::run(scale, round).await,
        Case::Tls1 => {
            let speaks = Speaks::Tls1;
            through(Setup { speaks, ..usual }, &[]).run(round).await
        }
        Case::Tls2 => {
            let speaks = Speaks::Tls2;
            through(Setup { speaks, ..usual }, &[]).run(round).await
        }
        Case::Always => {
            let (sync, publishing) = (SyncInterval::Always, Publishing::Batches);
            through(
                Setup {
                    sync,
                    publishing,
                    ..usual
                },
                &[HALF],
            )
            .run(round)
            .await
        }
        Case::Three => {
            let (servers, sync) = (3, SyncInterval::Always);
            let setup = Setup {
                servers,
                sync,
                ..usual
            };
            through(setup, &[HALF]).run(round).await
        }
        Case::Control => control::run(scale, round).await,
        Case::CurveWebhooks
        | Case::CurveProjects
        | Case::CurveBacklog
        | Case::CurveJournal
        | Case::CurveKeys
        | Case::CurveBody => curves::run(case, scale, round).await,
    }
}

const HALF: (f64, &str) = (0.5, "half");

/// How much goes through, and how long it takes at less.
struct Through {
    case: &'static str,
    setup: Setup,
    /// Of the maximum, and what they are called.
    shares: &'static [(f64, &'static str)],
    scale: f64,
}

impl Through {
    async fn run(&self, round: &mut Round) -> Result<()> {
        let stage = Stage::start(self.setup).await?;
        let most = stage
            .pass(Load::most(Until::Seconds(MOST_SECONDS * self.scale)))
            .await?;
        most.throughput(self.case, "max", round);
        let seconds = STEADY_SECONDS * self.scale;
        if !self.shares.is_empty() {
            let few = stage.pass(Load::steady(100.0, seconds)).await?;
            few.latencies(self.case, "100/s", round);
        }
        for (share, name) in self.shares {
            let rate = most.accepted_per_second * share;
            let passed = stage.pass(Load::steady(rate, seconds)).await?;
            passed.latencies(self.case, name, round);
        }
        stage.memory(self.case, round)
    }
}

/// Ratios within the round.
pub(crate) fn compare(round: &mut Round) {
    const DELIVERED: &str = "max: delivered";
    const CPU: &str = "max: CPU of all three";
    for case in ["one", "ten", "projects", "native"] {
        let bare = ("ceilings", "bare loop: requests");
        round.ratio(
            case,
            "max: of the bare loop's rate",
            (case, DELIVERED),
            bare,
        );
        let direct = ("ceilings", "direct: requests");
        round.ratio(case, "max: of the direct rate", (case, DELIVERED), direct);
    }
    let of_bare = "of the bare loop's rate";
    round.ratio(
        "drain",
        of_bare,
        ("drain", "delivered"),
        ("ceilings", "bare loop: requests"),
    );
    let cpu_of_bare = "CPU of dispatcher, of the bare loop's";
    round.ratio(
        "drain",
        cpu_of_bare,
        ("drain", "CPU of dispatcher"),
        ("ceilings", "bare loop: CPU of it"),
    );
    let ingest = "max: CPU of ingest";
    round.ratio(
        "native",
        "CPU of ingest, of first-party",
        ("native", ingest),
        ("one", ingest),
    );
    for case in ["projects", "tls1", "tls2"] {
        round.ratio(
            case,
            "CPU of all three, of one's",
            (case, CPU),
            ("one", CPU),
        );
    }
    for case in ["tls1", "tls2", "always", "three"] {
        round.ratio(
            case,
            "rate, of one's",
            (case, DELIVERED),
            ("one", DELIVERED),
        );
    }
    round.ratio(
        "noisy",
        "p99, of alone",
        ("noisy", "beside: p99"),
        ("noisy", "alone: p99"),
    );
}
