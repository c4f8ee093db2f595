use std::fmt::Display;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use evenkeel_core::{Store, Transactional, Tx};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::Idempotency;
use crate::error::Result;
use crate::state::Ending;
use crate::{Answer, Claim, Content, Error, ErrorKind, Guard, Lapse, Operation, RunError};

/// The value of an operation, from this run or an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the work returned.
    pub value: T,
    /// Whether it did so earlier, so that nothing ran now.
    pub replayed: bool,
}

/// How the work ended.
enum Ended<T, E> {
    Done(T),
    Failed(E),
    Panicked(String),
    Lapsed(Lapse),
}

impl<S: Store + Clone> Idempotency<S> {
    /// Runs `work` once for the operation and stores its value as JSON.
    ///
    /// - Its success is stored, its failure recorded with the error's text; a panic is caught and
    ///   is a failure too.
    /// - At the operation's timeout, or where another took over, `work` is dropped where it stands.
    /// - What `work` does to the outside is not taken back by a failure; see
    ///   [`run_tx`](Self::run_tx) for writes that are.
    /// - A value that does not fit the store, or cannot be turned into JSON, is left out; the
    ///   operation is finished all the same, and repetitions get `AnswerNotStored`.
    ///
    /// Dropping the future drops `work` and records a failure in the background.
    ///
    /// # Errors
    /// `Handler` with the error of `work`; otherwise those of [`claim`](Self::claim) and
    /// [`Guard::finish`], `Panicked`, `TimedOut`, `AnswerNotStored`, and `InvalidInput` for a value
    /// that JSON cannot hold.
    pub async fn run<T, E, F, Fut>(&self, operation: Operation, work: F) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let guard = match self.claim(operation).await? {
            Claim::Replay(answer) => return Ok(replayed(&answer)?),
            Claim::Run(guard) => guard,
        };
        match attempt(&guard, async { work().await }).await {
            Ended::Done(value) => {
                let Ok(json) = serde_json::to_vec(&value) else {
                    let error = guard.error(ErrorKind::InvalidInput, NOT_JSON);
                    guard.finish_without_answer(0).await?;
                    return Err(error.into());
                };
                guard.finish(json).await?;
                Ok(Outcome { value, replayed: false })
            }
            Ended::Failed(error) => {
                note(guard.fail_as(Ending::Reported, error.to_string()).await);
                Err(RunError::Handler(error))
            }
            Ended::Panicked(message) => {
                let error = guard.error(ErrorKind::Panicked, "the work panicked").with("panic", &message);
                note(guard.fail_as(Ending::Panicked, message).await);
                Err(error.into())
            }
            Ended::Lapsed(lapse) => {
                let error = lapsed(&guard, lapse);
                note(guard.fail_as(Ending::TooLate, error.message().to_owned()).await);
                Err(error.into())
            }
        }
    }
}

impl<S: Transactional + Clone> Idempotency<S> {
    /// Runs `work` once for the operation, in a transaction that is committed with its value.
    ///
    /// - `work` gets the transaction by value and lets go of it by its end; it may borrow locals.
    /// - Where it fails or panics, where its value comes after the operation's expiration, and
    ///   where another took over, its writes roll back to nothing and a failure is recorded.
    /// - At the operation's timeout, or where another took over, `work` is dropped where it stands.
    ///
    /// Dropping the future drops `work`, rolls back and records a failure in the background.
    ///
    /// # Errors
    /// As [`run`](Self::run); `Store` also for a conflict of what `work` wrote, `InvalidInput`
    /// where it keeps the transaction.
    pub async fn run_tx<T, E, F, Fut>(&self, operation: Operation, work: F) -> Result<Outcome<T>, RunError<E>>
    where
        T: Serialize + DeserializeOwned,
        E: Display,
        F: FnOnce(Tx<S::Conn>) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let guard = match self.claim(operation).await? {
            Claim::Replay(answer) => return Ok(replayed(&answer)?),
            Claim::Run(guard) => guard,
        };
        let (tx, loan) = guard.begin().await?.lend();
        let ended = attempt(&guard, async { work(tx).await }).await;
        let Some(tx) = loan.reclaim() else {
            let error = guard.error(ErrorKind::InvalidInput, "the work kept its transaction");
            note(guard.fail_as(Ending::Reported, error.message().to_owned()).await);
            return Err(error.into());
        };
        match ended {
            Ended::Done(value) => {
                let Ok(json) = serde_json::to_vec(&value) else {
                    let error = guard.error(ErrorKind::InvalidInput, NOT_JSON);
                    note(guard.fail_in_as(tx, Ending::Reported, NOT_JSON.to_owned()).await);
                    return Err(error.into());
                };
                guard.finish_in(tx, Content::Stored(Bytes::from(json))).await?;
                Ok(Outcome { value, replayed: false })
            }
            Ended::Failed(error) => {
                note(guard.fail_in_as(tx, Ending::Reported, error.to_string()).await);
                Err(RunError::Handler(error))
            }
            Ended::Panicked(message) => {
                let error = guard.error(ErrorKind::Panicked, "the work panicked").with("panic", &message);
                note(guard.fail_in_as(tx, Ending::Panicked, message).await);
                Err(error.into())
            }
            Ended::Lapsed(lapse) => {
                let error = lapsed(&guard, lapse);
                note(guard.fail_in_as(tx, Ending::TooLate, error.message().to_owned()).await);
                Err(error.into())
            }
        }
    }
}

const NOT_JSON: &str = "the value cannot be turned into JSON";

async fn attempt<S: Store + Clone, T, E>(
    guard: &Guard<S>,
    work: impl Future<Output = Result<T, E>>,
) -> Ended<T, E> {
    tokio::select! {
        biased;
        result = AssertUnwindSafe(work).catch_unwind() => match result {
            Ok(Ok(value)) => Ended::Done(value),
            Ok(Err(error)) => Ended::Failed(error),
            Err(payload) => Ended::Panicked(panic_message(&*payload)),
        },
        lapse = guard.lapsed() => Ended::Lapsed(lapse),
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the work panicked")
        .to_owned()
}

fn lapsed<S: Store + Clone>(guard: &Guard<S>, lapse: Lapse) -> Error {
    match lapse {
        Lapse::TimedOut => guard.error(ErrorKind::TimedOut, "the attempt reached its timeout"),
        Lapse::Lost => guard.error(ErrorKind::LeaseLost, "another took the operation over"),
    }
}

/// The caller learns of the failure itself, whether or not it could be recorded.
fn note(recorded: Result<()>) {
    if let Err(error) = recorded {
        tracing::warn!(%error, "a failure was not recorded");
    }
}

fn replayed<T: DeserializeOwned>(answer: &Answer) -> Result<Outcome<T>> {
    let Content::Stored(json) = &answer.content else {
        return Err(Error::new(
            ErrorKind::AnswerNotStored,
            "the operation is done, its value was not stored",
        ));
    };
    let value = serde_json::from_slice(json).map_err(|source| {
        let kind = evenkeel_core::ErrorKind::Corrupt;
        evenkeel_core::Error::new(kind, "the stored value is not of the type asked for").with_source(source)
    })?;
    Ok(Outcome { value, replayed: true })
}
