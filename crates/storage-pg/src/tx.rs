use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, Partition, Result, Session, Store, Timestamp, Transactional, Tx,
};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::PgStore;
use crate::commit::apply_on;
use crate::config::millis;
use crate::error::{NO_STORE, SqlxResult};
use crate::store::Shared;

/// A door-2 transaction: nothing until the user connects, then a connection of its own.
struct PgSession {
    shared: Arc<Shared>,
    connection: Connection,
}

enum Connection {
    NotTaken,
    Held(Held),
    /// It was held for too long, and is rolled back.
    Expired,
}

struct Held {
    tx: Transaction<'static, Postgres>,
    /// No statement may be begun from this instant on.
    until: Timestamp,
}

#[async_trait]
impl Session<PgConnection> for PgSession {
    async fn connect(&mut self, hold_for: Duration) -> Result<&mut PgConnection> {
        if let Connection::NotTaken = self.connection {
            self.connection = Connection::Held(Held::begin(&self.shared, hold_for).await?);
        }
        if matches!(&self.connection, Connection::Held(held) if held.until <= self.shared.database.clock.now())
        {
            self.connection = Connection::Expired;
        }
        match &mut self.connection {
            Connection::Held(held) => Ok(&mut held.tx),
            Connection::NotTaken | Connection::Expired => Err(expired()),
        }
    }
}

impl Held {
    /// Begins a transaction that the server ends by itself where its holder hangs or goes silent.
    async fn begin(shared: &Shared, hold_for: Duration) -> Result<Self> {
        let hold_for = hold_for.min(shared.max_hold);
        let until = shared.database.clock.now() + hold_for;
        let limit = millis(hold_for);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit}"
        );
        let transactions = shared.transactions.clone();
        // In a task, since a connection whose beginning is cut off would go back as if it were not in a
        // transaction.
        let begun = tokio::spawn(async move { transactions.begin_with(AssertSqlSafe(begin)).await }).await;
        let cut_off =
            |_| Error::new(ErrorKind::Unavailable, "beginning a transaction was cut off by a shutdown");
        Ok(Self { tx: begun.map_err(cut_off)?.or_store_error("beginning")?, until })
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::Unavailable, "the transaction was held for longer than it may, and is rolled back")
}

/// Through door 2 the user's SQL runs in a transaction at READ COMMITTED, on a connection from a pool
/// that nothing else uses. No statement of it may take longer than it may be held; after
/// [`PgConfig::max_hold`](crate::PgConfig::max_hold), or when a capability's lease ends, the
/// connection is refused to its user. Nested transactions become savepoints; `COMMIT` and `ROLLBACK`
/// by hand are not for the user to send.
impl Transactional for PgStore {
    type Conn = PgConnection;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<PgConnection>> {
        self.info().check_partition(&at)?;
        self.shared.database.check_clock()?;
        let session = PgSession { shared: Arc::clone(&self.shared), connection: Connection::NotTaken };
        Ok(Tx::new(Batch::new(at, now), session))
    }

    async fn finish(&self, tx: Tx<PgConnection>) -> Result<Committed> {
        let (batch, session) = tx.into_session::<PgSession>()?;
        if session.shared.id != self.shared.id {
            return Err(Error::new(ErrorKind::InvalidInput, "the transaction was begun by another store"));
        }
        match session.connection {
            Connection::NotTaken => self.commit(batch).await,
            Connection::Held(held) => {
                batch.validate(&self.info().limits)?;
                self.commit_on(held.tx, batch, None).await
            }
            Connection::Expired => Err(expired()),
        }
    }

    async fn rollback(&self, tx: Tx<PgConnection>) {
        if let Ok((_, PgSession { connection: Connection::Held(held), .. })) = tx.into_session() {
            self.shared.roll_back(held.tx).await;
        }
    }
}

impl PgStore {
    /// Judges and applies `batch` in a transaction that the user owns, and commits both.
    ///
    /// The transaction must be at READ COMMITTED, in this store's database. Dropping the future does
    /// not cancel a commit that has begun.
    ///
    /// # Errors
    /// Those of [`Store::commit`], and `InvalidInput` where the isolation is stricter, since that
    /// judges a stale snapshot, or the database is another one. After any error but
    /// `OutcomeUnknown`, both are rolled back.
    pub async fn commit_with(&self, tx: Transaction<'static, Postgres>, batch: Batch) -> Result<Committed> {
        self.info().check_partition(batch.at())?;
        batch.validate(&self.info().limits)?;
        self.commit_on(tx, batch, Some(self.shared.id)).await.map_err(|error| match error.message() {
            // Its own database has one.
            NO_STORE => {
                Error::new(ErrorKind::InvalidInput, "the transaction is on another database than the store")
                    .with_source(error)
            }
            _ => error,
        })
    }

    async fn commit_on(
        &self,
        tx: Transaction<'static, Postgres>,
        batch: Batch,
        store: Option<Uuid>,
    ) -> Result<Committed> {
        let shared = Arc::clone(&self.shared);
        let commit = async move { shared.commit_on(tx, &batch, store).await };
        let cut_off = |_| Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown");
        tokio::spawn(commit).await.unwrap_or_else(|error| Err(cut_off(error)))
    }
}

impl Shared {
    async fn commit_on(
        &self,
        mut tx: Transaction<'static, Postgres>,
        batch: &Batch,
        store: Option<Uuid>,
    ) -> Result<Committed> {
        match apply_on(&mut tx, &self.database, store, batch).await {
            Ok(committed) => {
                self.database.in_time(tx.commit()).await.or_commit_error("committing")?;
                self.announcer.announce(std::iter::once(batch));
                Ok(committed)
            }
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        }
    }

    async fn roll_back(&self, tx: Transaction<'static, Postgres>) {
        if let Err(error) = self.database.in_time(tx.rollback()).await {
            tracing::debug!(%error, "rolling back failed; the server does it when the connection closes");
        }
    }
}
