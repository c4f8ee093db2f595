use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::PgStore;
use crate::connections::Connections;
use crate::statement::{Protocol, Schema};

/// How to open a [`PgStore`].
///
/// | setting | default |
/// |---|---|
/// | [`schema`](Self::schema) | `evenkeel`; several stores in one database need several schemas |
/// | [`partitions`](Self::partitions) | 1; fixed when the store is created |
/// | [`connections`](Self::connections) | 16 at most, for commits, leases and reads |
/// | [`transactions`](Self::transactions) | 16 connections at most, for door 2 |
/// | [`pooled`](Self::pooled) | not set: the server is reached directly, or through a proxy that pools sessions |
/// | [`direct_url`](Self::direct_url) | the store's url; where signals are listened for |
/// | [`acquire_timeout`](Self::acquire_timeout) | 5 s: how long to wait for a connection |
/// | [`statement_timeout`](Self::statement_timeout) | 30 s: how long a statement may take |
/// | [`max_hold`](Self::max_hold) | 30 s: how long a door-2 transaction may last |
/// | [`max_skew`](Self::max_skew) | 30 s: how far this machine's clock and the server's may be apart |
///
/// What is set in code is given in code; the URL is libpq's: `postgres://user@host:5432/database`,
/// with `sslmode`, `sslrootcert` and the like as parameters.
#[derive(Clone)]
pub struct PgConfig {
    options: PgConnectOptions,
    direct: Option<PgConnectOptions>,
    connections: u32,
    transactions: u32,
    acquire_timeout: Duration,
    checks_clock: bool,
    pub(crate) protocol: Protocol,
    pub(crate) schema: Schema,
    pub(crate) partitions: u32,
    pub(crate) statement_timeout: Duration,
    pub(crate) max_hold: Duration,
    pub(crate) max_skew: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

impl PgConfig {
    /// The settings for a URL. The schemes `postgres`, `postgresql` and `pg` are the same.
    ///
    /// # Errors
    /// `Config` where the URL is not one of PostgreSQL's.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            options: parse_url(url)?,
            direct: None,
            connections: 16,
            transactions: 16,
            acquire_timeout: Duration::from_secs(5),
            checks_clock: true,
            protocol: Protocol::Prepared,
            schema: Schema::parse(Schema::DEFAULT).expect("the default schema is a valid one"),
            partitions: 1,
            statement_timeout: Duration::from_secs(30),
            max_hold: Duration::from_secs(30),
            max_skew: Duration::from_secs(30),
            clock: SystemClock::shared(),
        })
    }

    /// The schema that the store lives in; made where it does not exist.
    ///
    /// # Errors
    /// `Config` where it is not 1 to 48 lower-case letters, digits and underscores, beginning with
    /// no digit.
    pub fn schema(mut self, schema: &str) -> Result<Self> {
        self.schema = Schema::parse(schema).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "a schema is 1 to 48 lower-case letters, digits and '_', and begins with no digit",
            )
            .with("schema", format_args!("{schema:?}"))
        })?;
        Ok(self)
    }

    /// How many partitions a namespace has. Each appends to a log of its own, so more than one lets
    /// appenders run side by side.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The most connections for commits, leases and reads; at least 1. They are opened as they are
    /// needed.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// The most connections for transactions of door 2, at least 1: apart from the others, so that
    /// handlers that hold theirs for long cannot keep leases from being renewed.
    #[must_use]
    pub fn transactions(mut self, transactions: u32) -> Self {
        self.transactions = transactions.max(1);
        self
    }

    /// The URL leads to a proxy that pools transactions, such as pgbouncer with
    /// `pool_mode = transaction`: no statement is prepared, and nothing is kept on a connection. Give
    /// a [`direct_url`](Self::direct_url) too, or hints from other processes stay out.
    ///
    /// The user's own statements in door 2 are sent as they are: where the proxy does not follow
    /// prepared statements either, send them with sqlx's `persistent(false)`.
    #[must_use]
    pub const fn pooled(mut self) -> Self {
        self.protocol = Protocol::Text;
        self
    }

    /// A URL of the same database that leads to no proxy, to listen for signals on.
    ///
    /// # Errors
    /// `Config` where the URL is not one of PostgreSQL's.
    pub fn direct_url(mut self, url: &str) -> Result<Self> {
        self.direct = Some(parse_url(url)?);
        Ok(self)
    }

    /// How long to wait for a connection, and for a server that is starting, before `Unavailable`.
    #[must_use]
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long one statement of the store may take. The server is told, except through a proxy that
    /// pools transactions; callers are let go in any case.
    #[must_use]
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// How long a door-2 transaction may last before its connection is refused to its user and the
    /// server ends it.
    #[must_use]
    pub const fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = max_hold;
        self
    }

    /// How far this machine's clock and the server's may be apart before calls are refused, and how
    /// long ago a record must have expired for `sweep` to reclaim it.
    #[must_use]
    pub const fn max_skew(mut self, max_skew: Duration) -> Self {
        self.max_skew = max_skew;
        self
    }

    /// The clock that is compared with the server's and that bounds how long is waited.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Does not compare the clock with the server's: for tests that live in a time of their own.
    #[must_use]
    pub const fn unchecked_clock(mut self) -> Self {
        self.checks_clock = false;
        self
    }

    /// Opens the store and brings its schema up to date; any number of processes may do so at once.
    ///
    /// Needs a tokio runtime, which the store's short tasks run on.
    ///
    /// # Errors
    /// `Config` where the store was created with another number of partitions, a newer evenkeel wrote
    /// it, the server refuses the role, its clock is too far off, or its version or settings are not
    /// fit; `Unavailable` where the server cannot be reached.
    pub async fn open(self) -> Result<PgStore> {
        PgStore::connect(self).await
    }

    pub(crate) const fn checks_clock(&self) -> bool {
        self.checks_clock
    }

    /// The connections for commits, leases and reads.
    pub(crate) fn connections_for_calls(&self) -> Arc<Connections> {
        let settings = [("statement_timeout", millis(self.statement_timeout))];
        self.connections_with(self.connections, &settings)
    }

    /// The connections for door 2.
    pub(crate) fn connections_for_transactions(&self) -> Arc<Connections> {
        let limit = millis(self.max_hold);
        let settings = [("statement_timeout", limit), ("idle_in_transaction_session_timeout", limit)];
        self.connections_with(self.transactions, &settings)
    }

    /// The one connection that listens; `None` where only a proxy is known, whose connections belong
    /// to others between transactions.
    pub(crate) fn listener_pool(&self) -> Option<PgPool> {
        let options = match (&self.direct, self.protocol) {
            (Some(direct), _) => direct.clone(),
            (None, Protocol::Prepared) => self.options.clone(),
            (None, Protocol::Text) => return None,
        };
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        Some(pool.acquire_timeout(self.acquire_timeout).connect_lazy_with(options))
    }

    /// At most so many connections, which begin with these settings unless a proxy shares them out.
    fn connections_with(&self, most: u32, settings: &[(&str, i32)]) -> Arc<Connections> {
        let options = match self.protocol {
            // Sent with the connection itself, so that they cost no round trip.
            Protocol::Prepared => {
                let isolation = [("default_transaction_isolation", "read committed")];
                self.options.clone().options(isolation).options(settings.iter().copied())
            }
            // The text of a statement carries the values, which are nobody's business in a log.
            Protocol::Text => self
                .options
                .clone()
                .statement_cache_capacity(0)
                .extra_float_digits(None::<i8>)
                .disable_statement_logging(),
        };
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(self.acquire_timeout)
            // A connection that was just used is good; one that has rested is asked.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= RESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Connections::new(pool, most, self.acquire_timeout, Arc::clone(&self.clock))
    }
}

