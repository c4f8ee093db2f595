//! Measures evenkeel beside the physical limit, in the same run: `cargo run --release -p
//! evenkeel-bench -- --help`.

mod idempotency; // the suite
mod measure; // rates and latencies
mod plain_sql; // the limit: the same work by hand
mod report; // the table and the JSON

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// Measures evenkeel beside the physical limit, in the same run.
///
/// Each cell is run three times in turn with its limit; medians are reported.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    suite: Suite,
    /// How long each run of a cell takes.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// Which stores to measure.
    #[arg(long, global = true, value_delimiter = ',', default_values = ["memory", "sqlite"])]
    stores: Vec<StoreName>,
    /// Writes one JSON object a row to this file.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Suite {
    /// Fresh calls and replays per second, and the latency that the HTTP layer adds.
    Idempotency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreName {
    Memory,
    Sqlite,
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let seconds = Duration::try_from_secs_f64(options.seconds)?;
    let mut report = Report::default();
    match options.suite {
        Suite::Idempotency => idempotency::run(&options.stores, seconds, &mut report).await?,
    }
    println!("\n{report}");
    if let Some(path) = options.json {
        std::fs::write(path, report.json()?)?;
    }
    Ok(())
}
