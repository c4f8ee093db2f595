//! A server, a producer and two consumers, all of them over HTTP.

mod client; // calls of the server
mod consumer; // who is told
mod producer; // who publishes
mod stage; // what is seen in the terminal

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evenkeel::core::{BoxError, Error, ErrorKind, Result, SystemClock};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::serve::Server;
use crate::settings::Settings;
use client::Client;
use consumer::{Consumer, Mood};
use producer::Producer;
use stage::Stage;

/// How long consumers may take to catch up once nothing changes any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the demonstration does.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// How long documents change, in seconds; then the consumers catch up, and it ends
    #[arg(long, value_name = "SECONDS", default_value = "8", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

impl Demo {
    /// Plays it; the exit code is 0 where both consumers know every document's newest revision in
    /// the end.
    ///
    /// # Errors
    /// What kept it from being played.
    pub(crate) async fn play(self) -> Result<ExitCode> {
        let folder = TempDir::new().map_err(|source| failed("no temporary folder", source))?;
        let store = format!("sqlite://{}", folder.path().join("demo.db").display());
        let flags = ["--store", &store, "--listen", "127.0.0.1:0", "--allow-target", "127.0.0.0/8"];
        // Its measurements are nobody's: no recorder is installed.
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let server = Server::start(Settings::of_flags(&flags)?, metrics).await?;
        let client = Client::of(server.address())?;
        let stage = Stage::new();
        stage.say(format_args!("a server on {}, with everything in {store}", server.address()));

        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.run(async move {
            // Asked to, or its audience has left.
            let _ = stopped.await;
        }));
        let outcome = self.show(&client, &stage).await;
        // It may have broken down; then the outcome says so.
        let _ = stop.send(());
        let _ = serving.await;
        outcome
    }

    async fn show(&self, client: &Client, stage: &Stage) -> Result<ExitCode> {
        let resource = json!({ "endpoint": producer::TEMPLATE, "change": { "field": "version" } });
        let resource = client.post("/resources", resource).await?;
        let resource = resource["id"].as_str().unwrap_or_default().to_owned();
        let consumers = [
            Consumer::start("healthy", Mood::Healthy, stage.clone()).await?,
            Consumer::start("flaky", Mood::FailsHalfTheTime, stage.clone()).await?,
        ];
        for consumer in &consumers {
            client.post(&format!("/resources/{resource}/subscriptions"), consumer.subscription()).await?;
        }

        let clock = SystemClock::shared();
        let mut producer = Producer::new(client.clone(), stage.clone());
        let end = clock.now() + Duration::from_secs(self.seconds);
        while clock.now() < end {
            producer.change_something().await?;
            clock.sleep(producer::PAUSE).await;
        }

        stage.say(format_args!("nothing changes any more; the consumers catch up"));
        let until = clock.now() + PATIENCE;
        while clock.now() < until && !consumers.iter().all(|consumer| consumer.knows(producer.documents())) {
            clock.sleep(LOOK_EVERY).await;
        }
        let converged = consumers.iter().all(|consumer| consumer.knows(producer.documents()));
        stage.say(format_args!("published {}", producer.summary()));
        for consumer in &consumers {
            stage.say(format_args!("{}", consumer.summary()));
        }
        stage.say(format_args!("converged: {}", if converged { "yes" } else { "no" }));
        Ok(if converged { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn failed(message: &'static str, source: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Unexpected, message).with_source(source)
}
