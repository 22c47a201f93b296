//! What was measured: figures by case and name, one of each in a round.

use serde::Serialize;

/// Of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    figures: Vec<Figure>,
    /// What should not have happened meanwhile.
    pub(crate) faults: Vec<String>,
}

#[derive(Clone, Debug)]
struct Figure {
    case: &'static str,
    name: String,
    unit: &'static str,
    value: f64,
}

/// Of all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) case: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of the rounds.
    pub(crate) values: Vec<f64>,
}

impl Round {
    pub(crate) fn add(
        &mut self,
        case: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) {
        self.figures.push(Figure {
            case,
            name: name.into(),
            unit,
            value,
        });
    }

    pub(crate) fn get(&self, case: &str, name: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        let found = figures.find(|figure| figure.case == case && figure.name == name);
        found.map(|figure| figure.value)
    }

    /// How often the second fits into the first; nothing if one of them was not measured.
    pub(crate) fn ratio(
        &mut self,
        case: &'static str,
        name: &str,
        of: (&str, &str),
        to: (&str, &str),
    ) {
        let (of, to) = (self.get(of.0, of.1), self.get(to.0, to.1));
        if let (Some(of), Some(to)) = (of, to.filter(|to| *to > 0.0)) {
            self.add(case, name, of / to, "times");
        }
    }
}

/// Medians and ranges, case by case, in the order in which they first came.
pub(crate) fn summaries(rounds: &[Round]) -> Vec<Summary> {
    let mut all: Vec<Summary> = Vec::new();
    for figure in rounds.iter().flat_map(|round| &round.figures) {
        let mut known = all.iter_mut();
        match known.find(|known| known.case == figure.case && known.name == figure.name) {
            Some(known) => known.values.push(figure.value),
            None => all.push(Summary {
                case: figure.case,
                name: figure.name.clone(),
                unit: figure.unit,
                median: 0.0,
                min: 0.0,
                max: 0.0,
                values: vec![figure.value],
            }),
        }
    }
    // Comparisons come after everything else.
    let mut cases: Vec<&'static str> = Vec::new();
    for summary in &all {
        if !cases.contains(&summary.case) {
            cases.push(summary.case);
        }
    }
    all.sort_by_key(|summary| cases.iter().position(|case| *case == summary.case));
    for summary in &mut all {
        let mut sorted = summary.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        summary.median = at((sorted.len() - 1) / 2).midpoint(at(sorted.len() / 2));
        (summary.min, summary.max) = (at(0), at(sorted.len() - 1));
    }
    all
}

/// With as many digits as mean something.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_come_to_medians_ranges_and_ratios_of_their_own() {
        let rounds: Vec<Round> = [(10.0, 5.0), (30.0, 5.0), (20.0, 40.0)]
            .into_iter()
            .map(|(one, two)| {
                let mut round = Round::default();
                round.add("a", "rate", one, "/s");
                round.add("b", "rate", two, "/s");
                round.ratio("a", "of b", ("a", "rate"), ("b", "rate"));
                round.ratio("a", "of nothing", ("a", "rate"), ("c", "rate"));
                round
            })
            .collect();
        let summaries = summaries(&rounds);
        let shown: Vec<_> = summaries
            .iter()
            .map(|summary| {
                (
                    summary.name.as_str(),
                    summary.median,
                    summary.min,
                    summary.max,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("rate", 20.0, 10.0, 30.0),
                ("of b", 2.0, 0.5, 6.0),
                ("rate", 5.0, 5.0, 40.0)
            ]
        );
    }
}