/// A limit as the server takes it, to which 0 means none.
pub(crate) fn millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

impl Debug for PgConfig {
    /// Without the URLs, which may carry passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgConfig")
            .field("host", &self.options.get_host())
            .field("database", &self.options.get_database())
            .field("schema", &self.schema.name())
            .field("partitions", &self.partitions)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// After how long without use a connection is tested before it is used again.
const RESTED: Duration = Duration::from_secs(1);

fn parse_url(url: &str) -> Result<PgConnectOptions> {
    // A URL may carry a password, so it is not shown.
    let invalid = |message| Error::new(ErrorKind::Config, message);
    let rest = url.strip_prefix("pg://").map(|rest| format!("postgres://{rest}"));
    let url = rest.as_deref().unwrap_or(url);
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("a pg url begins with \"pg://\", \"postgres://\" or \"postgresql://\""));
    }
    PgConnectOptions::from_str(url)
        .map_err(|source| invalid("the database url is not valid").with_source(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_of_three_schemes() {
        for good in ["pg://h/d", "postgres://u:p@h:5433/d?sslmode=require", "postgresql://h"] {
            assert!(PgConfig::new(good).is_ok(), "{good}");
        }
        for bad in ["", "h/d", "mysql://h/d", "pg:", "postgres://h:port/d"] {
            let error = PgConfig::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_password() {
        let config = PgConfig::new("pg://u:secret@h/d").unwrap().direct_url("pg://u:secret@h/d").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        for bad in ["mysql://u:secret@h/d", "pg://u:secret@h:port/d"] {
            let error = PgConfig::new(bad).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"));
        }
    }

    #[test]
    fn a_limit_is_never_none() {
        for (limit, expected) in
            [(Duration::ZERO, 1), (Duration::from_secs(2), 2_000), (Duration::MAX, i32::MAX)]
        {
            assert_eq!(millis(limit), expected);
        }
    }
}
