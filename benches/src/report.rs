use std::fmt;

use serde::Serialize;

use crate::Result;
use crate::server::StoreName;

/// The rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// A measured cell, beside its limit where it has one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    pub(crate) case: String,
    pub(crate) store: StoreName,
    pub(crate) callers: usize,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Option<f64>,
    pub(crate) ratio: Option<f64>,
}

/// A measured cell of a suite that has a limit for some.
pub(crate) struct Cell {
    pub(crate) case: String,
    pub(crate) store: StoreName,
    pub(crate) callers: usize,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Option<f64>,
}

impl Cell {
    pub(crate) fn row(self, suite: &'static str) -> Row {
        let Self { case, store, callers, unit, value, limit } = self;
        Row { suite, case, store, callers, unit, value, limit, ratio: limit.map(|limit| value / limit) }
    }
}

impl Report {
    /// Adds a row, and shows it as progress.
    pub(crate) fn add(&mut self, row: Row) {
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
        let Self { case, store, callers, unit, value, .. } = self;
        let digits = if *value < 100.0 { 1 } else { 0 };
        let (limit, ratio) = (optional(self.limit, digits), optional(self.ratio, 2));
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
