use std::time::Duration;

/// How often, and when, a callback that failed is tried again.
///
/// The waits grow by powers of two from [`first`](Self::first) to [`longest`](Self::longest), and
/// each is drawn evenly from nothing to that ("full jitter"), so that what failed together is not
/// tried again together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    first: Duration,
    longest: Duration,
    elapsed: Option<Duration>,
}

impl RetryPolicy {
    /// One attempt.
    pub const NONE: Self = Self::attempts(1);

    /// So many attempts in all, at least 1; the first wait is up to 1 second, the longest up to
    /// 5 minutes.
    #[must_use]
    pub const fn attempts(attempts: u32) -> Self {
        let attempts = if attempts == 0 { 1 } else { attempts };
        Self { attempts, first: Duration::from_secs(1), longest: Duration::from_mins(5), elapsed: None }
    }

    /// The first wait at most.
    #[must_use]
    pub const fn first(self, wait: Duration) -> Self {
        Self { first: wait, ..self }
    }

    /// Any wait at most.
    #[must_use]
    pub const fn longest(self, wait: Duration) -> Self {
        Self { longest: wait, ..self }
    }

    /// No attempt begins later than this after the first began.
    #[must_use]
    pub const fn max_elapsed(self, elapsed: Duration) -> Self {
        Self { elapsed: Some(elapsed), ..self }
    }

    /// The wait after `attempts` failed ones, the first of which began `elapsed` ago; `None` where
    /// there is no further one.
    pub(crate) fn wait(&self, attempts: u32, elapsed: Duration) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let wait = self.first.saturating_mul(doubled).min(self.longest).mul_f64(fastrand::f64());
        if self.elapsed.is_some_and(|most| elapsed + wait > most) { None } else { Some(wait) }
    }
}

/// That many attempts in all.
impl From<u32> for RetryPolicy {
    fn from(attempts: u32) -> Self {
        Self::attempts(attempts)
    }
}

/// What to do with a step that was cut off, where no probe says whether it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInterrupted {
    /// Run it again.
    #[default]
    Retry,
    /// Park the run, for a person to decide.
    Park,
}

/// What a group of parallel branches does when one of them fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Lets the others come to their end, then fails.
    All,
    /// Begins no further step of the others; callbacks under way see that the run is cancelled.
    FailFast,
}

/// What a worker does with a run whose version of the definition is not registered with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionPolicy {
    /// Leaves it to workers that have it.
    #[default]
    Pin,
    /// Parks it, for a person to decide.
    Park,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_drawn_from_nothing_on() {
        let policy = RetryPolicy::attempts(6).longest(Duration::from_secs(5));
        for (attempts, most) in [(1, 1), (2, 2), (3, 4), (4, 5), (5, 5)] {
            let waits: Vec<_> =
                (0..200).map(|_| policy.wait(attempts, Duration::ZERO).unwrap().as_secs_f64()).collect();
            let most = f64::from(most);
            assert!(waits.iter().all(|wait| *wait <= most), "after {attempts}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait < most / 2.0), "after {attempts}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait > most / 2.0), "after {attempts}: {waits:?}");
        }
        assert_eq!(policy.wait(6, Duration::ZERO), None);
    }

    #[test]
    fn no_attempt_begins_after_the_longest_time_in_all() {
        let policy = RetryPolicy::attempts(9).max_elapsed(Duration::from_secs(10));
        assert_eq!(policy.wait(1, Duration::from_secs(11)), None);
        assert!(policy.wait(1, Duration::from_secs(8)).is_some());
    }

    #[test]
    fn there_is_at_least_one_attempt() {
        assert_eq!(RetryPolicy::attempts(0), RetryPolicy::NONE);
    }
}
