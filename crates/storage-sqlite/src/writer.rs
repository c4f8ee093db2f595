//! The one thread that writes. Requests that wait at the same moment are folded into one transaction:
//! judged first, written after, and told their verdicts only once it is committed.
//!
//! ```text
//!  commit ─┐                      ┌─ fold ── BEGIN · load · judge each · flush · lease · COMMIT ── verdicts
//!  lease  ─┼── one line, in order ┤
//!  sweep  ─┤                      └─ hold ── BEGIN · the user's SQL ··· judge · flush · COMMIT ── verdict
//!  connect ┘
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    Batch, Clock, Committed, Error, ErrorKind, Lease, Leased, Partition, Result, SignalHub, Timestamp, judge,
};
use rusqlite::Connection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Mode, Synchronous};
use crate::error::{SqlResult, parse_commit_error};
use crate::hold::Held;
use crate::readers::Readers;
use crate::sql::Sql;
use crate::working_set::WorkingSet;
use crate::{queue, sweep};

/// The most requests in one physical transaction.
const MAX_FOLD: usize = 256;

/// The most bytes of batches in one physical transaction, so that a fold of large values does not
/// keep small ones waiting.
const MAX_FOLD_BYTES: usize = 4_000_000;

/// What waits in the writer's line.
#[derive(Debug)]
pub(crate) enum Request {
    Commit(Asked<Batch, Committed>),
    Lease(Asked<(Partition, Lease), Leased>),
    Sweep(Asked<Sweep, usize>),
    /// The connection itself.
    Connect(Asked<Connect, Held>),
}

/// A request and whom to tell.
#[derive(Debug)]
pub(crate) struct Asked<W, T> {
    pub(crate) what: W,
    pub(crate) reply: oneshot::Sender<Result<T>>,
}

impl<W, T> Asked<W, T> {
    /// Tells the caller; one that went away does not want to know.
    pub(crate) fn answer(self, verdict: Result<T>) {
        let _ = self.reply.send(verdict);
    }
}

#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) at: Partition,
    pub(crate) expired_before: Timestamp,
    pub(crate) limit: usize,
}

/// What the connection is wanted for.
#[derive(Debug)]
pub(crate) struct Connect {
    /// It is needed for this long at most.
    pub(crate) hold_for: Duration,
    /// Whether the commit has to be on disk when it returns, as far as is known.
    pub(crate) is_synced: bool,
}

/// The error of a request to a writer that is no more.
pub(crate) fn stopped(kind: ErrorKind) -> Error {
    Error::new(kind, "the store's writer has stopped").with("store", "sqlite")
}

/// The writer's state. Folds run on a connection of its own, on whose thread it is: a statement that
/// had to travel to another thread would cost as much as the disk. What is lent to users is another.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) mode: Mode,
    /// When the commits of its connection are safe, as it was told last.
    pub(crate) level: Synchronous,
    /// When a commit is safe that is to be.
    pub(crate) synchronous: Synchronous,
    /// The file that such a commit is in.
    pub(crate) log: PathBuf,
    pub(crate) lent: SqlitePool,
    pub(crate) readers: Readers,
    pub(crate) signals: SignalHub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_hold: Duration,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
}

impl Writer {
    /// Serves requests until every handle of the store is gone.
    pub(crate) async fn run(mut self) {
        let mut line = VecDeque::new();
        loop {
            if line.is_empty() {
                match self.requests.recv().await {
                    Some(request) => line.push_back(request),
                    None => return,
                }
            }
            self.line_up(&mut line);
            let fold = Fold::take(&mut line);
            if fold.is_empty() {
                if let Some(Request::Connect(asked)) = line.pop_front() {
                    self.hold(asked, &mut line).await;
                }
            } else {
                self.fold(fold).await;
            }
        }
    }

    /// Adds to the line what has arrived.
    pub(crate) fn line_up(&mut self, line: &mut VecDeque<Request>) {
        while let Ok(request) = self.requests.try_recv() {
            line.push_back(request);
        }
    }

    async fn fold(&mut self, fold: Fold) {
        match self.run_fold(&fold).await {
            Ok(verdicts) => self.publish(fold, verdicts),
            // One member may have spoilt it for the others: each gets a transaction of its own.
            Err(Failed::Writing(error)) if fold.len() > 1 => {
                tracing::debug!(%error, members = fold.len(), "running a fold one by one");
                for single in fold.split() {
                    match self.run_fold(&single).await {
                        Ok(verdicts) => self.publish(single, verdicts),
                        Err(failed) => single.fail(&failed.into_error()),
                    }
                }
            }
            Err(failed) => fold.fail(&failed.into_error()),
        }
    }

