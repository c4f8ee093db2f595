use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Store, Timestamp, Transactional, Tx, Writers};
use tokio::runtime::Handle;

use crate::detached::Detached;
use crate::error::Result;
use crate::observe;
use crate::ownership::Ownership;
use crate::state::{Ending, Failure};
use crate::{Answer, Content, Error, ErrorKind, Operation};

/// The right to run an operation, and the duty to say what came of it.
///
/// While it lives its lease is renewed in the background, up to the operation's timeout. The
/// methods that end it go on in the background where their future is dropped, polled or not, and
/// so does the failure that is recorded where the guard itself is dropped.
///
/// Whoever lost the operation to another attempt gets [`ErrorKind::LeaseLost`] and records
/// nothing.
#[must_use = "an operation that is claimed and dropped has failed"]
pub struct Guard<S: Store + Clone> {
    ownership: Option<Arc<Ownership<S>>>,
    runtime: Handle,
}

/// Why an attempt has become pointless while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// It reached the operation's timeout; its lease is not renewed any more.
    TimedOut,
    /// Another attempt took the operation over, or it was released.
    Lost,
}

impl<S: Store + Clone> Guard<S> {
    pub(crate) fn new(ownership: Arc<Ownership<S>>, runtime: Handle) -> Self {
        Self { ownership: Some(ownership), runtime }
    }

    /// Which attempt this is; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.ownership().attempt
    }

    /// What is being run.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.ownership().task.operation
    }

    /// Completes once the attempt has become pointless: at the operation's timeout, or when
    /// another took over. Dropping the future changes nothing.
    pub async fn lapsed(&self) -> Lapse {
        let ownership = self.ownership();
        let until = ownership.renewable_until();
        if until == Timestamp::MAX {
            ownership.lost().await;
            return Lapse::Lost;
        }
        tokio::select! {
            biased;
            () = ownership.lost() => Lapse::Lost,
            () = ownership.engine().settings.clock.sleep_until(until) => Lapse::TimedOut,
        }
    }

    /// Records the answer, which repetitions get from now on.
    ///
    /// An answer that does not fit the store is left out: the content of what is returned, and of
    /// every replay, is then [`Content::NotStored`].
    ///
    /// # Errors
    /// `LeaseLost`; `Expired` where the operation's expiration has passed (a failure is recorded
    /// then); `Store`.
    pub fn finish(self, answer: impl Into<Bytes>) -> impl Future<Output = Result<Answer>> + Send {
        self.end_with(Content::Stored(answer.into()))
    }

    /// Records that the operation is done, without its answer of `bytes` bytes: repetitions learn
    /// that much and never run again.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_without_answer(self, bytes: u64) -> impl Future<Output = Result<Answer>> + Send {
        self.end_with(Content::NotStored { bytes })
    }

    /// Records a failure; the operation may run again at once.
    ///
    /// The message is kept up to 2,048 bytes. A transaction of the guard must have been rolled
    /// back or dropped before, since it may hold up this commit.
    ///
    /// # Errors
    /// `LeaseLost`; `Store`.
    pub fn fail(self, message: impl Into<String>) -> impl Future<Output = Result<()>> + Send {
        self.fail_as(Ending::Reported, message.into())
    }

    pub(crate) fn fail_as(mut self, ending: Ending, message: String) -> Detached<Result<()>> {
        let ownership = self.take();
        Detached::new(self.runtime.clone(), async move {
            observe::ended("failed", ownership.fail(Failure { ending, message: &message }).await)
        })
    }

    pub(crate) fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        self.ownership().error(kind, message)
    }

    fn end_with(mut self, content: Content) -> Detached<Result<Answer>> {
        let ownership = self.take();
        Detached::new(self.runtime.clone(), async move {
            observe::ended("finished", ownership.finish(content).await)
        })
    }

    fn ownership(&self) -> &Arc<Ownership<S>> {
        self.ownership.as_ref().expect(OWNED)
    }

    fn take(&mut self) -> Arc<Ownership<S>> {
        self.ownership.take().expect(OWNED)
    }
}

const OWNED: &str = "a guard owns its attempt until it is consumed";

