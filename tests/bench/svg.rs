//! A picture of the figures: one bar for each, the range as a line across its end.

use std::fmt::Write as _;

use crate::figures::{Summary, shown};

const WIDTH: f64 = 960.0;
const LABEL: f64 = 330.0;
/// Room for the longest bar; its value stands behind it.
const BAR: f64 = 480.0;
const ROW: f64 = 20.0;
const TITLE: f64 = 40.0;

/// Figures of one kind, whose bars can be compared.
struct Panel {
    title: &'static str,
    unit: &'static [&'static str],
}

const PANELS: [Panel; 5] = [
    Panel {
        title: "Deliveries or requests a second",
        unit: &["deliveries/s", "requests/s"],
    },
    Panel {
        title: "CPU seconds per 1,000",
        unit: &["s/1,000"],
    },
    Panel {
        title: "Milliseconds from sending to arrival",
        unit: &["ms"],
    },
    Panel {
        title: "Times what it is compared with",
        unit: &["times"],
    },
    Panel {
        title: "Resident memory in megabytes",
        unit: &["MB"],
    },
];

pub(crate) fn picture(figures: &[Summary]) -> String {
    let mut rows = String::new();
    let mut y = 0.0;
    for panel in &PANELS {
        let of_panel: Vec<_> = figures
            .iter()
            .filter(|figure| panel.unit.contains(&figure.unit))
            .collect();
        if of_panel.is_empty() {
            continue;
        }
        y += TITLE;
        // Writing to a string never fails.
        let _infallible = writeln!(
            rows,
            r#"<text x="10" y="{}" font-weight="bold">{}</text>"#,
            y - 12.0,
            panel.title
        );
        let longest = of_panel.iter().map(|figure| figure.max);
        let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
        for figure in of_panel {
            let _infallible = bar(&mut rows, y, figure, BAR / longest);
            y += ROW;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{rows}</svg>\n",
        height = y + ROW
    )
}

fn bar(rows: &mut String, y: f64, figure: &Summary, scale: f64) -> std::fmt::Result {
    let (text_y, middle) = (y + 14.0, y + 9.0);
    let name = format!("{}, {}", figure.case, figure.name);
    writeln!(
        rows,
        r#"<text x="{}" y="{text_y}" text-anchor="end">{name}</text>"#,
        LABEL - 8.0
    )?;
    writeln!(
        rows,
        r##"<rect x="{LABEL}" y="{}" width="{:.1}" height="13" fill="#4878a8"/>"##,
        y + 3.0,
        figure.median * scale
    )?;
    writeln!(
        rows,
        r##"<line x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}" stroke="#222"/>"##,
        LABEL + figure.min * scale,
        LABEL + figure.max * scale
    )?;
    writeln!(
        rows,
        r#"<text x="{:.1}" y="{text_y}">{}</text>"#,
        LABEL + figure.max * scale + 6.0,
        shown(figure.median)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Round, summaries};

    #[test]
    fn each_figure_of_a_known_unit_has_its_bar() {
        let mut round = Round::default();
        round.add("one", "max: delivered", 2_000.0, "deliveries/s");
        round.add("ceilings", "direct: requests", 4_000.0, "requests/s");
        round.add("one", "half: p99", 2.5, "ms");
        round.add("one", "max: EVENTS", 1_500.0, "bytes/event");
        let picture = picture(&summaries(&[round]));
        assert_eq!(picture.matches("fill=\"#4878a8\"").count(), 3);
        assert!(picture.contains(r#"width="480.0""#) && picture.contains(r#"width="240.0""#));
        assert!(picture.contains("one, half: p99") && !picture.contains("EVENTS"));
    }
}