    async fn run_fold(&mut self, fold: &Fold) -> Result<Verdicts, Failed> {
        self.set_level(fold.is_synced()).map_err(Failed::Beginning)?;
        let connection = &mut self.connection;
        run(connection, "BEGIN IMMEDIATE").or_store_error("beginning").map_err(Failed::Beginning)?;
        let ended = match fold.apply(connection).await {
            Ok(verdicts) if verdicts.changed => run(connection, "COMMIT")
                .map(|()| verdicts)
                .map_err(|error| Failed::Committing(parse_commit_error(error))),
            Ok(verdicts) => Ok(verdicts),
            Err(error) => Err(Failed::Writing(error)),
        };
        // SQLite may have done so by itself.
        if !connection.is_autocommit()
            && let Err(error) = run(connection, "ROLLBACK")
        {
            tracing::warn!(%error, "rolling back failed");
        }
        ended
    }

    /// Lets the connection's next commit wait for the disk where it has to.
    fn set_level(&mut self, is_synced: bool) -> Result<()> {
        let level = self.level_of(is_synced);
        if level != self.level {
            self.connection.execute_batch(level.pragma()).or_store_error("beginning")?;
            self.level = level;
        }
        Ok(())
    }

    pub(crate) fn level_of(&self, is_synced: bool) -> Synchronous {
        if is_synced { self.synchronous } else { Synchronous::Normal }
    }

    fn publish(&self, fold: Fold, verdicts: Verdicts) {
        for (commit, verdict) in fold.commits.into_iter().zip(verdicts.commits) {
            // Who is told that it is committed finds that its hints are given.
            if verdict.is_ok() {
                self.signals.committed(&commit.what);
            }
            commit.answer(verdict);
        }
        for (lease, leased) in fold.leases.into_iter().zip(verdicts.leases) {
            lease.answer(Ok(leased));
        }
        for (sweep, swept) in fold.sweeps.into_iter().zip(verdicts.sweeps) {
            sweep.answer(Ok(swept));
        }
    }
}

/// Requests that share a transaction.
#[derive(Debug, Default)]
struct Fold {
    commits: Vec<Asked<Batch, Committed>>,
    leases: Vec<Asked<(Partition, Lease), Leased>>,
    sweeps: Vec<Asked<Sweep, usize>>,
}

/// What its members are told, in their order.
struct Verdicts {
    commits: Vec<Result<Committed>>,
    leases: Vec<Leased>,
    sweeps: Vec<usize>,
    /// Whether there is anything to commit.
    changed: bool,
}

/// When a fold failed, which says what may have been written.
enum Failed {
    Beginning(Error),
    Writing(Error),
    Committing(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Self::Beginning(error) | Self::Writing(error) | Self::Committing(error) => error,
        }
    }
}

impl Fold {
    /// The requests at the head of the line, up to one that needs the connection for itself.
    fn take(line: &mut VecDeque<Request>) -> Self {
        let mut fold = Self::default();
        let mut bytes = 0;
        while fold.len() < MAX_FOLD && bytes < MAX_FOLD_BYTES {
            match line.pop_front() {
                Some(Request::Commit(commit)) => {
                    bytes += commit.what.bytes();
                    fold.commits.push(commit);
                }
                Some(Request::Lease(lease)) => fold.leases.push(lease),
                Some(Request::Sweep(sweep)) => fold.sweeps.push(sweep),
                Some(connect @ Request::Connect(_)) => {
                    line.push_front(connect);
                    break;
                }
                None => break,
            }
        }
        fold
    }