impl<S: Transactional + Clone> Guard<S> {
    /// Opens a transaction for the user's writes, to be committed with the answer by
    /// [`finish_in`](Self::finish_in).
    ///
    /// Its connection is taken at the first use, and given for no longer than the attempt can last.
    /// On a store with [one writer](Writers::One) a connected transaction holds up all other
    /// commits, renewals too: there it may be held for what is left of the lease, which is renewed
    /// ahead of it where a third of it is gone.
    ///
    /// # Errors
    /// `Store`.
    pub async fn begin(&self) -> Result<Tx<S::Conn>> {
        let ownership = self.ownership();
        let engine = ownership.engine();
        let mut tx = engine.store.begin(ownership.place().at.clone(), engine.now()).await?;
        match engine.store.info().writers {
            Writers::One => {
                let connected = Arc::new(AtomicBool::new(false));
                tx.keep(Connected {
                    ownership: Arc::clone(ownership),
                    runtime: self.runtime.clone(),
                    connected: Arc::clone(&connected),
                });
                tx.before_connect(hold_renewals(Arc::clone(ownership), connected));
            }
            Writers::Many => {
                let ownership = Arc::clone(ownership);
                tx.before_connect(
                    async move { Ok(ownership.renewable_until().since(ownership.engine().now())) },
                );
            }
        }
        Ok(tx)
    }

    /// Records the answer and commits the user's writes with it, both or neither.
    ///
    /// Where that fails, for whatever reason, the user's writes are gone and a failure is recorded.
    /// The transaction must be one of this guard's.
    ///
    /// # Errors
    /// As [`finish`](Self::finish); `Store` also for a conflict of what the user wrote.
    pub fn finish_in(
        mut self,
        tx: Tx<S::Conn>,
        content: Content,
    ) -> impl Future<Output = Result<Answer>> + Send {
        let ownership = self.take();
        Detached::new(self.runtime.clone(), async move {
            observe::ended("finished", ownership.finish_in(tx, content).await)
        })
    }

    /// Takes the user's writes back and waits for that, then records a failure.
    ///
    /// # Errors
    /// As [`fail`](Self::fail).
    pub fn fail_in(
        self,
        tx: Tx<S::Conn>,
        message: impl Into<String>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.fail_in_as(tx, Ending::Reported, message.into())
    }

    pub(crate) fn fail_in_as(
        mut self,
        tx: Tx<S::Conn>,
        ending: Ending,
        message: String,
    ) -> Detached<Result<()>> {
        let ownership = self.take();
        Detached::new(self.runtime.clone(), async move {
            ownership.engine().store.rollback(tx).await;
            observe::ended("failed", ownership.fail(Failure { ending, message: &message }).await)
        })
    }
}

/// Ahead of a connection that holds up every other commit: says for how long it may be held.
async fn hold_renewals<S: Store + Clone>(
    ownership: Arc<Ownership<S>>,
    connected: Arc<AtomicBool>,
) -> evenkeel_core::Result<Duration> {
    connected.store(true, Ordering::Release);
    let left = ownership.hold_renewals().await.since(ownership.engine().now());
    if left > ownership.engine().settings.lease * 2 / 3 {
        return Ok(left);
    }
    // In a task of its own, so that it comes to its end if the transaction is dropped meanwhile.
    let renewal = tokio::spawn(async move {
        let until = ownership.renew_now().await?;
        Ok(until.since(ownership.engine().now()))
    });
    renewal.await.map_err(|source| {
        let kind = evenkeel_core::ErrorKind::Unavailable;
        evenkeel_core::Error::new(kind, "the lease was not renewed").with_source(source)
    })?
}

/// Lives as long as the transaction, which may hold renewals up.
struct Connected<S: Store + Clone> {
    ownership: Arc<Ownership<S>>,
    runtime: Handle,
    connected: Arc<AtomicBool>,
}

impl<S: Store + Clone> Drop for Connected<S> {
    fn drop(&mut self) {
        if !self.connected.load(Ordering::Acquire) {
            return;
        }
        self.ownership.resume_renewals();
        if !self.ownership.is_closed() {
            let ownership = Arc::clone(&self.ownership);
            self.runtime.spawn(async move { ownership.renew().await });
        }
    }
}

impl<S: Store + Clone> Drop for Guard<S> {
    fn drop(&mut self) {
        if let Some(ownership) = self.ownership.take() {
            self.runtime.spawn(async move {
                let failure = Failure { ending: Ending::Dropped, message: "the owner was dropped" };
                if let Err(error) = observe::ended("failed", ownership.fail(failure).await) {
                    tracing::warn!(%error, "a failure was not recorded");
                }
            });
        }
    }
}

impl<S: Store + Clone> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.ownership.as_ref().map(|it| (&it.task.operation.identity, it.attempt));
        f.debug_tuple("Guard").field(&attempt).finish()
    }
}
