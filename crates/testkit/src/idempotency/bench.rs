use std::fmt::Debug;
use std::time::Duration;

use evenkeel_core::{Clock, ManualClock, NewEvent, Read, StoreExt, Timestamp, Transactional, Tx};
use evenkeel_idempotency::{
    Claim, Content, ErrorKind, Guard, Idempotency, Identity, Operation, RunError, Scope, Tracked,
};

/// A store in a clean namespace, and a time that stands still.
#[derive(Clone, Debug)]
pub(crate) struct Bench<S> {
    pub(crate) store: S,
    pub(crate) clock: ManualClock,
}

impl<S: Transactional + Clone> Bench<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, clock: ManualClock::default() }
    }

    /// A process of its own: it shares nothing with others but the store.
    pub(crate) fn process(&self) -> Idempotency<S> {
        Idempotency::new(self.store.clone()).clock(self.clock.shared())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// How often the effect of `key` is in the store, over all partitions.
    pub(crate) async fn effects(&self, key: &str) -> u64 {
        let mut count = 0;
        for at in self.store.partitions() {
            count += self.store.read(&at, Read::stream(key, 0, 1)).await.unwrap().head;
        }
        count
    }

    /// Waits until an operation is as it should be.
    pub(crate) async fn until_tracked(&self, key: &str, condition: impl Fn(&Tracked) -> bool) -> Tracked {
        let process = self.process();
        // A case that waits in vain hangs, and fails for that.
        loop {
            if let Some(tracked) = process.show(&identity(key)).await.unwrap()
                && condition(&tracked)
            {
                return tracked;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// An operation that never expires, unless told to.
pub(crate) fn operation(key: &str) -> Operation {
    Operation::new(Scope::Global, "charge", key).expiration(Duration::ZERO)
}

pub(crate) fn identity(key: &str) -> Identity {
    operation(key).identity().clone()
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Writes the effect of `key` with the transaction, over the live connection's head.
pub(crate) async fn take_effect<C: Send + 'static>(tx: &mut Tx<C>, key: &str) -> evenkeel_core::Result<()> {
    tx.conn().await?;
    let now = tx.batch().now();
    tx.batch().append_any(key, [NewEvent::new("Charged", "{}", now)]);
    Ok(())
}

/// The guard of a claim that was to be won.
#[track_caller]
pub(crate) fn won<S: Transactional + Clone>(
    claim: Result<Claim<S>, evenkeel_idempotency::Error>,
) -> Guard<S> {
    match claim.expect("the claim was to be won") {
        Claim::Run(guard) => guard,
        Claim::Replay(answer) => panic!("the claim was to be won, and is a replay of {answer:?}"),
    }
}

/// The bytes of an operation that was to be replayed.
#[track_caller]
pub(crate) fn replayed<S: Transactional + Clone>(
    claim: Result<Claim<S>, evenkeel_idempotency::Error>,
) -> Vec<u8> {
    match claim.expect("the operation was to be replayed") {
        Claim::Replay(answer) => match answer.content {
            Content::Stored(bytes) => bytes.to_vec(),
            Content::NotStored { bytes } => panic!("the answer of {bytes} bytes was to be stored"),
        },
        Claim::Run(guard) => panic!("the operation was to be replayed, and is begun by {guard:?}"),
    }
}

/// The kind of a failure; the call was not to succeed.
#[track_caller]
pub(crate) fn kind<T: Debug>(result: Result<T, evenkeel_idempotency::Error>) -> ErrorKind {
    result.expect_err("the call was to fail").kind()
}

/// The kind of a failure of idempotency itself; the run was not to succeed.
#[track_caller]
pub(crate) fn run_kind<T: Debug, E: Debug>(result: Result<T, RunError<E>>) -> ErrorKind {
    match result.expect_err("the run was to fail") {
        RunError::Idempotency(error) => error.kind(),
        RunError::Handler(error) => panic!("the handler was not to fail: {error:?}"),
    }
}
