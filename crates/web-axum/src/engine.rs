use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use evenkeel_core::{Loan, Transactional};
use evenkeel_idempotency::{Answer, Claim, Content, Error, Guard, Idempotency, Lapse, Operation};
use http::Extensions;
use tokio::sync::RwLock;

use crate::tx::{Begin, Offer, TxRejection};

/// `Idempotency` on any store, erased, so that the layer's type does not name the store.
#[async_trait]
pub(crate) trait Engine: Debug + Send + Sync {
    async fn claim(&self, operation: Operation) -> Result<Claimed, Error>;

    /// The longest answer that is stored.
    fn answer_limit(&self) -> usize;
}

pub(crate) enum Claimed {
    Run(Arc<dyn Attempt>),
    Replay(Answer),
}

/// One run of an operation: its guard, and the transaction where the handler asks for one.
#[async_trait]
pub(crate) trait Attempt: Send + Sync {
    /// Puts the transaction, not begun, within the handler's reach.
    fn offer(self: Arc<Self>, extensions: &mut Extensions);

    /// Completes once the attempt has become pointless.
    async fn lapsed(&self) -> Lapse;

    /// Ends the attempt; called once.
    async fn end(&self, end: End) -> Result<Option<Answer>, EndError>;
}

/// How an attempt ends.
#[derive(Debug)]
pub(crate) enum End {
    Commit(Content),
    RollBack(Content),
    Fail(String),
}

#[derive(Debug)]
pub(crate) enum EndError {
    /// The handler still has its transaction.
    Kept,
    /// The operation could not be ended so.
    Idempotency(Error),
}

impl From<Error> for EndError {
    fn from(error: Error) -> Self {
        Self::Idempotency(error)
    }
}

#[async_trait]
impl<S: Transactional + Clone> Engine for Idempotency<S> {
    async fn claim(&self, operation: Operation) -> Result<Claimed, Error> {
        Ok(match Self::claim(self, operation).await? {
            Claim::Replay(answer) => Claimed::Replay(answer),
            Claim::Run(guard) => Claimed::Run(Arc::new(Running {
                idempotency: self.clone(),
                guard: RwLock::new(Some(guard)),
                loan: Mutex::new(None),
            })),
        })
    }

    fn answer_limit(&self) -> usize {
        Self::answer_limit(self)
    }
}

struct Running<S: Transactional + Clone> {
    idempotency: Idempotency<S>,
    /// `None` once the attempt has ended.
    guard: RwLock<Option<Guard<S>>>,
    /// Set when the transaction was handed out.
    loan: Mutex<Option<Loan<S::Conn>>>,
}

impl<S: Transactional + Clone> Running<S> {
    fn take_loan(&self) -> Option<Loan<S::Conn>> {
        self.loan.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl<S: Transactional + Clone> Attempt for Running<S> {
    fn offer(self: Arc<Self>, extensions: &mut Extensions) {
        extensions.insert(Offer::<S::Conn>(self));
    }

    async fn lapsed(&self) -> Lapse {
        match &*self.guard.read().await {
            Some(guard) => guard.lapsed().await,
            None => Lapse::Lost,
        }
    }

    async fn end(&self, end: End) -> Result<Option<Answer>, EndError> {
        let guard = self.guard.write().await.take().expect("an attempt ends once");
        let Some(loan) = self.take_loan() else {
            return Ok(match end {
                End::Commit(content) | End::RollBack(content) => Some(finish(guard, content).await?),
                End::Fail(message) => {
                    guard.fail(message).await?;
                    None
                }
            });
        };
        match (end, loan.reclaim()) {
            (End::Commit(content), Some(tx)) => Ok(Some(guard.finish_in(tx, content).await?)),
            (End::RollBack(content), Some(tx)) => {
                self.idempotency.store().rollback(tx).await;
                Ok(Some(finish(guard, content).await?))
            }
            (End::Fail(message), Some(tx)) => {
                guard.fail_in(tx, message).await?;
                Ok(None)
            }
            // What keeps the transaction may hold up the failure's commit; nobody is to wait for
            // that, and dropped it goes on in the background.
            (End::Fail(message), None) => {
                drop(guard.fail(message));
                Ok(None)
            }
            (End::Commit(_) | End::RollBack(_), None) => {
                drop(guard.fail("the handler kept its transaction beyond its end"));
                Err(EndError::Kept)
            }
        }
    }
}

async fn finish<S: Transactional + Clone>(guard: Guard<S>, content: Content) -> Result<Answer, Error> {
    match content {
        Content::Stored(bytes) => guard.finish(bytes).await,
        Content::NotStored { bytes } => guard.finish_without_answer(bytes).await,
    }
}

#[async_trait]
impl<S: Transactional + Clone> Begin<S::Conn> for Running<S> {
    async fn begin(&self) -> Result<evenkeel_core::Tx<S::Conn>, TxRejection> {
        let guard = self.guard.read().await;
        let guard = guard.as_ref().ok_or(TxRejection::Over)?;
        let (tx, loan) = guard.begin().await.map_err(TxRejection::Failed)?.lend();
        let mut place = self.loan.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Err(TxRejection::Taken);
        }
        *place = Some(loan);
        Ok(tx)
    }
}
