//! What it all came to: for a reader, for programs and as a picture.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use support::tools;

use crate::arguments::Arguments;
use crate::figures::{Round, Summary, shown, summaries};
use crate::svg;

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory_gb: f64,
    kernel: String,
    nats_server: String,
    /// Processes that wanted the cores in the minute before: more than a few tenths means that the
    /// machine was not ours alone.
    load_before: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: usize,
    scale: f64,
    figures: Vec<Summary>,
    /// What was lost, refused, repeated or out of order meanwhile.
    pub(crate) faults: Vec<String>,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).context(path.to_owned());
        let value_of = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = value_of(&read("/proc/meminfo")?, "MemTotal");
        let kilobytes: f64 = memory.trim_end_matches(" kB").parse()?;
        let load = read("/proc/loadavg")?;
        let version = tools::output_of(Command::new(tools::nats_server()?).arg("--version"))?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: value_of(&read("/proc/cpuinfo")?, "model name"),
            memory_gb: kilobytes / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            nats_server: version.trim().to_owned(),
            load_before: load.split(' ').next().unwrap_or_default().parse()?,
        })
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, arguments: &Arguments, rounds: &[Round]) -> Self {
        let faults = rounds.iter().flat_map(|round| &round.faults);
        Self {
            machine,
            rounds: rounds.len(),
            scale: arguments.scale,
            figures: summaries(rounds),
            faults: faults.cloned().collect(),
        }
    }

    /// A table for each case.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _infallible = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let Machine {
            cores,
            processor,
            memory_gb,
            kernel,
            nats_server,
            load_before,
        } = &self.machine;
        writeln!(
            text,
            "{cores} cores of {processor}, {memory_gb:.0} GB, Linux {kernel}, {nats_server}; load \
             before {load_before}; medians of {} rounds at scale {}, ranges in brackets.",
            self.rounds, self.scale
        )?;
        let mut case = "";
        for figure in &self.figures {
            if figure.case != case {
                case = figure.case;
                writeln!(text, "\n| {case} | | |\n| --- | ---: | --- |")?;
            }
            let (median, min, max) = (shown(figure.median), shown(figure.min), shown(figure.max));
            writeln!(
                text,
                "| {} | {median} | {} ({min} to {max}) |",
                figure.name, figure.unit
            )?;
        }
        for fault in &self.faults {
            writeln!(text, "\nFAULT {fault}")?;
        }
        Ok(())
    }

    /// Writes everything below the target folder, and says where.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(2).context("the target folder")?;
        let folder = target.join("bench-reports");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(folder.join("bench.md"), self.markdown())?;
        std::fs::write(folder.join("bench.svg"), svg::picture(&self.figures))?;
        Ok(folder)
    }
}
