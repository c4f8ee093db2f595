use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use evenkeel_core::{BoxError, Error, ErrorKind, RetryHint, Transactional, Tx};
use futures_util::FutureExt;

use super::Shared;
use crate::projector::{Context, Effects, within};
use crate::{Projector, Recorded};

/// How much is kept of what a handler says about its failure, in bytes.
const LONGEST_TEXT: usize = 4_096;

/// A handler's failure.
#[derive(Debug)]
pub(super) struct HandlerError {
    /// Which of the events it was, where that is known.
    pub(super) at: Option<usize>,
    pub(super) error: BoxError,
}

/// Has a projector apply events in a transaction.
pub(super) async fn apply<P, S>(
    shared: &Shared<P, S>,
    version: u32,
    effects: Effects,
    events: &[Recorded],
    state: &mut P::State,
    tx: &mut Tx<S::Conn>,
) -> Result<(), HandlerError>
where
    P: Projector<S::Conn>,
    S: Transactional + Clone,
{
    let mut context = Context::new(tx, state, version, effects, shared.clock());
    let limits: Vec<_> = events.iter().map(|event| shared.projector.timeout(event)).collect();
    let mut done = 0;
    // One that may take as long as it needs leaves the others their limit.
    for limits in limits.chunk_by(|one, next| one.is_some() == next.is_some()) {
        let call = &events[done..done + limits.len()];
        let limit = limits
            .iter()
            .try_fold(Duration::ZERO, |together, limit| Some(together.saturating_add((*limit)?)));
        context.at = None;
        let applied = guarded(async {
            context.connect(limit).await?;
            let work = pin!(shared.projector.apply_batch(call, &mut context));
            within(shared.clock(), limit, work).await
        });
        if let Err(error) = applied.await {
            return Err(HandlerError { at: context.at.map(|at| done + at), error });
        }
        done += limits.len();
    }
    Ok(())
}

/// Runs a method of a projector; a panic is a failure.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => Err(format!("the handler panicked: {}", panic_text(&*panic)).into()),
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The store's part in a handler's failure, where it may pass.
pub(super) fn passing(error: BoxError) -> Result<Error, BoxError> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(cause) = source {
        match cause.downcast_ref::<Error>() {
            Some(store) if may_pass(store) => return Ok(store.repeated()),
            _ => source = cause.source(),
        }
    }
    Err(error)
}

/// Whether the same may succeed when it is done again from what is stored then.
pub(crate) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Conflict)
        || error.retry() != RetryHint::Never
}

/// An error with all that caused it, in one line; its beginning, where it is long.
pub(super) fn in_full(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.push_str(" ...");
    }
    text
}
