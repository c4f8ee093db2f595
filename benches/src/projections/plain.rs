//! What a careful team would write by hand: events in a table, read 2,000 at a time and added up in one
//! statement, in a transaction with the position, which does not wait for the disk where the log does.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::catch_up::{Model, STREAMS};
use super::latency::paced;
use super::models::{Deposited, TABLE, add_on_pg, add_on_sqlite};
use crate::Result;
use crate::measure::now;
use crate::server::{Server, sqlite_url};

const PAGE: i64 = 2_000;

const LOG: &str = "CREATE TABLE IF NOT EXISTS plain_log \
    (position BIGINT PRIMARY KEY, stream TEXT NOT NULL, payload TEXT NOT NULL)";
const POSITION: &str = "CREATE TABLE IF NOT EXISTS plain_position (position BIGINT NOT NULL)";
const READ: &str =
    "SELECT position, stream, payload FROM plain_log WHERE position > $1 ORDER BY position LIMIT $2";

const UPDATE: &str = "UPDATE plain_position SET position = $1";
const APPEND: &str = "INSERT INTO plain_log VALUES ($1, $2, $3)";

/// Applies a page after a position; evaluates to the position that is reached, where there was anything.
///
/// Macros, since two databases have two types of everything, and the same statements.
macro_rules! apply_page {
    ($conn:expr, $add:expr, $model:expr, $position:expr) => {{
        let rows = sqlx::query(READ).bind($position).bind(PAGE).fetch_all(&mut *$conn).await?;
        match rows.last().map(|last| last.get::<i64, _>(0)) {
            None => None,
            Some(reached) => {
                let mut tx = $conn.begin().await?;
                if $model == Model::Rows {
                    let sums = sums(rows.iter().map(|row| (row.get(1), row.get(2))))?;
                    $add(sums, &mut tx).await?;
                }
                sqlx::query(UPDATE).bind(reached).execute(&mut *tx).await?;
                tx.commit().await?;
                Some(reached)
            }
        }
    }};
}

macro_rules! begin_anew {
    ($conn:expr) => {
        for statement in TABLE.into_iter().chain(["DELETE FROM plain_position"]) {
            $conn.execute(statement).await?;
        }
        $conn.execute("INSERT INTO plain_position VALUES (0)").await?;
    };
}

macro_rules! project {
    ($conn:expr, $add:expr, $model:expr, $events:expr) => {{
        let conn = &mut *$conn;
        begin_anew!(conn);
        let (began, mut position) = (now(), 0_i64);
        while let Some(reached) = apply_page!(conn, $add, $model, position) {
            position = reached;
        }
        Ok($events as f64 / began.elapsed().as_secs_f64())
    }};
}

macro_rules! follow {
    ($log:expr, $conn:expr, $add:expr, $events:expr, $pace:expr) => {{
        let (log, conn) = (&mut *$log, &mut *$conn);
        begin_anew!(conn);
        let mut position = i64::try_from($events)?;
        paced($pace, async |n| {
            let stream = format!("account-{}", n % STREAMS);
            let append = sqlx::query(APPEND).bind(position + 1).bind(stream).bind(r#"{"cents":5}"#);
            append.execute(&mut *log).await?;
            let returned = now();
            position =
                apply_page!(conn, $add, Model::Rows, position).ok_or("what was appended is not there")?;
            Ok(returned.elapsed())
        })
        .await
    }};
}

/// A database with as many events, a connection that appends to them, and one that adds them up.
pub(crate) enum Plain {
    Pg {
        log: Box<Mutex<PgConnection>>,
        model: Box<Mutex<PgConnection>>,
        events: usize,
    },
    Sqlite {
        log: Box<Mutex<SqliteConnection>>,
        model: Box<Mutex<SqliteConnection>>,
        events: usize,
        /// Goes with it.
        _folder: TempDir,
    },
}

impl Plain {
    pub(crate) async fn open(server: &Server, events: usize) -> Result<Option<Self>> {
        Ok(match server {
            Server::Pg { postgres, .. } => {
                let mut log = PgConnection::connect(&postgres.url()).await?;
                let mut model = PgConnection::connect(&postgres.url()).await?;
                model.execute("SET synchronous_commit = off").await?;
                let fill = format!(
                    "INSERT INTO plain_log SELECT n, 'account-' || n % {STREAMS}, '{{\"cents\":5}}' \
                     FROM generate_series(1, {events}) n"
                );
                // The server may have one of an earlier case.
                for statement in [LOG, "TRUNCATE plain_log", POSITION, &fill] {
                    log.execute(sqlx::AssertSqlSafe(statement.to_owned())).await?;
                }
                Some(Self::Pg { log: Box::new(Mutex::new(log)), model: Box::new(Mutex::new(model)), events })
            }
            Server::Sqlite => {
                let folder = TempDir::new()?;
                let url = format!("{}?mode=rwc", sqlite_url(&folder));
                let mut log = SqliteConnection::connect(&url).await?;
                let fill = format!(
                    "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {events}) \
                     INSERT INTO plain_log SELECT n, 'account-' || n % {STREAMS}, '{{\"cents\":5}}' FROM n"
                );
                let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
                for statement in [settings, LOG, POSITION, &fill] {
                    log.execute(sqlx::AssertSqlSafe(statement.to_owned())).await?;
                }
                let mut model = SqliteConnection::connect(&url).await?;
                model.execute("PRAGMA synchronous = NORMAL").await?;
                let (log, model) = (Box::new(Mutex::new(log)), Box::new(Mutex::new(model)));
                Some(Self::Sqlite { log, model, events, _folder: folder })
            }
            Server::Memory | Server::Redis { .. } | Server::Dynamo => None,
        })
    }

    /// Events a second, from the first to the last, added up or only counted.
    pub(crate) async fn rate(&self, what: Model) -> Result<f64> {
        match self {
            Self::Pg { model, events, .. } => project!(model.lock().await, add_on_pg, what, *events),
            Self::Sqlite { model, events, .. } => {
                project!(model.lock().await, add_on_sqlite, what, *events)
            }
        }
    }

    /// How long after an append has returned its event is added up, where nobody has to be told.
    pub(crate) async fn waits(&self, duration: Duration) -> Result<Vec<f64>> {
        match self {
            Self::Pg { log, model, events } => {
                follow!(log.lock().await, model.lock().await, add_on_pg, *events, duration)
            }
            Self::Sqlite { log, model, events, .. } => {
                follow!(log.lock().await, model.lock().await, add_on_sqlite, *events, duration)
            }
        }
    }
}

fn sums(events: impl Iterator<Item = (String, String)>) -> Result<HashMap<String, i64>> {
    let mut sums = HashMap::new();
    for (stream, payload) in events {
        *sums.entry(stream).or_default() += serde_json::from_str::<Deposited>(&payload)?.cents;
    }
    Ok(sums)
}
