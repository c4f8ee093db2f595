//! What an operator sees; the table of it is in the crate's documentation.

use crate::attempt::Tried;
use crate::durable::What;
use crate::outcome::RunState;

/// The span of a try at a step, an item, a probe or a compensation of a durable run.
pub(crate) fn step_span(run: &str, step: &str, attempt: u32) -> tracing::Span {
    tracing::debug_span!("choreograph.step", run, step, attempt)
}

/// Counts what a try came to.
pub(crate) fn worked(what: &What) {
    let (callback, outcome) = match what {
        What::Tried(Tried::Done(_), _) => ("job", "done"),
        What::Tried(Tried::Skipped(_), _) => ("job", "skipped"),
        What::Tried(Tried::Cancelled(_), _) => ("job", "cancelled"),
        What::Tried(Tried::Failed(_), _) => ("job", "failed"),
        What::NotBegun(_) => ("job", "not begun"),
        What::Probed(Ok(Some(_))) => ("probe", "done"),
        What::Probed(Ok(None)) => ("probe", "not done"),
        What::Probed(Err(_)) => ("probe", "failed"),
        What::Item(Ok(_)) => ("item", "done"),
        What::Item(Err(_)) => ("item", "failed"),
        What::Undone(Ok(())) => ("compensation", "done"),
        What::Undone(Err(_)) => ("compensation", "failed"),
    };
    metrics::counter!("evenkeel_choreograph_attempts_total", "callback" => callback, "outcome" => outcome)
        .increment(1);
}

/// Counts how a run ended, or that it was parked.
pub(crate) fn ended(state: RunState) {
    metrics::counter!("evenkeel_choreograph_runs_total", "state" => state.as_str()).increment(1);
}
