use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, Partition, Result, Session, Store, Timestamp, Transactional, Tx,
};
use sqlx::{AssertSqlSafe, Database, PgConnection, Postgres, SqlSafeStr, Transaction};
use sqlx_core::transaction::TransactionManager;
use uuid::Uuid;

use crate::PgStore;
use crate::commit::apply_on;
use crate::config::millis;
use crate::connections::Lent;
use crate::error::{NO_STORE, SqlxResult};
use crate::statement::Protocol;
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
    tx: OwnTransaction,
    /// No statement may be begun from this instant on.
    until: Timestamp,
}

/// A transaction on a connection of the store's. Dropped, it is rolled back.
struct OwnTransaction(Option<Lent>);

type Manager = <Postgres as Database>::TransactionManager;

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
            Connection::Held(held) => Ok(held.tx.connection()),
            Connection::NotTaken | Connection::Expired => Err(expired()),
        }
    }
}

impl Held {
    /// Begins a transaction that the server ends by itself where its holder hangs or goes silent.
    async fn begin(shared: &Shared, hold_for: Duration) -> Result<Self> {
        let hold_for = hold_for.min(shared.max_hold);
        let until = shared.database.clock.now() + hold_for;
        // Most are held for as long as the connection's settings say anyhow.
        let is_set = hold_for == shared.max_hold && shared.database.protocol == Protocol::Prepared;
        let begin = if is_set {
            "BEGIN".into_sql_str()
        } else {
            let limit = millis(hold_for);
            let begin = format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {limit}; \
                 SET LOCAL idle_in_transaction_session_timeout = {limit}"
            );
            AssertSqlSafe(begin).into_sql_str()
        };
        let mut connection = shared.transactions.lend().await.or_store_error("beginning")?;
        // Where this is cut off, the connection is closed.
        Manager::begin(&mut connection, Some(begin)).await.or_store_error("beginning")?;
        Ok(Self { tx: OwnTransaction(Some(connection)), until })
    }
}

const OPEN: &str = "a transaction has its connection until it ends";

impl OwnTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect(OPEN)
    }

    async fn commit(mut self) -> sqlx::Result<()> {
        Manager::commit(self.connection()).await?;
        self.give_back();
        Ok(())
    }

    async fn roll_back(mut self) -> sqlx::Result<()> {
        Manager::rollback(self.connection()).await?;
        self.give_back();
        Ok(())
    }

    fn give_back(mut self) {
        self.0.take().expect(OPEN).give_back();
    }
}

impl Drop for OwnTransaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            Manager::start_rollback(&mut connection);
            connection.give_to_pool();
        }
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::Unavailable, "the transaction was held for longer than it may, and is rolled back")
}

/// Through door 2 the user's SQL runs in a transaction at READ COMMITTED, on a connection from a pool
/// that nothing else uses. No statement of it may take longer than it may be held; after
/// [`PgConfig::max_hold`](crate::PgConfig::max_hold), or when a capability's lease ends, the
/// connection is refused to its user. Nested transactions become savepoints; `COMMIT` and `ROLLBACK`
/// by hand are not for the user to send, nor a `SET` without `LOCAL`, which would outlast the
/// transaction.
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
                self.commit_on(held.tx.into(), batch, None).await
            }
            Connection::Expired => Err(expired()),
        }
    }

    async fn rollback(&self, tx: Tx<PgConnection>) {
        if let Ok((_, PgSession { connection: Connection::Held(held), .. })) = tx.into_session() {
            self.shared.roll_back(held.tx.into()).await;
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
        self.commit_on(tx.into(), batch, Some(self.shared.id)).await.map_err(|error| match error.message() {
            // Its own database has one.
            NO_STORE => {
                Error::new(ErrorKind::InvalidInput, "the transaction is on another database than the store")
                    .with_source(error)
            }
            _ => error,
        })
    }

    async fn commit_on(&self, tx: AnyTransaction, batch: Batch, store: Option<Uuid>) -> Result<Committed> {
        let shared = Arc::clone(&self.shared);
        let commit = async move { shared.commit_on(tx, &batch, store).await };
        let cut_off = |_| Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown");
        tokio::spawn(commit).await.unwrap_or_else(|error| Err(cut_off(error)))
    }
}

/// A transaction on whosever connection.
enum AnyTransaction {
    Own(OwnTransaction),
    Users(Transaction<'static, Postgres>),
}

impl From<OwnTransaction> for AnyTransaction {
    fn from(tx: OwnTransaction) -> Self {
        Self::Own(tx)
    }
}

impl From<Transaction<'static, Postgres>> for AnyTransaction {
    fn from(tx: Transaction<'static, Postgres>) -> Self {
        Self::Users(tx)
    }
}

impl AnyTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(tx) => tx.connection(),
            Self::Users(tx) => tx,
        }
    }

    async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Own(tx) => tx.commit().await,
            Self::Users(tx) => tx.commit().await,
        }
    }

    async fn roll_back(self) -> sqlx::Result<()> {
        match self {
            Self::Own(tx) => tx.roll_back().await,
            Self::Users(tx) => tx.rollback().await,
        }
    }
}

impl Shared {
    async fn commit_on(
        &self,
        mut tx: AnyTransaction,
        batch: &Batch,
        store: Option<Uuid>,
    ) -> Result<Committed> {
        match apply_on(tx.connection(), &self.database, store, batch).await {
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

    async fn roll_back(&self, tx: AnyTransaction) {
        if let Err(error) = self.database.in_time(tx.roll_back()).await {
            tracing::debug!(%error, "rolling back failed; the server does it when the connection closes");
        }
    }
}
