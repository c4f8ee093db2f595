//! What an operator sees; the table of it is in the crate's documentation.

use evenkeel_core::{Partition, Timestamp};

use crate::OnFailure;

pub(crate) fn received(projection: &str, events: usize) {
    count("evenkeel_projections_received_total", projection, events);
}

pub(crate) fn queued(projection: &str, events: usize) {
    count("evenkeel_projections_queued_total", projection, events);
}

pub(crate) fn started(projection: &str, events: usize) {
    count("evenkeel_projections_started_total", projection, events);
}

pub(crate) fn applied(projection: &str, events: usize) {
    count("evenkeel_projections_applied_total", projection, events);
}

pub(crate) fn given_up(projection: &str, then: OnFailure) {
    let outcome = match then {
        OnFailure::Fail => "failed",
        OnFailure::Ignore => "ignored",
        OnFailure::Park => "parked",
    };
    let projection = projection.to_owned();
    metrics::counter!("evenkeel_projections_given_up_total", "projection" => projection, "outcome" => outcome)
        .increment(1);
}

pub(crate) fn compacted(projection: &str, outcome: &'static str) {
    let projection = projection.to_owned();
    metrics::counter!("evenkeel_projections_compactions_total", "projection" => projection, "outcome" => outcome)
        .increment(1);
}

pub(crate) fn lag(projection: &str, at: &Partition, events: u64) {
    let (projection, partition) = (projection.to_owned(), at.to_string());
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("evenkeel_projections_lag_events", "projection" => projection, "partition" => partition)
        .set(events as f64);
}

pub(crate) fn polled(projection: &str, at: &Partition, now: Timestamp) {
    let (projection, partition) = (projection.to_owned(), at.to_string());
    let seconds = now.since(Timestamp::EPOCH).as_secs_f64();
    metrics::gauge!("evenkeel_projections_polled_seconds", "projection" => projection, "partition" => partition)
        .set(seconds);
}

fn count(name: &'static str, projection: &str, events: usize) {
    let events = u64::try_from(events).expect("a usize fits a u64");
    metrics::counter!(name, "projection" => projection.to_owned()).increment(events);
}
