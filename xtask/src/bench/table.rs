//! The figures, for people and for programs.

use serde_json::{Value, json};

/// One measured number.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: never changes.
    pub id: String,
    /// Text, for people.
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// How far the measurements lie apart, in the same unit.
    pub spread: Option<f64>,
    /// The value to that of the array increment.
    pub ratio: Option<f64>,
    /// The same compared within each round: the median, how far the quartiles lie apart, and the ratio.
    pub paired: Option<(f64, f64)>,
    pub paired_ratio: Option<f64>,
}

impl Figure {
    pub fn new(id: impl Into<String>, name: &str, value: f64, unit: &'static str) -> Self {
        let (id, name) = (id.into(), name.to_owned());
        Self { id, name, value, unit, spread: None, ratio: None, paired: None, paired_ratio: None }
    }

    pub fn with_spread(self, spread: f64) -> Self {
        Self { spread: Some(spread), ..self }
    }

    pub fn with_paired(self, median: f64, middle_half: f64) -> Self {
        Self { paired: Some((median, middle_half)), ..self }
    }

    pub fn with_ratios(self, least: Option<f64>, paired: Option<f64>) -> Self {
        Self { ratio: least, paired_ratio: paired, ..self }
    }

    fn cells(&self) -> Vec<String> {
        let cell = |value: Option<f64>, digits| value.map_or_else(String::new, |v| format!("{v:.digits$}"));
        let (median, middle_half) = self.paired.unzip();
        vec![
            self.name.clone(),
            format!("{:.1}", self.value),
            self.unit.into(),
            cell(self.spread, 1),
            cell(self.ratio, 2),
            cell(median, 1),
            cell(middle_half, 1),
            cell(self.paired_ratio, 2),
        ]
    }
}

const HEADER: [&str; 8] =
    ["measured", "figure", "unit", "spread", "to array", "by round", "spread", "to array"];

/// The columns that are words.
const WORDS: [usize; 2] = [0, 2];

/// A Markdown table whose columns are under each other as text, too; those that would be empty are left out.
pub fn markdown(figures: &[Figure]) -> String {
    let mut rows = vec![HEADER.map(String::from).to_vec()];
    rows.extend(figures.iter().map(Figure::cells));
    let filled = |column: &usize| rows[1..].iter().any(|row| !row[*column].is_empty());
    let columns: Vec<_> = (0..HEADER.len()).filter(|column| *column < 4 || filled(column)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let cell = |row: &[String], column: usize| {
        let (cell, width) = (&row[column], width(column));
        if WORDS.contains(&column) { format!("{cell:width$}") } else { format!("{cell:>width$}") }
    };
    let rule = |column: usize| {
        let width = width(column);
        if WORDS.contains(&column) { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
    };
    let mut lines: Vec<_> =
        rows.iter().map(|row| line(columns.iter().map(|&column| cell(row, column)).collect())).collect();
    lines.insert(1, line(columns.iter().map(|&column| rule(column)).collect()));
    lines.join("\n") + "\n"
}

pub fn json(figures: &[Figure]) -> Vec<Value> {
    let one = |figure: &Figure| {
        let Figure { id, name, value, unit, spread, ratio, paired, paired_ratio } = figure;
        json!({
            "id": id, "name": name, "value": value, "unit": unit, "spread": spread, "ratio": ratio,
            "paired": paired.map(|(median, spread)| {
                json!({ "median": median, "spread": spread, "ratio": paired_ratio })
            }),
        })
    };
    figures.iter().map(one).collect()
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

    /// What one row has, all rows leave room for.
    #[test]
    fn ratios_have_columns_of_their_own() {
        let [first, second] = figures();
        let expected = "\
| measured         |  figure | unit | spread | to array | by round | spread | to array |
| ---------------- | ------: | ---- | -----: | -------: | -------: | -----: | -------: |
| an empty program |    22.0 | ns   |    0.5 |     0.90 |     23.0 |    1.5 |     0.80 |
| memory           | 29000.0 | KiB  |        |          |          |        |          |
";
        assert_eq!(
            markdown(&[first.with_paired(23.0, 1.5).with_ratios(Some(0.9), Some(0.8)), second]),
            expected
        );
    }

    /// Programs get the figures as measured, and a spread that was not measured as such.
    #[test]
    fn json_does_not_round() {
        let json = json(&figures());
        assert_eq!(json[0]["value"], 21.96);
        assert!(json[1]["spread"].is_null());
    }
}
