use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};

use crate::SqliteStore;
use crate::error::SqlResult;

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
    busy_timeout: Duration,
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

impl Synchronous {
    /// What makes it so for the transactions that are begun after it, and is refused within one.
    /// SQLite does it when the statement is prepared: one from the cache does nothing.
    pub(crate) const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "PRAGMA synchronous = FULL",
            Self::Normal => "PRAGMA synchronous = NORMAL",
        }
    }

    /// What begins a transaction that commits so, in one trip to the connection's thread.
    pub(crate) const fn begin(self) -> &'static str {
        match self {
            Self::Full => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
            Self::Normal => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        }
    }
}

impl SqliteConfig {
    /// The settings for a URL: `sqlite://path.db` (made where it does not exist),
    /// `sqlite://path.db?mode=rw` (must exist), `sqlite://path.db?mode=ro` (only reads),
    /// `sqlite::memory:` (a database of its own, gone with the last handle). Other parameters are refused.
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
        if query.split('&').any(|given| !given.is_empty() && !given.starts_with("mode=")) {
            return Err(config_error("the one parameter of a sqlite url is mode"));
        }
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
            options,
            busy_timeout: Duration::from_secs(5),
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
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
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
    /// Needs a tokio runtime, which the connections lent to users stay on.
    ///
    /// # Errors
    /// `Config` where the store was created with another number of partitions, the file cannot be
    /// opened, or a newer evenkeel wrote it; `Corrupt` where the file is no database or damaged;
    /// `Unavailable` where it is locked.
    pub async fn open(self) -> Result<SqliteStore> {
        SqliteStore::connect(self).await
    }

    fn options(&self) -> SqliteConnectOptions {
        self.options.clone().busy_timeout(self.busy_timeout)
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Where SQLite keeps what is committed and not in the database's own file yet.
    pub(crate) fn log(&self) -> PathBuf {
        let mut log = self.options.get_filename().as_os_str().to_owned();
        log.push("-wal");
        // The process may move to another folder.
        std::path::absolute(&log).unwrap_or_else(|_| log.into())
    }

    /// The connection that the writer folds on, once the database is there.
    pub(crate) fn writer_connection(&self) -> Result<Connection> {
        self.connection(OpenFlags::SQLITE_OPEN_READ_WRITE, &self.writer_pragmas())
    }

    /// The connections that read; they cannot write.
    pub(crate) fn reader_connections(&self) -> impl Iterator<Item = Result<Connection>> {
        let flags = match self.mode {
            // Not read-only, to be the same database.
            Mode::Memory => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Mode::File | Mode::ReadOnlyFile => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        (0..self.readers).map(move |_| self.connection(flags, &[("query_only", "1")]))
    }

    fn connection(
        &self,
        mut flags: OpenFlags,
        pragmas: &[(&'static str, &'static str)],
    ) -> Result<Connection> {
        flags |= OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if self.mode == Mode::Memory {
            // As the others open it, to be the same database.
            flags |= OpenFlags::SQLITE_OPEN_MEMORY | OpenFlags::SQLITE_OPEN_SHARED_CACHE;
        }
        let connection = Connection::open_with_flags(self.options.get_filename(), flags);
        let connection = connection.and_then(|connection| {
            connection.busy_timeout(self.busy_timeout)?;
            connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
            // A statement is planned once, not anew for what it is given.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            for (pragma, value) in pragmas {
                connection.pragma_update(None, pragma, value)?;
            }
            Ok(connection)
        });
        connection.or_store_error("opening")
    }

    const fn writer_pragmas(&self) -> [(&'static str, &'static str); 3] {
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        [("synchronous", synchronous), ("cache_size", CACHE_KIB), ("wal_autocheckpoint", CHECKPOINT_PAGES)]
    }

    /// The connection that is lent to users, and makes the database what it is.
    pub(crate) async fn writer_pool(&self) -> Result<SqlitePool> {
        let options = match self.mode {
            Mode::File => self.options().journal_mode(SqliteJournalMode::Wal),
            Mode::Memory | Mode::ReadOnlyFile => self.options(),
        };
        let set = |options: SqliteConnectOptions, (pragma, value)| options.pragma(pragma, value);
        let options = self.writer_pragmas().into_iter().fold(options, set);
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

    /// A connection to look at a database that is only read.
    pub(crate) async fn inspector(&self) -> Result<SqliteConnection> {
        let options = self.options().read_only(true).create_if_missing(false);
        options.connect().await.or_store_error("opening")
    }
}

/// 64 MiB: a fold touches pages all over the tables. (Negative means KiB.)
const CACHE_KIB: &str = "-65536";

/// 64 MiB of log: a page that many folds touch is copied back once. SQLite's 4 MiB would be copied
/// back every few folds.
const CHECKPOINT_PAGES: &str = "16384";

/// More than there are texts of statements.
const PREPARED_STATEMENTS: usize = 64;

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
