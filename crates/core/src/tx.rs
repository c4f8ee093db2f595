use std::any::Any;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::batch::{Batch, Committed};
use crate::store::Store;
use crate::{Error, ErrorKind, Partition, Result, Timestamp};

/// A store that lets the user's own writes join a commit: door 2.
///
/// Not object-safe on purpose: the connection type is the point. [`AnyStore`](crate::AnyStore) is
/// the erased store, whose connection is a [`Draft`](crate::Draft).
pub trait Transactional: Store {
    /// What the user writes with: a live SQL connection, or a collector of writes.
    type Conn: Send + 'static;

    /// Opens a transaction on a partition. Nothing is taken from the database before the first
    /// [`Tx::conn`]. Expiry is judged at `now` until [`Batch::set_now`] says otherwise.
    fn begin(&self, at: Partition, now: Timestamp) -> impl Future<Output = Result<Tx<Self::Conn>>> + Send;

    /// Judges and applies the transaction's batch last, and commits it with the user's writes; an
    /// error of any kind but `OutcomeUnknown` leaves neither.
    ///
    /// Dropping the future does not cancel a commit that has begun.
    fn finish(&self, tx: Tx<Self::Conn>) -> impl Future<Output = Result<Committed>> + Send;

    /// Takes the user's writes back and waits until that is done; dropping the [`Tx`] does the
    /// same without waiting.
    fn rollback(&self, tx: Tx<Self::Conn>) -> impl Future<Output = ()> + Send;
}

/// A transaction that the user's writes and evenkeel's commit share.
///
/// It is owned by whoever writes at the moment. Dropped, it is rolled back, unless it was
/// [lent](Tx::lend): then it goes back to its lender.
pub struct Tx<C> {
    parts: Option<Parts<C>>,
    lender: Option<Slot<C>>,
}

struct Parts<C> {
    batch: Batch,
    session: Box<dyn Session<C>>,
    before_connect: Option<Before>,
    /// How long the connection may be held, once that is known.
    hold_for: Duration,
    companions: Vec<Box<dyn Any + Send>>,
}

type Slot<C> = Arc<Mutex<Option<Parts<C>>>>;
type Before = BoxFuture<'static, Result<Duration>>;

/// A store's side of a [`Tx`]; for stores to implement. Dropping it rolls back.
#[async_trait]
pub trait Session<C>: Any + Send {
    /// The connection, taken at the first call and needed for `hold_for` from then on at most.
    async fn connect(&mut self, hold_for: Duration) -> Result<&mut C>;

    /// Called ahead of a connect where the batch is [unsynced](Batch::set_unsynced) by then, for
    /// stores that have to know before they begin. What the batch is when it is committed counts.
    fn set_unsynced(&mut self) {}
}

impl<C: 'static> Tx<C> {
    /// A transaction of a store.
    #[must_use]
    pub fn new(batch: Batch, session: impl Session<C>) -> Self {
        let parts = Parts {
            batch,
            session: Box::new(session),
            before_connect: None,
            hold_for: Duration::MAX,
            companions: Vec::new(),
        };
        Self { parts: Some(parts), lender: None }
    }

    /// The partition whose commit it joins.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        self.parts().batch.at()
    }

    /// The batch that is committed with the user's writes: append an event, push a job, put a
    /// record.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.parts_mut().batch
    }

    /// The live connection, taken from the database at the first call.
    ///
    /// Dropping the future leaves the transaction usable.
    ///
    /// # Errors
    /// `Unavailable` where the connection cannot be had, or has been held for too long.
    pub async fn conn(&mut self) -> Result<&mut C> {
        let parts = self.parts_mut();
        if let Some(before) = &mut parts.before_connect {
            match before.await {
                Ok(hold_for) => {
                    parts.hold_for = hold_for;
                    parts.before_connect = None;
                }
                Err(error) => {
                    let again = error.repeated();
                    parts.before_connect = Some(Box::pin(std::future::ready(Err(again))));
                    return Err(error);
                }
            }
        }
        if !parts.batch.is_synced() {
            parts.session.set_unsynced();
        }
        parts.session.connect(parts.hold_for).await
    }

    /// Runs `before` ahead of the first connect; it says for how long the connection may be held.
    /// Where it fails, so does every connect. For capabilities that hold a lease, which ends what
    /// the transaction is good for.
    pub fn before_connect(&mut self, before: impl Future<Output = Result<Duration>> + Send + 'static) {
        self.parts_mut().before_connect = Some(Box::pin(before));
    }

    /// Keeps `companion` until the transaction is dropped or goes back to its store, and drops it
    /// then. For capabilities that must know when it is over.
    pub fn keep(&mut self, companion: impl Any + Send) {
        self.parts_mut().companions.push(Box::new(companion));
    }

    /// Hands the transaction to other code for as long as that keeps it.
    pub fn lend(mut self) -> (Self, Loan<C>) {
        let slot = Slot::default();
        let (parts, lender) = (self.parts.take(), self.lender.take());
        let lent = Self { parts, lender: Some(Arc::clone(&slot)) };
        (lent, Loan { slot, lender })
    }

    /// The batch and the store's session, for [`Transactional::finish`].
    ///
    /// # Errors
    /// `InvalidInput` where the session is not an `S`: the transaction was begun by another store.
    pub fn into_session<S: Session<C>>(mut self) -> Result<(Batch, S)> {
        let parts = self.parts.take().expect(OWNED);
        let session: Box<dyn Any> = parts.session;
        match session.downcast::<S>() {
            Ok(session) => Ok((parts.batch, *session)),
            Err(_) => Err(Error::new(ErrorKind::InvalidInput, "the transaction was begun by another store")),
        }
    }

    fn parts(&self) -> &Parts<C> {
        self.parts.as_ref().expect(OWNED)
    }

    fn parts_mut(&mut self) -> &mut Parts<C> {
        self.parts.as_mut().expect(OWNED)
    }
}

const OWNED: &str = "a transaction has its parts until it is consumed";

impl<C> Drop for Tx<C> {
    fn drop(&mut self) {
        if let Some(slot) = &self.lender {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = self.parts.take();
        }
    }
}

impl<C> Debug for Tx<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let batch = self.parts.as_ref().map(|parts| &parts.batch);
        f.debug_struct("Tx").field("batch", &batch).finish_non_exhaustive()
    }
}

/// The lender's claim on a [`Tx`]. Dropping it leaves the transaction to whoever has it, to be
/// rolled back when that drops it.
#[must_use]
pub struct Loan<C> {
    slot: Slot<C>,
    /// Whom the transaction was borrowed from by the one who lent it on.
    lender: Option<Slot<C>>,
}

impl<C> Loan<C> {
    /// The transaction, once the borrower has dropped it; `None` while it is still in use.
    #[must_use]
    pub fn reclaim(self) -> Option<Tx<C>> {
        let parts = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Tx { parts: Some(parts), lender: self.lender })
    }
}

impl<C> Debug for Loan<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}
