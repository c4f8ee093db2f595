use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Subcommand};
use evenkeel::core::{AnyStore, Clock, Error, ErrorKind, Result, SystemClock};
use evenkeel::projections::{Operations, PartitionStatus, Status};

use crate::command::block_on;
use crate::period::Period;
use crate::progress::{Progress, grouped};
use crate::settings::Given;
use crate::stop;

/// How often is looked how far something has come.
const LOOK: Duration = Duration::from_millis(200);

/// How many projections are listed at a time.
const PAGE: usize = 100;

/// Looks at projections and steers them. Their code is in other programs on the same store, which
/// follow within a second or so.
#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    /// List the projections that have run, with their versions and how many events they are behind
    Ls(Box<Given>),
    /// Show how far projections are in each partition
    ///
    /// The exit code is 1 where one has stopped, or its oldest event has waited for longer than
    /// the patience and nothing moves.
    Lag {
        /// Which one; all of them unless said
        name: Option<String>,
        /// How long an event may wait
        #[arg(long, value_name = "TIME", default_value = "1m")]
        patience: Period,
        #[command(flatten)]
        given: Box<Given>,
    },
    /// Stop a projection wherever it runs
    Pause {
        /// Which one
        name: String,
        #[command(flatten)]
        given: Box<Given>,
    },
    /// Let a projection run again, also where it stopped at an event that failed
    Resume {
        /// Which one
        name: String,
        #[command(flatten)]
        given: Box<Given>,
    },
    /// Have a projection rebuilt from the first event by the programs that run it, and wait for it
    ///
    /// What is read stays as it is until the new version has caught up. Interrupted, this leaves the
    /// rebuild under way; the same command again waits for it.
    Rebuild {
        /// Which one
        name: String,
        #[command(flatten)]
        given: Box<Given>,
    },
}

impl Projections {
    /// Does what was asked; `matches` are those of the command that this is part of.
    ///
    /// # Errors
    /// `Config` where a setting is none; `NotFound` where no such projection has run; those of the
    /// store.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        let (_, matches) = matches.subcommand().expect("clap has found the subcommand");
        match self {
            Self::Ls(given) => {
                let settings = given.resolve(matches)?;
                block_on(async { list(&evenkeel::open(&settings.store).await?).await })
            }
            Self::Lag { name, patience, given } => {
                let settings = given.resolve(matches)?;
                block_on(async { lag(&evenkeel::open(&settings.store).await?, name, patience).await })
            }
            Self::Pause { name, given } => {
                let settings = given.resolve(matches)?;
                block_on(async { pause(Operations::new(evenkeel::open(&settings.store).await?, name)).await })
            }
            Self::Resume { name, given } => {
                let settings = given.resolve(matches)?;
                block_on(async {
                    resume(Operations::new(evenkeel::open(&settings.store).await?, name)).await
                })
            }
            Self::Rebuild { name, given } => {
                let settings = given.resolve(matches)?;
                block_on(async {
                    let operations = Operations::new(evenkeel::open(&settings.store).await?, name);
                    rebuild(&operations, stop::requested()?).await
                })
            }
        }
    }
}

async fn list(store: &AnyStore) -> Result<ExitCode> {
    let mut rows = vec![["NAME", "VERSION", "STATE", "LAG"].map(str::to_owned)];
    for name in names(store).await? {
        let status = Operations::new(store.clone(), &*name).status().await?;
        let (name, version) = (name.escape_debug().to_string(), status.active.to_string());
        rows.push([name, version, state(&status), grouped(status.lag())]);
    }
    print_table(&rows);
    Ok(ExitCode::SUCCESS)
}

async fn lag(store: &AnyStore, name: Option<String>, patience: Period) -> Result<ExitCode> {
    let mut rows =
        vec![["NAME", "PARTITION", "POSITION", "HEAD", "LAG", "BEHIND", "STOPPED"].map(str::to_owned)];
    let names = match name {
        Some(name) => vec![name],
        None => names(store).await?,
    };
    let mut is_healthy = true;
    for name in names {
        let status = Operations::new(store.clone(), &*name).status().await?;
        is_healthy &= status.is_healthy(patience.0);
        rows.extend(status.partitions.iter().map(|partition| row(&name, partition)));
    }
    print_table(&rows);
    Ok(if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(name: &str, partition: &PartitionStatus) -> [String; 7] {
    let stopped = partition.failed.as_ref().map(|failure| {
        let (position, kind) = (failure.position, failure.kind.escape_debug());
        format!(
            "at {position}, {kind} of {}: {}",
            failure.stream.escape_debug(),
            failure.error.escape_debug()
        )
    });
    [
        name.escape_debug().to_string(),
        partition.at.index().to_string(),
        grouped(partition.position),
        grouped(partition.head),
        grouped(partition.lag()),
        format!("{:.1} s", partition.behind.as_secs_f64()),
        stopped.unwrap_or_default(),
    ]
}

async fn pause(operations: Operations<AnyStore>) -> Result<ExitCode> {
    operations.pause().await?;
    println!("{} is paused", operations.name().escape_debug());
    Ok(ExitCode::SUCCESS)
}

async fn resume(operations: Operations<AnyStore>) -> Result<ExitCode> {
    operations.resume().await?;
    println!("{} runs again", operations.name().escape_debug());
    Ok(ExitCode::SUCCESS)
}

async fn rebuild(operations: &Operations<AnyStore>, stop: impl Future<Output = ()>) -> Result<ExitCode> {
    let version = operations.start_rebuild().await?;
    let name = operations.name().escape_debug().to_string();
    println!("the programs that run {name} are asked to build version {version}");
    let (clock, mut progress) = (SystemClock::shared(), Progress::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        let status = operations.status_of(version).await?;
        let (done, of) = status.progress();
        if status.active >= version {
            let done = progress.end(done, clock.now());
            println!("version {version} of {name} is the one to read: {done}");
            return Ok(ExitCode::SUCCESS);
        }
        if status.building != Some(version) {
            progress.end(done, clock.now());
            return Err(Error::new(ErrorKind::Conflict, "the rebuild was given up")
                .with("projection", name)
                .with("version", version));
        }
        progress.show(done, of, clock.now());
        tokio::select! {
            () = clock.sleep(LOOK) => {}
            () = &mut stop => {
                progress.end(done, clock.now());
                println!("version {version} of {name} goes on being built");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

async fn names(store: &AnyStore) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map(String::as_str);
        let page = Operations::list(store, SystemClock.now(), after, PAGE).await?;
        if page.is_empty() {
            return Ok(names);
        }
        names.extend(page);
    }
}

fn state(status: &Status) -> String {
    let has_stopped = status.partitions.iter().any(|partition| partition.failed.is_some());
    let state = match (status.paused, has_stopped) {
        (true, _) => "paused",
        (false, true) => "stopped",
        (false, false) => "on",
    };
    match status.building {
        Some(version) => format!("{state}, building {version}"),
        None => state.to_owned(),
    }
}

/// Prints rows whose columns are as wide as they need to be.
fn print_table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
