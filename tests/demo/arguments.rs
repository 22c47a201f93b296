//! The command line.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: demo [--once] [--store DIR] [--keep-store] [--capture FILE] [--report FILE]

  --once           exit after the show: 0 if everything was delivered and verified
  --store DIR      keep JetStream's store and the logs in DIR, which must be empty or absent
  --keep-store     keep the temporary folder and print its path
  --capture FILE   write the deliveries as JSON, for other verifiers
  --report FILE    write what was created as JSON, secrets included";

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) once: bool,
    pub(crate) store: Option<PathBuf>,
    pub(crate) keep_store: bool,
    pub(crate) capture: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::Arg::{Long, Short};
        let mut parser = lexopt::Parser::from_env();
        let mut parsed = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("once") => parsed.once = true,
                Long("store") => parsed.store = Some(parser.value()?.into()),
                Long("keep-store") => parsed.keep_store = true,
                Long("capture") => parsed.capture = Some(parser.value()?.into()),
                Long("report") => parsed.report = Some(parser.value()?.into()),
                Long("help") | Short('h') => parsed.help = true,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(parsed)
    }
}
