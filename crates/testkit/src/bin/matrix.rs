//! Prints how many cases of each group ran on each store, from the JUnit reports of test runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use quick_junit::{Report, TestCaseStatus};

/// Prints how many cases of each group ran on each store.
#[derive(Debug, Parser)]
struct Arguments {
    /// JUnit reports.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let mut matrix = Matrix::default();
    for path in Arguments::parse().reports {
        match read(&path) {
            Ok(report) => matrix.add(&report),
            Err(error) => {
                eprintln!("matrix: {}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    print!("{matrix}");
    ExitCode::SUCCESS
}

fn read(path: &Path) -> Result<Report, Box<dyn std::error::Error>> {
    Ok(Report::deserialize(BufReader::new(File::open(path)?))?)
}

/// How cases ended, by group and store.
#[derive(Debug, Default)]
struct Matrix {
    groups: BTreeMap<String, BTreeMap<String, Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    ran: u32,
    failed: u32,
}

impl Matrix {
    fn add(&mut self, report: &Report) {
        for case in report.test_suites.iter().flat_map(|suite| &suite.test_cases) {
            let Some((store, group)) = store_and_group(case.name.as_str()) else { continue };
            let failed = match case.status {
                TestCaseStatus::Success { .. } => 0,
                TestCaseStatus::NonSuccess { .. } => 1,
                TestCaseStatus::Skipped { .. } => continue,
            };
            let count = self.groups.entry(group.to_owned()).or_default().entry(store.to_owned()).or_default();
            count.ran += 1;
            count.failed += failed;
        }
    }

    fn stores(&self) -> BTreeSet<&str> {
        self.groups.values().flat_map(BTreeMap::keys).map(String::as_str).collect()
    }

    fn total(&self, store: &str) -> Count {
        let counts = self.groups.values().filter_map(|stores| stores.get(store));
        counts.fold(Count::default(), |total, count| Count {
            ran: total.ran + count.ran,
            failed: total.failed + count.failed,
        })
    }
}

/// A row a group, a column a store, and in each cell how many ran, and behind a stroke how many of
/// these failed.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = self.stores();
        let groups = self.groups.keys().map(String::len).max().unwrap_or_default().max(TOTAL.len());
        let row = |f: &mut fmt::Formatter<'_>, name: &str, cell: &dyn Fn(&str) -> String| {
            write!(f, "{name:groups$}")?;
            for store in &stores {
                write!(f, "  {:>width$}", cell(store), width = store.len().max(CELL))?;
            }
            writeln!(f)
        };
        row(f, "", &|store| store.to_owned())?;
        for (group, counts) in &self.groups {
            row(f, group, &|store| counts.get(store).map_or_else(|| "-".to_owned(), Count::to_string))?;
        }
        row(f, TOTAL, &|store| self.total(store).to_string())
    }
}

/// The name of the last row.
const TOTAL: &str = "all";

/// Room for `1234/56`.
const CELL: usize = 7;

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failed {
            0 => write!(f, "{}", self.ran),
            failed => write!(f, "{}/{failed}", self.ran),
        }
    }
}

/// Of a case of the suites, as they name them; other tests have neither.
fn store_and_group(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.split("::");
    let (store, suite) = (parts.next()?, parts.next()?);
    match suite {
        "door1" | "door2" | "erased" => Some((store, parts.next()?)),
        "idempotency" | "projections" | "own" => Some((store, suite)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_by_store_and_group_and_other_tests_are_not() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="run" tests="8" failures="1" errors="0">
                <testsuite name="evenkeel-storage-pg::conformance" tests="7" disabled="0" errors="0" failures="1">
                    <testcase name="pg::door1::records::a"/>
                    <testcase name="pg::door2::records::a"><failure type="test failure">no</failure></testcase>
                    <testcase name="pg::erased::log::n4::b"/>
                    <testcase name="pg::idempotency::n1::claims::c"/>
                    <testcase name="pg::idempotency::n4::claims::c"/>
                    <testcase name="redis-cluster::door1::records::a"/>
                    <testcase name="redis-cluster::own::door2::d"/>
                </testsuite>
                <testsuite name="evenkeel-testkit" tests="1" disabled="0" errors="0" failures="0">
                    <testcase name="services::port::tests::a_free_port_can_be_listened_on"/>
                </testsuite>
            </testsuites>"#;
        let mut matrix = Matrix::default();
        matrix.add(&Report::deserialize_from_str(xml).unwrap());
        let expected = "                  pg  redis-cluster\n\
                        idempotency        2              -\n\
                        log                1              -\n\
                        own                -              1\n\
                        records          2/1              1\n\
                        all              5/1              2\n";
        assert_eq!(matrix.to_string(), expected);
    }
}
