use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Clock, Committed, Error, ErrorKind, Partition, Result, Session, Store, Timestamp, Transactional,
    Tx,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::SqliteStore;
use crate::hold::Held;
use crate::migrate;
use crate::writer::{Asked, Connect, Request, commit_on, stopped};

/// A door-2 transaction: nothing until the user connects, then the writing connection.
struct SqliteSession {
    requests: mpsc::UnboundedSender<Request>,
    clock: Arc<dyn Clock>,
    /// Whether its commit has to be on disk when it returns, as far as is known.
    is_synced: bool,
    connection: Connection,
}

enum Connection {
    NotTaken,
    Held(Held),
    /// It was held for too long, and is rolled back.
    Expired,
}

#[async_trait]
impl Session<SqliteConnection> for SqliteSession {
    async fn connect(&mut self, hold_for: Duration) -> Result<&mut SqliteConnection> {
        if let Connection::NotTaken = self.connection {
            let (reply, held) = oneshot::channel();
            let stopped = || stopped(ErrorKind::Unavailable);
            let what = Connect { hold_for, is_synced: self.is_synced };
            self.requests.send(Request::Connect(Asked { what, reply })).map_err(|_| stopped())?;
            self.connection = Connection::Held(held.await.map_err(|_| stopped())??);
        }
        if matches!(&self.connection, Connection::Held(held) if held.until <= self.clock.now()) {
            self.connection = Connection::Expired;
        }
        match &mut self.connection {
            Connection::Held(held) => Ok(&mut held.tx),
            Connection::NotTaken | Connection::Expired => Err(expired()),
        }
    }

    fn set_unsynced(&mut self) {
        self.is_synced = false;
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::Unavailable, "the transaction was held for longer than it may, and is rolled back")
}

/// Through door 2 the user's SQL runs on the one connection that writes, inside its transaction,
/// which waits in the same line as commits. While it is held, nobody else writes: keep it short.
/// After [`SqliteConfig::max_hold`](crate::SqliteConfig::max_hold) it is refused to its user, and
/// those who wait fail with `Unavailable`. Where its batch is unsynced, that is to be said before the
/// first [`Tx::conn`]; said later, it is synced all the same. Nested transactions become savepoints; `COMMIT` and
/// `ROLLBACK` by hand are not for the user to send.
impl Transactional for SqliteStore {
    type Conn = SqliteConnection;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<SqliteConnection>> {
        self.info().check_partition(&at)?;
        let session = SqliteSession {
            requests: self.requests()?.clone(),
            clock: Arc::clone(self.clock()),
            is_synced: true,
            connection: Connection::NotTaken,
        };
        Ok(Tx::new(Batch::new(at, now), session))
    }

    async fn finish(&self, tx: Tx<SqliteConnection>) -> Result<Committed> {
        let (batch, session) = tx.into_session::<SqliteSession>()?;
        batch.validate(&self.info().limits)?;
        match session.connection {
            Connection::NotTaken => self.commit(batch).await,
            Connection::Held(held) => held.finish(batch).await,
            Connection::Expired => Err(expired()),
        }
    }

    async fn rollback(&self, tx: Tx<SqliteConnection>) {
        if let Ok((_, SqliteSession { connection: Connection::Held(held), .. })) = tx.into_session() {
            held.roll_back().await;
        }
    }
}

impl SqliteStore {
    /// Judges and applies `batch` in a transaction that the user owns, and commits both.
    ///
    /// The transaction's connection must be to this store's database. It should have been begun
    /// with `BEGIN IMMEDIATE`; one that began by reading fails with `Unavailable` where another
    /// wrote meanwhile. Dropping the future does not cancel a commit that has begun.
    ///
    /// # Errors
    /// Those of [`Store::commit`], and `InvalidInput` where the database is another one. After any
    /// error but `OutcomeUnknown`, both are rolled back.
    pub async fn commit_with(&self, tx: Transaction<'static, Sqlite>, batch: Batch) -> Result<Committed> {
        self.info().check_partition(batch.at())?;
        batch.validate(&self.info().limits)?;
        let store = self.clone();
        let commit = async move { store.commit_in_users(tx, &batch).await };
        let unknown = |_| Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown");
        tokio::spawn(commit).await.unwrap_or_else(|error| Err(unknown(error)))
    }

    async fn commit_in_users(
        &self,
        mut tx: Transaction<'static, Sqlite>,
        batch: &Batch,
    ) -> Result<Committed> {
        if migrate::identity(&mut tx).await?.id != self.id() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the transaction is on another database than the store",
            ));
        }
        let committed = commit_on(tx, batch).await?;
        self.hub().committed(batch);
        Ok(committed)
    }
}
