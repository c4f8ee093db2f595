use std::time::Duration;

use evenkeel_core::{Batch, Clock, Conflict, Error, ErrorKind, Found, Record, RetryHint, Store, Version};

use crate::operation::Place;

/// How much trouble a commit is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insist {
    /// Repeated until its outcome is known; nothing is lost where it was not applied.
    OnOutcome,
    /// Repeated until it is applied: it records what has happened already.
    OnSuccess,
}

/// The waits before a commit is sent again. The first is none: most often the first answer was
/// lost on a connection that is simply replaced.
const DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(1000),
];

/// What became of a batch that put the operation's record.
pub(crate) enum Sent {
    Applied,
    /// The record is not what the batch expected.
    Beaten(Option<Record>),
}

/// Commits a fenced batch whose first conflict is about the record at `place`, sending it again
/// where that helps.
///
/// After an error of kind `OutcomeUnknown` the batch may have been applied; after any other,
/// it was not.
pub(crate) async fn send(
    store: &impl Store,
    clock: &dyn Clock,
    place: &Place,
    batch: Batch,
    insist: Insist,
) -> Result<Sent, Error> {
    let mut delays = DELAYS.into_iter();
    let mut unknown = None;
    loop {
        let error = match store.commit(batch.clone()).await {
            Ok(_) => return Ok(Sent::Applied),
            Err(error) => error,
        };
        let hint = error.retry();
        match error.kind() {
            ErrorKind::OutcomeUnknown => unknown = Some(error),
            ErrorKind::Unavailable if unknown.is_some() => {}
            ErrorKind::Unavailable if insist == Insist::OnSuccess && delays.len() > 0 => {}
            _ => return beaten(error, place, batch.version()),
        }
        let Some(delay) = delays.next() else {
            return Err(unknown.expect("with no outcome unknown, the last error was returned above"));
        };
        let delay = if let RetryHint::After(at_least) = hint { delay.max(at_least) } else { delay };
        if !delay.is_zero() {
            clock.sleep(delay).await;
        }
    }
}

/// Reads a conflict about the record at `place`; any other error stays one.
pub(crate) fn beaten(error: Error, place: &Place, version: Version) -> Result<Sent, Error> {
    let Some(Conflict { found: Found::Record { key, record }, .. }) = error.conflict() else {
        return Err(error);
    };
    if *key != place.key {
        return Err(error);
    }
    match record {
        Some(record) if record.version == version => Ok(Sent::Applied),
        record => Ok(Sent::Beaten(record.clone())),
    }
}
