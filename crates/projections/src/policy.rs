use std::time::Duration;

use evenkeel_core::{Event as RawEvent, Timestamp};
use serde::{Deserialize, Serialize};

/// What becomes of an event whose handler fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    then: OnFailure,
    retries: u32,
    first: Duration,
    longest: Duration,
}

/// What becomes of an event that fails for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The projection stops in the event's partition, until it is
    /// [resumed](crate::Operations::resume) or run anew.
    Fail,
    /// The event is skipped and a dead letter left, to be retried or dismissed.
    Ignore,
    /// The event's stream is set apart with all that follows in it, to be retried or dismissed; the
    /// rest flow. For keyed projections.
    Park,
}

impl Policy {
    /// Without retries.
    #[must_use]
    pub const fn new(then: OnFailure) -> Self {
        Self { then, retries: 0, first: Duration::ZERO, longest: Duration::ZERO }
    }

    /// Applies the event again up to `times` times, after `first`, then twice that, and so on up to
    /// `longest`. What follows it in the partition waits.
    #[must_use]
    pub const fn retry(mut self, times: u32, first: Duration, longest: Duration) -> Self {
        (self.retries, self.first, self.longest) = (times, first, longest);
        self
    }

    /// What becomes of the event in the end.
    #[must_use]
    pub const fn then(&self) -> OnFailure {
        self.then
    }

    /// The wait after the failure number `attempts`, from 1; `None` where that was the last.
    pub(crate) fn delay(&self, attempts: u32) -> Option<Duration> {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX));
        (attempts <= self.retries).then(|| doubled.min(self.longest))
    }
}

/// An event that could not be applied, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The event's position in its partition.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its version there.
    pub version: u64,
    /// Its kind.
    pub kind: String,
    /// What the handler said last.
    pub error: String,
    /// How often it was applied alone.
    pub attempts: u32,
    /// When it failed last.
    pub failed_at: Timestamp,
}

impl Failure {
    pub(crate) fn new(event: &RawEvent, error: String, attempts: u32, failed_at: Timestamp) -> Self {
        Self {
            position: event.position,
            stream: event.stream.clone(),
            version: event.version,
            kind: event.kind.clone(),
            error,
            attempts,
            failed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_end() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(5));
        let policy = Policy::new(OnFailure::Fail).retry(4, first, longest);
        let delays: Vec<_> = (1..=5).map(|attempts| policy.delay(attempts).map(|d| d.as_secs())).collect();
        assert_eq!(delays, [Some(1), Some(2), Some(4), Some(5), None]);
        let endless = Policy::new(OnFailure::Fail).retry(u32::MAX, first, longest);
        assert_eq!(endless.delay(1000), Some(longest));
    }
}
