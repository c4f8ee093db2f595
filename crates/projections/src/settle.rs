use std::time::Duration;

use evenkeel_core::{Batch, Clock, Committed, ErrorKind, Result, Store};

/// The waits before a batch is sent again whose outcome is not known.
const DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// Commits a batch, and sends it again where its outcome is not known and it cannot apply twice.
pub(crate) async fn commit(store: &impl Store, clock: &dyn Clock, batch: Batch) -> Result<Committed> {
    let mut delays = DELAYS.into_iter();
    let mut unknown = None;
    loop {
        let error = match store.commit(batch.clone()).await {
            Err(error) => error,
            committed => return committed,
        };
        match error.kind() {
            ErrorKind::OutcomeUnknown if batch.is_fenced() => unknown = Some(error),
            // What was sent before may yet be applied.
            ErrorKind::Unavailable if unknown.is_some() => {}
            _ => return Err(error),
        }
        let Some(delay) = delays.next() else {
            return Err(unknown.expect("with no outcome unknown, the last error was returned above"));
        };
        clock.sleep(delay).await;
    }
}
