//! Measures evenkeel beside the physical limit, in the same run: `cargo run --release -p
//! evenkeel-bench -- --help`.

mod calls; // evenkeel doing it
mod choreograph; // runs of steps
mod flare; // deliveries, from publishers to subscribers
mod layer; // what the HTTP layer adds
mod limit; // the same by hand
mod measure; // rates and latencies
mod projections; // events appended and projected
mod report; // the table and the JSON
mod server; // what it is done on
mod wire; // the least HTTP
mod work; // what is done

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::measure::{Load, beside};
use crate::report::{Cell, Report};
use crate::server::{Server, StoreName};
use crate::work::Work;

/// Measures evenkeel beside the physical limit, in the same run.
///
/// Each cell is run three times in turn with its limit; medians are reported.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    suite: Suite,
    /// How long each run of a cell takes; pgbench counts in whole seconds.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// Which stores to measure.
    #[arg(long, global = true, value_delimiter = ',', default_values = ["memory", "sqlite"])]
    stores: Vec<StoreName>,
    /// How many call at once.
    #[arg(long, global = true, value_delimiter = ',', default_values = ["1", "16", "64"])]
    callers: Vec<usize>,
    /// Only the cases whose names contain this.
    #[arg(long, global = true, default_value = "")]
    only: String,
    /// Writes one JSON object a row to this file.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Suite {
    /// Fresh calls and replays per second, and the latency that the HTTP layer adds.
    Idempotency,
    /// What the store contract does per second: records, events, jobs.
    Store,
    /// What a server delivers per second, how soon, and what a backlog costs. On stores that keep
    /// everything through a crash of the machine.
    Flare {
        /// How many deliveries wait when the backlog is measured.
        #[arg(long, default_value_t = 1_000_000)]
        backlog: usize,
    },
    /// Runs of trivial steps: nanoseconds in memory beside a plain loop, and runs and steps per second
    /// on a store beside its commits.
    Choreograph {
        /// How many inputs are run in memory, one beside the other.
        #[arg(long, default_value_t = 1_000_000)]
        inputs: u64,
    },
    /// Events per second appended and projected beside plain SQL, and how soon an event is in the
    /// read model.
    Projections {
        /// How many events there are to catch up with.
        #[arg(long, default_value_t = 100_000)]
        events: usize,
    },
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let duration = Duration::try_from_secs_f64(options.seconds)?;
    let mut report = Report::default();
    // First, so that latencies are those of a process that has just started.
    let has_layer = matches!(options.suite, Suite::Idempotency) && layer::CASE.contains(&options.only);
    if has_layer && options.stores.contains(&StoreName::Memory) {
        layer::run(duration, &mut report).await?;
    }
    for &store in &options.stores {
        if let Suite::Flare { backlog } = options.suite {
            let plan = flare::Plan { duration, only: &options.only, backlog };
            flare::run(store, &plan, &mut report).await?;
            continue;
        }
        if let Suite::Choreograph { inputs } = options.suite {
            let plan = choreograph::Plan { duration, callers: &options.callers, only: &options.only, inputs };
            choreograph::run(store, &plan, &mut report).await?;
            continue;
        }
        if let Suite::Projections { events } = options.suite {
            let plan = projections::Plan { duration, callers: &options.callers, only: &options.only, events };
            projections::run(store, &plan, &mut report).await?;
            continue;
        }
        let server = Server::start(store).await?;
        eprintln!("{store}: {}", server.conditions());
        for &callers in &options.callers {
            for &work in options.suite.works() {
                let case = work.to_string();
                if !case.contains(&options.only) {
                    continue;
                }
                let load = Load { callers, duration };
                let (value, limit) = beside(|| server.rate(work, load), || server.limit(work, load)).await?;
                let cell = Cell { case, store, callers, unit: work.unit(), value, limit };
                report.add(options.suite.name(), cell);
            }
        }
    }
    println!("\n{report}");
    if let Some(path) = options.json {
        std::fs::write(path, report.json()?)?;
    }
    Ok(())
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Idempotency => "idempotency",
            Self::Store => "store",
            Self::Flare { .. } => "flare",
            Self::Choreograph { .. } => "choreograph",
            Self::Projections { .. } => "projections",
        }
    }

    const fn works(self) -> &'static [Work] {
        match self {
            Self::Idempotency => &[Work::Fresh, Work::FreshWithRow, Work::Replay],
            Self::Store => &[
                Work::Put,
                Work::ClaimAndFinish,
                Work::Append(1),
                Work::Append(10),
                Work::Append(100),
                Work::PushLeaseAck,
            ],
            Self::Flare { .. } | Self::Choreograph { .. } | Self::Projections { .. } => &[],
        }
    }
}
