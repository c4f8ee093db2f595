//! `pgbench` with the least SQL that does the same work: prepared statements on plain tables in a
//! schema of their own, each statement a transaction of its own unless a row of the user's is to go
//! with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::measure::Load;
use crate::work::{ANSWER, KIND, STREAMS, VALUE, Work, finished};

/// Leaves nothing but the tables.
const TABLES: &str = "
    DROP SCHEMA IF EXISTS plain, evenkeel CASCADE;
    CREATE SCHEMA plain;
    CREATE TABLE plain.record (key text PRIMARY KEY, value text NOT NULL, version bigint NOT NULL);
    CREATE TABLE plain.event (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL, id uuid NOT NULL,
        kind text NOT NULL, content_type text NOT NULL, payload text NOT NULL,
        recorded_at timestamptz NOT NULL, batch uuid NOT NULL
    );
    CREATE TABLE plain.job (
        queue text NOT NULL, id text NOT NULL, due timestamptz NOT NULL, payload text NOT NULL,
        attempt integer NOT NULL DEFAULT 0, token uuid, leased_until timestamptz, PRIMARY KEY (queue, id)
    );
    CREATE INDEX job_due ON plain.job (queue, due);
    CREATE TABLE plain.operation (
        key text PRIMARY KEY, status text NOT NULL, fingerprint bytea NOT NULL,
        started_at timestamptz NOT NULL, lease_until timestamptz, result text
    );
    CREATE INDEX operation_running ON plain.operation (lease_until) WHERE status = 'running';
    CREATE TABLE plain.effect (key text PRIMARY KEY, note text NOT NULL);
";

const CLAIM: &str = "
    INSERT INTO plain.operation (key, status, fingerprint, started_at, lease_until)
    VALUES (:key, 'running', sha256(:answer), now(), now() + interval '30 s') ON CONFLICT DO NOTHING;";

const FINISH: &str = "
    UPDATE plain.operation SET status = 'finished', result = :answer, lease_until = NULL WHERE key = :key;";

/// The program, and the server it is let loose on.
pub(crate) struct PgBench {
    program: PathBuf,
    url: String,
}

impl PgBench {
    /// The one that belongs to the server at `url`.
    pub(crate) async fn of(url: String) -> Result<Self> {
        let mut conn = PgConnection::connect(&url).await?;
        let folder: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
            .fetch_one(&mut conn)
            .await?;
        Ok(Self { program: Path::new(&folder).join("pgbench"), url })
    }

    /// Empties the server: no store, and tables without rows. The user's row goes into one of them in
    /// any case.
    pub(crate) async fn clear(&self) -> Result<()> {
        let mut conn = PgConnection::connect(&self.url).await?;
        sqlx::raw_sql(TABLES).execute(&mut conn).await?;
        // Else the run that happens to come next pays for what those before it wrote.
        sqlx::raw_sql("CHECKPOINT").execute(&mut conn).await?;
        Ok(())
    }

    /// A call of each client's that is finished.
    async fn finish_calls(&self, clients: usize) -> Result<()> {
        let mut conn = PgConnection::connect(&self.url).await?;
        let keys: Vec<String> = (0..clients).map(finished).collect();
        sqlx::query(
            "INSERT INTO plain.operation (key, status, fingerprint, started_at, result)
             SELECT key, 'finished', sha256(key::bytea), now(), $2 FROM unnest($1) AS key",
        )
        .bind(keys)
        .bind(ANSWER)
        .execute(&mut conn)
        .await?;
        Ok(())
    }

    /// Scripts per second, by as many clients as there are callers.
    pub(crate) async fn rate(&self, work: Work, load: Load) -> Result<f64> {
        self.clear().await?;
        if work == Work::Replay {
            self.finish_calls(load.callers).await?;
        }
        let folder = TempDir::new()?;
        let file = folder.path().join("script.sql");
        fs::write(&file, script(work))?;
        // It counts in whole seconds.
        let seconds = load.duration.as_secs_f64().ceil().max(1.0);
        let output = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .args([format!("--client={}", load.callers), format!("--time={seconds}")])
            .args([format!("--define=value={VALUE}"), format!("--define=answer={ANSWER}")])
            .arg(format!("--file={}", file.display()))
            .arg(&self.url)
            .output()
            .await
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        scripts_per_second(&output)
    }
}

fn script(work: Work) -> String {
    // Keys are as unlikely to meet as those of evenkeel.
    let fresh_key = r"\set key random(1, 9223372036854775807)";
    match work {
        Work::Put => format!(
            "{fresh_key}
             INSERT INTO plain.record AS r (key, value, version) VALUES (:key, :value, 1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = r.version + 1;"
        ),
        Work::ClaimAndFinish => format!(
            "{fresh_key}
             INSERT INTO plain.record (key, value, version) VALUES (:key, :value, 1) ON CONFLICT DO NOTHING;
             UPDATE plain.record SET value = :value, version = 2 WHERE key = :key AND version = 1;"
        ),
        Work::Append(events) => {
            let id = "'0192f0c1-22c4-7bb0-9ad4-4f3b1d0e6a11'";
            let row = format!("(:stream, {id}, '{KIND}', 'application/json', :value, now(), {id})");
            format!(
                "\\set stream random(1, {STREAMS})
                 INSERT INTO plain.event (stream, id, kind, content_type, payload, recorded_at, batch)
                 VALUES {};",
                vec![row; events].join(", ")
            )
        }
        Work::PushLeaseAck => format!(
            "{fresh_key}
             INSERT INTO plain.job (queue, id, due, payload) VALUES (:client_id, :key, now(), :value)
             ON CONFLICT DO NOTHING;
             UPDATE plain.job
             SET attempt = attempt + 1, token = gen_random_uuid(), leased_until = now() + interval '30 s'
             WHERE queue = :client_id AND id = (
                 SELECT id FROM plain.job
                 WHERE queue = :client_id AND due <= now() AND (leased_until IS NULL OR leased_until <= now())
                 ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED
             ) RETURNING id, token, payload \\gset
             DELETE FROM plain.job WHERE queue = :client_id AND id = :id AND token = :token;"
        ),
        Work::Fresh => format!("{fresh_key}{CLAIM}{FINISH}"),
        Work::FreshWithRow => format!(
            "{fresh_key}{CLAIM}
             BEGIN;
             INSERT INTO plain.effect (key, note) VALUES (:key, 'done');{FINISH}
             COMMIT;"
        ),
        Work::Replay => {
            let key = "'finished-' || :client_id";
            format!("SELECT status, fingerprint, result FROM plain.operation WHERE key = {key};")
        }
    }
}

/// Of what it prints: `tps = 1234.567890 (without initial connection time)`.
fn scripts_per_second(output: &Output) -> Result<f64> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let tps = printed.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match tps.filter(|_| output.status.success()) {
        Some(tps) => Ok(tps),
        None => Err(format!("pgbench: {}{printed}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
