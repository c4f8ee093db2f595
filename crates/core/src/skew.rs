//! How far the caller's clock and a server's are apart; for stores to use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Compares the caller's clock with the server's, and refuses to work while they are too far apart.
///
/// No commit is wrong because of a clock; but with clocks apart, leases lapse while their holders
/// believe in them, and records are reclaimed that others can still see.
pub struct Skew {
    clock: Arc<dyn Clock>,
    limit: Limit,
    last: Mutex<Option<Observation>>,
}

enum Limit {
    AtMost(Duration),
    Unchecked,
}

#[derive(Clone, Copy)]
struct Observation {
    at: Timestamp,
    apart: Duration,
}

impl Skew {
    /// How often stores compare.
    pub const EVERY: Duration = Duration::from_secs(60);

    /// Allows `max_skew` between `clock` and the server's.
    #[must_use]
    pub fn at_most(max_skew: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { clock, limit: Limit::AtMost(max_skew), last: Mutex::default() }
    }

    /// Allows anything: for tests that live in a time of their own.
    #[must_use]
    pub fn unchecked(clock: Arc<dyn Clock>) -> Self {
        Self { clock, limit: Limit::Unchecked, last: Mutex::default() }
    }

    /// Whether it is time to compare again. Says so to one of several who ask.
    #[must_use]
    pub fn is_due(&self) -> bool {
        if matches!(self.limit, Limit::Unchecked) {
            return false;
        }
        let now = self.clock.now();
        let mut last = self.last();
        let is_due = last.is_none_or(|last| now.since(last.at) >= Self::EVERY);
        if is_due {
            // Whoever hears so compares now; should that fail, the next turn is a minute later.
            let apart = last.map_or(Duration::ZERO, |last| last.apart);
            *last = Some(Observation { at: now, apart });
        }
        is_due
    }

    /// Notes that the server's clock said `server` at some moment between `asked` and now.
    pub fn observe(&self, asked: Timestamp, server: Timestamp) {
        let now = self.clock.now();
        let apart = asked.since(server).max(server.since(now));
        *self.last() = Some(Observation { at: now, apart });
    }

    /// Whether the clocks are close enough, as far as is known.
    ///
    /// # Errors
    /// `Config` where they were too far apart when last compared.
    pub fn check(&self) -> Result<()> {
        let Limit::AtMost(limit) = self.limit else { return Ok(()) };
        match *self.last() {
            Some(Observation { apart, .. }) if apart > limit => Err(Error::new(
                ErrorKind::Config,
                "this machine's clock and the server's are too far apart: synchronise both, with NTP for one",
            )
            .with("apart", format_args!("{apart:?}"))
            .with("limit", format_args!("{limit:?}"))),
            _ => Ok(()),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Observation>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skew").field("apart", &self.last().map(|last| last.apart)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn clocks_that_are_too_far_apart_are_refused_until_they_agree() {
        let clock = ManualClock::default();
        let skew = Skew::at_most(LIMIT, clock.shared());
        assert!(skew.check().is_ok(), "nothing is known yet");

        for (ahead, behind) in [(LIMIT, Duration::ZERO), (Duration::ZERO, LIMIT)] {
            let server = clock.now() + ahead - behind;
            skew.observe(clock.now(), server);
            assert!(skew.check().is_ok());
            let second = Duration::from_secs(1);
            let further = if ahead > behind { server + second } else { server - second };
            skew.observe(clock.now(), further);
            assert_eq!(skew.check().unwrap_err().kind(), ErrorKind::Config);
            skew.observe(clock.now(), clock.now());
            assert!(skew.check().is_ok());
        }
    }

    #[test]
    fn a_slow_answer_is_not_taken_for_skew() {
        let clock = ManualClock::default();
        let skew = Skew::at_most(LIMIT, clock.shared());
        let asked = clock.now();
        clock.advance(Duration::from_secs(300));
        skew.observe(asked, asked + Duration::from_secs(100));
        assert!(skew.check().is_ok());
    }

    #[test]
    fn one_of_those_who_ask_compares_each_minute() {
        let clock = ManualClock::default();
        let skew = Skew::at_most(LIMIT, clock.shared());
        assert_eq!([skew.is_due(), skew.is_due()], [true, false]);
        clock.advance(Skew::EVERY);
        assert_eq!([skew.is_due(), skew.is_due()], [true, false]);
    }

    #[test]
    fn an_unchecked_clock_may_be_anywhere() {
        let clock = ManualClock::default();
        let skew = Skew::unchecked(clock.shared());
        assert!(!skew.is_due());
        skew.observe(clock.now(), Timestamp::EPOCH);
        assert!(skew.check().is_ok());
    }
}
