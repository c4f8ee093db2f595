use std::error::Error as _;
use std::fmt::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use evenkeel::axum::openapi;
use evenkeel::core::{Error, ErrorKind, Result, Store};

use crate::demo::Demo;
use crate::events::Events;
use crate::keys::Keys;
use crate::projections::Projections;
use crate::serve::Server;
use crate::settings::{Given, Settings};
use crate::{doctor, logs, metrics, stop};

/// Change notification: documents are published over HTTP, and subscribers told when theirs changed.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGINT or SIGTERM
    Serve(Given),
    /// Create what the store needs, or bring it up to date, as serving does too
    Migrate(Given),
    /// Check the store, the clock and the settings; the exit code is 1 where a server would not work
    ///
    /// The store is opened as a server opens it, and so created where it does not exist.
    Doctor(Given),
    /// See all of it in a few seconds: a server, documents that change, and two consumers
    Demo(Demo),
    /// Make tokens, secrets and vault keys, and change vault keys
    Keys {
        #[command(subcommand)]
        keys: Keys,
    },
    /// Look at events as they are appended
    Events {
        #[command(subcommand)]
        events: Events,
    },
    /// Look at projections and steer them, wherever they run
    Projections {
        #[command(subcommand)]
        projections: Projections,
    },
    /// Print the OpenAPI document of the server
    Openapi,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let outcome = match cli.command {
        None => cli.given.resolve(given).and_then(|settings| block_on(serve(settings))),
        Some(Command::Serve(settings)) => {
            settings.resolve(given).and_then(|settings| block_on(serve(settings)))
        }
        Some(Command::Migrate(settings)) => {
            settings.resolve(given).and_then(|settings| block_on(migrate(settings)))
        }
        Some(Command::Doctor(settings)) => settings
            .resolve(given)
            .and_then(|settings| block_on(async { Ok(doctor::examine(&settings).await) })),
        Some(Command::Demo(demo)) => block_on(demo.play()),
        Some(Command::Keys { keys }) => keys.run(given),
        Some(Command::Events { events }) => events.run(given),
        Some(Command::Projections { projections }) => projections.run(given),
        Some(Command::Openapi) => Ok(print(openapi_document())),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("evenkeel: {}", with_causes(&error));
        ExitCode::FAILURE
    })
}

async fn serve(settings: Settings) -> Result<ExitCode> {
    let logs = logs::install(&settings)?;
    // Before anything is promised: who reads the line below may stop the server.
    let stop = stop::requested()?;
    let store = settings.shown_store();
    let server = Server::start(settings, metrics::install()?).await?;
    let address = server.address();
    println!(
        "evenkeel listens on http://{address}, keeps everything in {store}, and is explained at http://{address}/docs"
    );
    let outcome = server.run(stop).await;
    logs.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn migrate(settings: Settings) -> Result<ExitCode> {
    let store = evenkeel::open(&settings.store).await?;
    let info = store.info();
    Ok(print(format!(
        "{} is up to date: a store of the kind {}, partitions: {}",
        settings.shown_store(),
        info.name,
        info.partitions
    )))
}

fn openapi_document() -> String {
    openapi::document().to_pretty_json().expect("the document is JSON")
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be handed to `map`")]
pub(crate) fn print(text: String) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

pub(crate) fn block_on(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| {
        Error::new(ErrorKind::Unexpected, "the runtime does not start").with_source(source)
    })?;
    runtime.block_on(work)
}

/// An error and what caused it, in one line.
pub(crate) fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("a string takes any text");
        cause = error.source();
    }
    text
}
