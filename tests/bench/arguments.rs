//! The command line.

use crate::cases::Case;

pub(crate) const USAGE: &str = "\
usage: bench [--only CASE[,CASE…]] [--rounds N] [--scale FACTOR]

  --only CASES    ceilings, one, native, ten, projects, drain, noisy, tls1, tls2, always, three,
                  control, or the curves: curve-webhooks, curve-projects, curve-backlog,
                  curve-journal, curve-keys, curve-body; `items` is all of the former, `curves` of
                  the latter (items)
  --rounds N      each case once a round, one after the other (5)
  --scale FACTOR  of times and counts (1); figures of less than 0.5 are for trying it out

A report lies in bench-reports below the target folder: bench.json, bench.md and bench.svg. Exit
status: 0 if it was measured, 1 if events were lost, out of order or refused meanwhile, 2 if it could
not be run.";

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) cases: Vec<Case>,
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    pub(crate) help: bool,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::Arg::{Long, Short};
        use lexopt::ValueExt as _;
        let mut parser = lexopt::Parser::from_env();
        let mut parsed = Self {
            cases: Case::ITEMS.to_vec(),
            rounds: 5,
            scale: 1.0,
            help: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("only") => {
                    let names = parser.value()?.string()?;
                    parsed.cases = cases(&names)?;
                }
                Long("rounds") => parsed.rounds = parser.value()?.parse()?,
                Long("scale") => parsed.scale = parser.value()?.parse()?,
                Long("help") | Short('h') => parsed.help = true,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(parsed)
    }
}

fn cases(names: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for name in names.split(',') {
        match name {
            "items" => cases.extend(Case::ITEMS),
            "curves" => cases.extend(Case::CURVES),
            _ => cases.push(name.parse()?),
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_named_one_by_one_or_together() {
        assert_eq!(cases("one,ten").unwrap(), [Case::One, Case::Ten]);
        assert_eq!(cases("items").unwrap(), Case::ITEMS);
        assert!(cases("one,").is_err());
        for case in Case::ITEMS.into_iter().chain(Case::CURVES) {
            assert_eq!(cases(case.as_str()).unwrap(), [case]);
        }
    }
}
