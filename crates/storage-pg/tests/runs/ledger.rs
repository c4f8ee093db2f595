use std::collections::{BTreeMap, HashMap};

use evenkeel_core::Timestamp;
use sqlx::{Connection, PgConnection};

/// The lock that is the gate: who made the ledger holds it until the gate is to be open.
const GATE: i64 = 1;

/// What the steps did, in a table that has nothing to do with evenkeel.
#[derive(Debug)]
pub(crate) struct Ledger {
    connection: PgConnection,
}

impl Ledger {
    pub(crate) async fn create(url: &str) -> Self {
        let mut ledger = Self::open(url).await;
        let sql = "CREATE TABLE ledger
                (run text NOT NULL, step text NOT NULL, worker bigint NOT NULL, at bigint NOT NULL)";
        sqlx::query(sql).execute(&mut ledger.connection).await.unwrap();
        ledger.gate("SELECT pg_advisory_lock($1)").await.unwrap();
        ledger
    }

    pub(crate) async fn open(url: &str) -> Self {
        Self { connection: PgConnection::connect(url).await.unwrap() }
    }

    /// Notes an execution at its beginning, whatever becomes of it.
    pub(crate) async fn note(
        &mut self,
        run: &str,
        step: &str,
        worker: i64,
        at: Timestamp,
    ) -> sqlx::Result<()> {
        note(&mut self.connection, run, step, worker, at).await
    }

    pub(crate) async fn executions(&mut self) -> usize {
        let sql = "SELECT count(*) FROM ledger";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await.unwrap();
        usize::try_from(count).unwrap()
    }

    /// Who did this, once for each time, in order of their numbers.
    pub(crate) async fn workers(&mut self, run: &str, step: &str) -> Vec<i64> {
        let sql = "SELECT worker FROM ledger WHERE run = $1 AND step = $2 ORDER BY worker";
        sqlx::query_scalar(sql).bind(run).bind(step).fetch_all(&mut self.connection).await.unwrap()
    }

    pub(crate) async fn open_gate(&mut self) {
        self.gate("SELECT pg_advisory_unlock($1)").await.unwrap();
    }

    /// Waits until the gate is open.
    pub(crate) async fn wait_at_gate(&mut self) -> sqlx::Result<()> {
        self.gate("SELECT pg_advisory_lock_shared($1)").await
    }

    async fn gate(&mut self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::query(sql).bind(GATE).execute(&mut self.connection).await.map(drop)
    }

    /// Every transactional step exactly once, every other at least once, and none begun by who was
    /// no longer the holder.
    pub(crate) async fn check(&mut self, runs: usize) {
        let sql = "SELECT run, step, worker FROM ledger ORDER BY at";
        let lines: Vec<(String, String, i64)> =
            sqlx::query_as(sql).fetch_all(&mut self.connection).await.unwrap();
        let mut counts = BTreeMap::<(&str, &str), usize>::new();
        let mut holders = HashMap::<&str, Vec<i64>>::new();
        for (run, step, worker) in &lines {
            *counts.entry((run, step)).or_default() += 1;
            let holders = holders.entry(run).or_default();
            if holders.last() != Some(worker) {
                holders.push(*worker);
                // One may hold a run again that another took over and lost; but not both by turns.
                let by_turns = matches!(holders[..], [.., a, b, c, d] if (a, b) == (c, d));
                assert!(!by_turns, "{run}, {step}: {holders:?} held the run");
            }
        }
        assert_eq!(counts.len(), runs * 5, "every step of every run happened");
        for ((run, step), count) in &counts {
            assert!(!step.starts_with("tx") || *count == 1, "{run}: {step} happened {count} times");
        }
        let taken_over = holders.values().filter(|holders| holders.len() > 1).count();
        assert!(taken_over > 0, "the kills were felt");
    }
}

pub(crate) async fn note(
    connection: &mut PgConnection,
    run: &str,
    step: &str,
    worker: i64,
    at: Timestamp,
) -> sqlx::Result<()> {
    let line = sqlx::query("INSERT INTO ledger VALUES ($1, $2, $3, $4)");
    line.bind(run).bind(step).bind(worker).bind(at.as_micros()).execute(connection).await.map(drop)
}
