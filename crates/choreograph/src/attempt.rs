//! One try at a callback: panics and timeouts are failures of it.

use std::any::Any;
use std::error::Error as StdError;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use evenkeel_core::{BoxError, Clock};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::bag::Part;
use crate::callback::Skipped;
use crate::context::RawContext;
use crate::error::{Phase, StepError, StepErrorKind};
use crate::key::Stored;
use crate::plan::Leaf;

/// What a callback panicked with.
type Panic = Box<dyn Any + Send>;

/// What a try at a step came to. Its pre-check's value is in the bag.
#[derive(Debug)]
pub(crate) enum Tried {
    Done(Stored),
    Skipped(StepError),
    Cancelled(StepError),
    Failed(Failed),
}

/// A failure, and whether another attempt may help.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: StepError,
    pub(crate) is_final: bool,
}

/// Tries the pre-check, and then the job unless that says no.
pub(crate) async fn try_step(
    leaf: &Leaf,
    raw: RawContext,
    clock: &Arc<dyn Clock>,
    job: impl FnOnce(RawContext) -> BoxFuture<'static, Result<Stored, BoxError>>,
) -> Tried {
    let deadline = raw.deadline;
    let both = async {
        if let Some(check) = &leaf.pre_check {
            let (run, step) = (Arc::clone(&raw.run), raw.step);
            let failed = match caught(|| check(raw.clone())).await {
                Ok(Ok(value)) => {
                    run.bag.put(step, Part::PreCheck, value);
                    None
                }
                Ok(Err(skip)) => {
                    if let Some(value) = skip.value {
                        run.bag.put(step, Part::PreCheck, value);
                    }
                    let error = |kind| StepError::from_source(&leaf.name, Phase::PreCheck, kind, skip.error);
                    Some(match skip.what {
                        Skipped::Job => Tried::Skipped(error(StepErrorKind::Skipped)),
                        Skipped::Run => Tried::Cancelled(error(StepErrorKind::Cancelled)),
                    })
                }
                Err(panic) => Some(Tried::Failed(panicked(leaf, Phase::PreCheck, panic))),
            };
            if let Some(failed) = failed {
                return failed;
            }
        }
        match try_job(leaf, || job(raw)).await {
            Ok(value) => Tried::Done(value),
            Err(failed) => Tried::Failed(failed),
        }
    };
    match deadline {
        None => both.await,
        Some(at) => match clock.timeout_at(at, both).await {
            Some(tried) => tried,
            None => Tried::Failed(timed_out(leaf, Phase::Job)),
        },
    }
}

/// Tries a job.
pub(crate) fn try_job<'a, T, F>(
    leaf: &'a Leaf,
    job: F,
) -> impl Future<Output = Result<T, Failed>> + use<'a, T, F>
where
    F: FnOnce() -> BoxFuture<'static, Result<T, BoxError>>,
{
    caught(job).map(|ended| match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let is_final = leaf.non_retryable.as_ref().is_some_and(|is_final| {
                let error: &(dyn StdError + 'static) = &*error;
                catch_unwind(AssertUnwindSafe(|| is_final(error))).unwrap_or(true)
            });
            let error = StepError::from_source(&leaf.name, Phase::Job, StepErrorKind::Failed, error);
            Err(Failed { error, is_final })
        }
        Err(panic) => Err(panicked(leaf, Phase::Job, panic)),
    })
}

/// Tries to take a step back.
pub(crate) async fn try_undo(leaf: &Leaf, raw: RawContext) -> Result<(), StepError> {
    let Some((undo, _)) = &leaf.undo else { return Ok(()) };
    match caught(|| undo(raw)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(StepError::from_source(&leaf.name, Phase::Compensation, StepErrorKind::Failed, error))
        }
        Err(panic) => Err(panicked(leaf, Phase::Compensation, panic).error),
    }
}

/// Whether the step is to be taken.
pub(crate) fn is_taken(leaf: &Leaf, raw: RawContext) -> Result<bool, StepError> {
    let Some(condition) = &leaf.condition else { return Ok(true) };
    sync(leaf, Phase::Condition, || condition(raw))
}

/// Calls a callback that does not wait.
pub(crate) fn sync<T>(leaf: &Leaf, phase: Phase, callback: impl FnOnce() -> T) -> Result<T, StepError> {
    catch_unwind(AssertUnwindSafe(callback)).map_err(|panic| panicked(leaf, phase, panic).error)
}

pub(crate) fn timed_out(leaf: &Leaf, phase: Phase) -> Failed {
    let error = StepError::new(&leaf.name, phase, StepErrorKind::TimedOut, "the attempt took too long");
    Failed { error, is_final: false }
}

/// The output of a callback's future, or what it panicked with, in making the future or in it.
pub(crate) fn caught<T, F>(callback: F) -> impl Future<Output = Result<T, Panic>> + use<T, F>
where
    F: FnOnce() -> BoxFuture<'static, T>,
{
    let mut made = catch_unwind(AssertUnwindSafe(callback)).map_err(Some);
    poll_fn(move |context| match &mut made {
        Ok(future) => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
        Err(panic) => Poll::Ready(Err(panic.take().expect("nobody polls what has ended"))),
    })
}

fn panicked(leaf: &Leaf, phase: Phase, panic: Panic) -> Failed {
    let error = StepError::new(&leaf.name, phase, StepErrorKind::Panicked, panic_message(panic));
    Failed { error, is_final: false }
}

pub(crate) fn panic_message(panic: Panic) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("it panicked", |text| *text).to_owned(),
    }
}
