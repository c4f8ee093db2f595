//! Three processes work on the runs of one database, and are killed and paused while they do.

#[path = "../common/mod.rs"]
mod common; // what all tests share
mod ledger; // what the steps did
mod worker; // the processes

use std::process::ExitCode;

use evenkeel_choreograph::{Choreographer, RunFilter, RunState};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services::Postgres;
use evenkeel_testkit::{Process, Suite};

use crate::common::until;
use crate::ledger::Ledger;
use crate::worker::LEASE;

const RUNS: usize = 1000;
const KILLS: usize = 12;

fn main() -> ExitCode {
    if let Some(part) = Process::part() {
        return worker::be(part);
    }
    let mut suite = Suite::default();
    let available = Postgres::available;
    suite.own(
        "pg",
        available(),
        "every_step_happens_whoever_is_killed",
        every_step_happens_whoever_is_killed,
    );
    suite.own("pg", available(), "a_paused_process_records_nothing", a_paused_process_records_nothing);
    suite.run()
}

async fn every_step_happens_whoever_is_killed() {
    let (_postgres, url, choreographer, mut ledger) = start().await;
    let mut workers: Vec<_> = (0..3).map(|number| Process::spawn(&(&url, number))).collect();
    let starts = (0..8).map(|lane| {
        let choreographer = choreographer.clone();
        tokio::spawn(async move {
            for run in (lane..RUNS).step_by(8) {
                choreographer.start(worker::FIVE, &format!("run-{run}"), &()).await.unwrap();
            }
        })
    });
    let starts: Vec<_> = starts.collect();
    for kill in 1..=KILLS {
        // Spread over the first three quarters of the work.
        let executions = RUNS * 5 * 3 / 4 * kill / KILLS;
        until("so much is done", async || ledger.executions().await >= executions).await;
        let killed = fastrand::usize(..workers.len());
        workers[killed].kill();
        workers[killed] = Process::spawn(&(&url, 2 + kill));
    }
    for start in starts {
        start.await.unwrap();
    }
    let running = RunFilter::new(RunState::Running).limit(1);
    until("all runs are over", async || choreographer.list(running.clone()).await.unwrap().runs.is_empty())
        .await;
    let mut completed = 0;
    let mut filter = RunFilter::new(RunState::Completed).limit(500);
    loop {
        let page = choreographer.list(filter.clone()).await.unwrap();
        completed += page.runs.len();
        let Some(cursor) = page.cursor else { break };
        filter = filter.after(cursor);
    }
    assert_eq!(completed, RUNS);
    ledger.check(RUNS).await;
    println!("{KILLS} kills, {RUNS} runs, {} executions", ledger.executions().await);
}

async fn a_paused_process_records_nothing() {
    let (_postgres, url, choreographer, mut ledger) = start().await;
    let paused = Process::spawn(&(&url, 1));
    let gated = [worker::GATED, worker::GATED_TX];
    for definition in gated {
        choreographer.start(definition, definition, &()).await.unwrap();
    }
    for definition in gated {
        until("the step has begun", async || !ledger.workers(definition, "began").await.is_empty()).await;
    }
    paused.pause();
    ledger.open_gate().await;
    let other = Process::spawn(&(&url, 2));
    for definition in gated {
        let run = choreographer.outcome(definition).await.unwrap();
        assert_eq!((run.state, run.get(worker::GATE).unwrap()), (RunState::Completed, Some(2)));
    }
    drop(other);

    paused.go_on();
    for definition in gated {
        let began = ledger.workers(definition, "began").await;
        assert_eq!([began[0], began[began.len() - 1]], [1, 2]);
        until("all have passed the gate", async || {
            ledger.workers(definition, "passed the gate").await == began
        })
        .await;
    }
    // What it does after that, it does after it tried to record what it had done.
    until("it has worked on another run", async || {
        choreographer.start(worker::FIVE, "another", &()).await.unwrap();
        choreographer.inspect("another").await.unwrap().is_some_and(|run| run.state == RunState::Completed)
    })
    .await;
    for definition in gated {
        let run = choreographer.inspect(definition).await.unwrap().unwrap();
        assert_eq!(run.get(worker::GATE).unwrap(), Some(2));
        assert_eq!(ledger.workers(definition, "after").await, [2], "it began nothing more");
    }
    assert_eq!(ledger.workers(worker::GATED_TX, "booked").await, [2], "and its transaction rolled back");
}

/// A server, a handle to its runs, and an empty ledger.
async fn start() -> (Postgres, String, Choreographer<PgStore>, Ledger) {
    let postgres = Postgres::start_careless().unwrap();
    let url = postgres.url();
    let ledger = Ledger::create(&url).await;
    let choreographer = worker::choreographer(&url, 0).await;
    (postgres, url, choreographer.lease(LEASE), ledger)
}
