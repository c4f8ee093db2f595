//! Transactions of a store whose type is not known any more.

use std::any::Any;
use std::fmt::Debug;
use std::time::Duration;

use evenkeel_core::{Loan, Op, Partition, Result, Timestamp, Transactional, Version, Writers};
use futures_util::future::BoxFuture;

/// Opens transactions.
pub(crate) trait Door: Debug + Send + Sync {
    /// Opens one whose connection may be held for `hold_for`.
    fn begin(&self, at: Partition, now: Timestamp, hold_for: Duration) -> BoxFuture<'_, Result<Begun>>;
}

pub(crate) struct Begun {
    /// The `Tx` for the job.
    pub(crate) tx: Box<dyn Any + Send>,
    pub(crate) transaction: Box<dyn Transaction>,
}

/// A transaction that was lent to a job.
pub(crate) trait Transaction: Send {
    /// Commits what the job wrote with `ops`; `None` where the job kept the transaction. With it
    /// the version of the records that `ops` put.
    fn commit(
        self: Box<Self>,
        ops: Vec<Op>,
        now: Timestamp,
    ) -> BoxFuture<'static, Option<(Version, Result<()>)>>;

    /// Takes back what the job wrote.
    fn rollback(self: Box<Self>) -> BoxFuture<'static, ()>;
}

#[derive(Debug)]
pub(crate) struct TypedDoor<S>(pub(crate) S);

struct Typed<S: Transactional> {
    store: S,
    loan: Loan<S::Conn>,
}

impl<S: Transactional + Clone> Door for TypedDoor<S> {
    fn begin(&self, at: Partition, now: Timestamp, hold_for: Duration) -> BoxFuture<'_, Result<Begun>> {
        Box::pin(async move {
            let mut tx = self.0.begin(at, now).await?;
            if self.0.info().writers == Writers::One {
                // A connection that holds up every other commit also holds up the lease's renewal.
                tx.before_connect(async move { Ok(hold_for) });
            }
            let (tx, loan) = tx.lend();
            Ok(Begun { tx: Box::new(tx), transaction: Box::new(Typed { store: self.0.clone(), loan }) })
        })
    }
}

impl<S: Transactional + Clone> Transaction for Typed<S> {
    fn commit(
        self: Box<Self>,
        ops: Vec<Op>,
        now: Timestamp,
    ) -> BoxFuture<'static, Option<(Version, Result<()>)>> {
        Box::pin(async move {
            let mut tx = self.loan.reclaim()?;
            let batch = tx.batch().set_now(now);
            let version = batch.version();
            for op in ops {
                batch.op(op);
            }
            Some((version, self.store.finish(tx).await.map(drop)))
        })
    }

    fn rollback(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(tx) = self.loan.reclaim() {
                self.store.rollback(tx).await;
            }
        })
    }
}
