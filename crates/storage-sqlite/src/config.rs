use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::SqliteStore;
use crate::error::SqlxResult;

/// How to open a [`SqliteStore`].
///
/// | setting | default |
/// |---|---|
/// | [`partitions`](Self::partitions) | 1; fixed when the store is created |
/// | [`synchronous`](Self::synchronous) | `Full`: a commit survives a crash of the machine |
/// | [`readers`](Self::readers) | 4 connections |
/// | [`busy_timeout`](Self::busy_timeout) | 5 s: how long to wait for another process's write |
/// | [`max_hold`](Self::max_hold) | 30 s: how long a door-2 transaction may keep the others waiting |
/// | [`max_skew`](Self::max_skew) | 30 s: how long `sweep` leaves expired records |
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    options: SqliteConnectOptions,
    mode: Mode,
    readers: u32,
    pub(crate) partitions: u32,
    pub(crate) synchronous: Synchronous,
    pub(crate) max_hold: Duration,
    pub(crate) max_skew: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    File,
    ReadOnlyFile,
    Memory,
}

/// When a commit is safe on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Before it returns: it survives a crash of the machine.
    Full,
    /// Soon: it survives a crash of the process; a crash of the machine may take the latest back.
    Normal,
}

impl SqliteConfig {
    /// The settings for a URL: `sqlite://path.db` (made where it does not exist),
    /// `sqlite://path.db?mode=rw` (must exist), `sqlite://path.db?mode=ro` (only reads),
    /// `sqlite::memory:` (a database of its own, gone with the last handle).
    ///
    /// # Errors
    /// `Config` where the URL is not one of SQLite's.
    pub fn new(url: &str) -> Result<Self> {
        let config_error =
            |message| Error::new(ErrorKind::Config, message).with("url", format_args!("{url:?}"));
        if !url.starts_with("sqlite:") {
            return Err(config_error("a sqlite url begins with \"sqlite:\""));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|source| config_error("the database url is not valid").with_source(source))?;
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let has = |parameter| query.split('&').any(|given| given == parameter);
        let mode = if url.contains(":memory:") || has("mode=memory") {
            Mode::Memory
        } else if has("mode=ro") {
            Mode::ReadOnlyFile
        } else {
            Mode::File
        };
        let creates = mode == Mode::File && !query.split('&').any(|given| given.starts_with("mode="));
        let options = if creates { options.create_if_missing(true) } else { options };
        Ok(Self {
            options: options.busy_timeout(Duration::from_secs(5)),
            mode,
            readers: 4,
            partitions: 1,
            synchronous: Synchronous::Full,
            max_hold: Duration::from_secs(30),
            max_skew: Duration::from_secs(30),
            clock: SystemClock::shared(),
        })
    }

    /// How many partitions a namespace has. They share one writer, so more than one pays only
    /// where the data is to move to another store later.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// When a commit is safe on disk.
    #[must_use]
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How many connections read; at least 1.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// How long a statement waits for another process that writes.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.busy_timeout(timeout);
        self
    }

    /// How long a door-2 transaction may keep the other writers waiting before they fail with
    /// `Unavailable`, and its own connection is refused.
    #[must_use]
    pub const fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = max_hold;
        self
    }

    /// How long ago a record must have expired for `sweep` to reclaim it.
    #[must_use]
    pub const fn max_skew(mut self, max_skew: Duration) -> Self {
        self.max_skew = max_skew;
        self
    }

    /// The clock that bounds how long a transaction is held.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the store and brings its schema up to date.
    ///
    /// Needs a tokio runtime, which the store's writer task stays on.
    ///
    /// # Errors
    /// `Config` where the store was created with another number of partitions, the file cannot be
    /// opened, or a newer evenkeel wrote it; `Corrupt` where the file is no database or damaged;
    /// `Unavailable` where it is locked.
    pub async fn open(self) -> Result<SqliteStore> {
        SqliteStore::connect(self).await
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The one connection that writes.
    pub(crate) async fn writer_pool(&self) -> Result<SqlitePool> {
        let options = match self.mode {
            Mode::File => self.options.clone().journal_mode(SqliteJournalMode::Wal),
            Mode::Memory | Mode::ReadOnlyFile => self.options.clone(),
        };
        let synchronous = match self.synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        };
        let options = options
            .synchronous(synchronous)
            .pragma("cache_size", CACHE_KIB)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
        // Where several open a new file at once, sqlite refuses all but one the switch to WAL, without
        // waiting for its busy timeout.
        for _ in 0..OPEN_ATTEMPTS {
            match pool(1).connect_with(options.clone()).await.or_store_error("opening") {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    SystemClock::shared().sleep(OPEN_DELAY).await;
                }
                opened => return opened,
            }
        }
        pool(1).connect_with(options).await.or_store_error("opening")
    }

    /// The connections that read; they cannot write.
    pub(crate) async fn reader_pool(&self) -> Result<SqlitePool> {
        let options = match self.mode {
            Mode::Memory => self.options.clone().pragma("query_only", "1"),
            Mode::File | Mode::ReadOnlyFile => self.options.clone().read_only(true).create_if_missing(false),
        };
        pool(self.readers).connect_with(options).await.or_store_error("opening")
    }
}

/// 64 MiB: a fold touches pages all over the tables. (Negative means KiB.)
const CACHE_KIB: &str = "-65536";

/// 64 MiB of log: a page that many folds touch is copied back once. SQLite's 4 MiB would be copied
/// back every few folds.
const CHECKPOINT_PAGES: &str = "16384";

/// How often opening a file that is busy is repeated, and how long after.
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_DELAY: Duration = Duration::from_millis(10);

fn pool(connections: u32) -> SqlitePoolOptions {
    // A connection to a file cannot go stale, and an in-memory database lives as long as its
    // connections.
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}
