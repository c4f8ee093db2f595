//! Runs a command beside the servers that stores are tested on.
//!
//! What the environment names already is used as it is. The other servers are started, and their
//! addresses handed to the command in the environment; they are stopped when it ends, or when this
//! program is interrupted or terminated. A server that cannot be started is told about and left
//! out, unless `EVENKEEL_TEST_REQUIRE` asks for it.

mod run; // the command, and signals meanwhile
mod start; // the servers

use std::process::ExitCode;

use clap::Parser;
use evenkeel_testkit::services::Service;

use self::run::Signals;
use self::start::Started;

/// Runs a command beside the servers that stores are tested on.
#[derive(Debug, Parser)]
struct Arguments {
    /// Start only these, with commas between: pg, pgbouncer, redis, redis-cluster, dynamo, moto.
    #[arg(long, value_delimiter = ',', value_name = "SERVICE")]
    only: Option<Vec<Service>>,

    /// What to run.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { only, command } = Arguments::parse();
    let wanted = only.unwrap_or_else(|| Service::ALL.to_vec());
    match run(wanted, &command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-services: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: Vec<Service>, command: &[String]) -> Result<ExitCode, String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen to signals: {error}"))?;
    let mut starting = tokio::task::spawn_blocking(move || Started::new(&wanted));
    let started = tokio::select! {
        started = &mut starting => started.expect("starting does not panic")?,
        signal = signals.next() => {
            // What is being started is stopped when it is there.
            drop(starting.await);
            return Ok(run::ended_by(signal));
        }
    };
    let code = run::to_end(command, started.variables(), &mut signals).await;
    code.map_err(|error| format!("{}: {error}", command.join(" ")))
}
