use std::fmt;

use serde::Serialize;

use crate::Result;
use crate::server::StoreName;

/// The rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// A cell of a suite, with the ratio to its limit where it has one.
#[derive(Clone, Debug, Serialize)]
struct Row {
    suite: &'static str,
    #[serde(flatten)]
    cell: Cell,
    ratio: Option<f64>,
}

/// A measured cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) case: String,
    pub(crate) store: StoreName,
    pub(crate) callers: usize,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Option<f64>,
}

impl Report {
    /// Adds a cell of a suite, and shows it as progress.
    pub(crate) fn add(&mut self, suite: &'static str, cell: Cell) {
        let ratio = cell.limit.map(|limit| cell.value / limit);
        let row = Row { suite, cell, ratio };
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// One JSON object a row.
    pub(crate) fn json(&self) -> Result<String> {
        let lines = self.rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.join("\n") + "\n")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |value: Option<f64>, digits| value.map_or(String::new(), |v| format!("{v:.digits$}"));
        let Cell { case, store, callers, unit, value, limit } = &self.cell;
        let digits = if *value < 100.0 { 1 } else { 0 };
        let (limit, ratio) = (optional(*limit, digits), optional(self.ratio, 2));
        write!(
            f,
            "| {case:<24} | {store:<6} | {callers:>7} | {value:>10.digits$} | {limit:>10} | {ratio:>5} | {unit:<7} |"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:<24} | {:<6} | {:>7} | {:>10} | {:>10} | {:>5} | {:<7} |",
            "case", "store", "callers", "value", "limit", "ratio", "unit"
        )?;
        writeln!(f, "|{:-<26}|{:-<8}|{:->8}:|{:->11}:|{:->11}:|{:->6}:|{:-<9}|", "", "", "", "", "", "", "")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