    fn len(&self) -> usize {
        self.commits.len() + self.leases.len() + self.sweeps.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one of its members has to be on disk when it is answered.
    fn is_synced(&self) -> bool {
        let waits = self.leases.len() + self.sweeps.len() > 0;
        waits || self.commits.iter().any(|commit| commit.what.is_synced())
    }

    /// Its members, each alone.
    fn split(self) -> impl Iterator<Item = Self> {
        let commits =
            self.commits.into_iter().map(|commit| Self { commits: vec![commit], ..Self::default() });
        let leases = self.leases.into_iter().map(|lease| Self { leases: vec![lease], ..Self::default() });
        let sweeps = self.sweeps.into_iter().map(|sweep| Self { sweeps: vec![sweep], ..Self::default() });
        commits.chain(leases).chain(sweeps)
    }

    /// Judges and writes, in the transaction of `conn`.
    async fn apply(&self, conn: &mut impl Sql) -> Result<Verdicts> {
        let mut set = WorkingSet::load(conn, self.commits.iter().map(|commit| &commit.what)).await?;
        let judge = |commit: &Asked<Batch, _>| judge::commit(set.partition(commit.what.at()), &commit.what);
        let commits = self.commits.iter().map(judge).collect();
        set.flush(conn).await?;
        let mut verdicts =
            Verdicts { commits, leases: Vec::new(), sweeps: Vec::new(), changed: set.is_changed() };
        for Asked { what: (at, want), .. } in &self.leases {
            let leased = queue::lease(conn, at, want).await?;
            verdicts.changed |= !leased.jobs.is_empty();
            verdicts.leases.push(leased);
        }
        for Asked { what: Sweep { at, expired_before, limit }, .. } in &self.sweeps {
            let swept = sweep::sweep(conn, at, *expired_before, *limit).await?;
            verdicts.changed |= swept > 0;
            verdicts.sweeps.push(swept);
        }
        Ok(verdicts)
    }

    fn fail(self, error: &Error) {
        self.commits.into_iter().for_each(|commit| commit.answer(Err(error.repeated())));
        self.leases.into_iter().for_each(|lease| lease.answer(Err(error.repeated())));
        self.sweeps.into_iter().for_each(|sweep| sweep.answer(Err(error.repeated())));
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}

/// Judges and applies a batch on a connection that is in a transaction, and commits both.
pub(crate) async fn commit_on(mut tx: Transaction<'static, Sqlite>, batch: &Batch) -> Result<Committed> {
    let loaded = WorkingSet::load(&mut *tx, std::iter::once(batch)).await;
    commit_loaded(tx, loaded, batch).await
}

/// As [`commit_on`], by what was loaded of what the batch names.
pub(crate) async fn commit_loaded(
    mut tx: Transaction<'static, Sqlite>,
    loaded: Result<WorkingSet>,
    batch: &Batch,
) -> Result<Committed> {
    match apply_on(&mut tx, loaded, batch).await {
        Ok(committed) => {
            tx.commit().await.map_err(parse_commit_error)?;
            Ok(committed)
        }
        Err(error) => {
            roll_back(tx).await;
            Err(error)
        }
    }
}

async fn apply_on(
    conn: &mut SqliteConnection,
    loaded: Result<WorkingSet>,
    batch: &Batch,
) -> Result<Committed> {
    let mut set = loaded?;
    let committed = judge::commit(set.partition(batch.at()), batch)?;
    set.flush(conn).await?;
    Ok(committed)
}

pub(crate) async fn roll_back(tx: Transaction<'static, Sqlite>) {
    if let Err(error) = tx.rollback().await {
        tracing::warn!(%error, "rolling back failed; sqlite does it when the connection closes");
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Expect, Key, MemoryStore, StoreExt};
    use tempfile::TempDir;

    use super::*;
    use crate::{SqliteConfig, migrate};

    async fn writer(folder: &TempDir) -> Writer {
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        let config = SqliteConfig::new(&url).unwrap();
        let lent = config.writer_pool().await.unwrap();
        migrate::migrate(&lent, 1).await.unwrap();
        Writer {
            connection: config.writer_connection().unwrap(),
            mode: config.mode(),
            level: config.synchronous,
            synchronous: config.synchronous,
            log: config.log(),
            lent,
            readers: Readers::start(config.reader_connections()).unwrap(),
            signals: SignalHub::default(),
            clock: config.clock,
            max_hold: config.max_hold,
            requests: mpsc::unbounded_channel().1,
        }
    }

    fn batch() -> Batch {
        let mut batch = Batch::new(MemoryStore::new().partition_of("here"), Timestamp::EPOCH);
        batch.put(Key::new("test.record", "group", batch.id().to_string()), "value", Expect::Absent);
        batch
    }

    fn unsynced() -> Batch {
        let mut batch = batch();
        batch.set_unsynced();
        batch
    }

    fn asked<W, T>(what: W) -> Asked<W, T> {
        Asked { what, reply: oneshot::channel().0 }
    }

    fn commits(batches: impl IntoIterator<Item = Batch>) -> Fold {
        Fold { commits: batches.into_iter().map(asked).collect(), ..Fold::default() }
    }

    /// How a fold was committed, which the connection tells until the next one.
    async fn level(writer: &mut Writer, fold: Fold) -> String {
        let verdicts = writer.run_fold(&fold).await.map_err(Failed::into_error).unwrap();
        assert!(verdicts.commits.iter().all(Result::is_ok));
        let level = writer.connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
        match level.unwrap() {
            1 => "normal".into(),
            2 => "full".into(),
            other => other.to_string(),
        }
    }

    #[tokio::test]
    async fn a_fold_waits_for_the_disk_unless_none_of_its_members_has_to() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder).await;
        // Twice, since a statement of the cache would set it only once.
        for _ in 0..2 {
            assert_eq!(level(&mut writer, commits([unsynced(), unsynced()])).await, "normal");
            assert_eq!(level(&mut writer, commits([batch()])).await, "full");
            assert_eq!(level(&mut writer, commits([unsynced(), batch()])).await, "full");
        }
    }

    #[tokio::test]
    async fn a_fold_that_leases_or_sweeps_waits_for_the_disk() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder).await;
        let (at, now) = (batch().at().clone(), Timestamp::EPOCH);
        let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::from_secs(1), now };
        let mut leasing = commits([unsynced()]);
        leasing.leases.push(asked((at.clone(), lease)));
        assert_eq!(level(&mut writer, commits([unsynced()])).await, "normal");
        assert_eq!(level(&mut writer, leasing).await, "full");

        let mut sweeping = commits([unsynced()]);
        sweeping.sweeps.push(asked(Sweep { at, expired_before: now, limit: 1 }));
        assert_eq!(level(&mut writer, commits([unsynced()])).await, "normal");
        assert_eq!(level(&mut writer, sweeping).await, "full");
    }
}
