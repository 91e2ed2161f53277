//! The figures, for people and for programs.

use serde_json::{Value, json};

/// One measured number.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: never changes.
    pub id: &'static str,
    /// For people.
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// How far the measurements lie apart, in the same unit.
    pub spread: Option<f64>,
}

impl Figure {
    pub fn new(id: &'static str, name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { id, name, value, unit, spread: None }
    }

    pub fn with_spread(self, spread: f64) -> Self {
        Self { spread: Some(spread), ..self }
    }
}

/// A Markdown table whose columns are under each other as text, too.
pub fn markdown(figures: &[Figure]) -> String {
    let mut rows = vec![["measured", "figure", "unit", "spread"].map(String::from)];
    rows.extend(figures.iter().map(|figure| {
        let spread = figure.spread.map_or_else(String::new, |spread| format!("{spread:.1}"));
        [figure.name.into(), format!("{:.1}", figure.value), figure.unit.into(), spread]
    }));
    let [name, value, unit, spread] =
        [0, 1, 2, 3].map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let rule = format!(
        "| {} | {}: | {} | {}: |",
        "-".repeat(name),
        "-".repeat(value - 1),
        "-".repeat(unit),
        "-".repeat(spread - 1)
    );
    let mut lines: Vec<_> = rows
        .iter()
        .map(|row| {
            format!("| {:name$} | {:>value$} | {:unit$} | {:>spread$} |", row[0], row[1], row[2], row[3])
        })
        .collect();
    lines.insert(1, rule);
    lines.join("\n") + "\n"
}

pub fn json(figures: &[Figure]) -> Value {
    let all = figures.iter().map(|figure| {
        let Figure { id, name, value, unit, spread } = figure;
        json!({ "id": id, "name": name, "value": value, "unit": unit, "spread": spread })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> [Figure; 2] {
        [
            Figure::new("cost.empty", "an empty program", 21.96, "ns").with_spread(0.5),
            Figure::new("memory.rss", "memory", 29_000.0, "KiB"),
        ]
    }

    /// It is read as text in a terminal as well as rendered.
    #[test]
    fn columns_are_under_each_other() {
        let expected = "\
| measured         |  figure | unit | spread |
| ---------------- | ------: | ---- | -----: |
| an empty program |    22.0 | ns   |    0.5 |
| memory           | 29000.0 | KiB  |        |
";
        assert_eq!(markdown(&figures()), expected);
    }

    /// Programs get the figures as measured, and a spread that was not measured as such.
    #[test]
    fn json_does_not_round() {
        let json = json(&figures());
        assert_eq!(json[0]["value"], 21.96);
        assert!(json[1]["spread"].is_null());
    }
}
