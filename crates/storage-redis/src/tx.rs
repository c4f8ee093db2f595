use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, Partition, Result, Session, Store, Timestamp, Transactional, Tx,
};
use uuid::Uuid;

use crate::{RedisStore, RedisWrites};

/// A door-2 transaction: what the user has written so far.
struct RedisSession {
    /// The store that began it.
    store: Uuid,
    writes: RedisWrites,
}

#[async_trait]
impl Session<RedisWrites> for RedisSession {
    async fn connect(&mut self, _hold_for: Duration) -> Result<&mut RedisWrites> {
        Ok(&mut self.writes)
    }
}

/// Through door 2 the user's commands are collected and sent with the batch, in one call of one
/// script. Nothing is held meanwhile, and nobody waits for a transaction that is open.
impl Transactional for RedisStore {
    type Conn = RedisWrites;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<RedisWrites>> {
        self.check(&at)?;
        let session = RedisSession { store: self.id(), writes: RedisWrites::new(self.tag(&at)) };
        Ok(Tx::new(Batch::new(at, now), session))
    }

    async fn finish(&self, tx: Tx<RedisWrites>) -> Result<Committed> {
        let (batch, session) = tx.into_session::<RedisSession>()?;
        if session.store != self.id() {
            return Err(Error::new(ErrorKind::InvalidInput, "the transaction was begun by another store"));
        }
        if session.writes.check()?.is_empty() {
            return self.commit(batch).await;
        }
        batch.validate(&self.info().limits)?;
        self.check(batch.at())?;
        let store = self.clone();
        // Dropping the future does not cancel what was begun.
        let commit = async move { store.commit_with(batch, session.writes).await };
        let unknown = |_| Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown");
        tokio::spawn(commit).await.unwrap_or_else(|error| Err(unknown(error)))
    }

    async fn rollback(&self, tx: Tx<RedisWrites>) {
        drop(tx);
    }
}

impl RedisStore {
    async fn commit_with(&self, batch: Batch, writes: RedisWrites) -> Result<Committed> {
        let at = batch.at().clone();
        let verdicts = self.committer().commit(&at, &[batch], writes.check()?).await?;
        verdicts.into_iter().next().expect("a batch has a verdict")
    }
}
