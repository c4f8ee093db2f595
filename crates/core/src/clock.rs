use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::Timestamp;

/// The only source of time in evenkeel: what it is now, and waiting until it is later.
///
/// Everything that compares times or sleeps takes a clock, so that a test can move a
/// [`ManualClock`] through days in a microsecond.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Completes once `now()` is `at` or later. Dropping the future cancels the wait.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

impl dyn Clock {
    /// Completes after `duration`.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }

    /// The output of `future`, or `None` (and `future` dropped) where it is not ready by `at`.
    pub async fn timeout_at<F: Future>(&self, at: Timestamp, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep_until(at) => None,
        }
    }
}

/// The machine's wall clock; sleeps on tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// A shared handle, as constructors take it.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place where the system clock is read")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH + since_epoch
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place where real time passes")]
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let now = self.now();
        Box::pin(async move { tokio::time::sleep(at.since(now)).await })
    }
}

/// A clock that moves only when told to. Clones share the same time.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::{Clock, ManualClock};
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().since(before), Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
}

impl Default for ManualClock {
    /// Starts at 2001-09-09T01:46:40Z, a time with room on both sides.
    fn default() -> Self {
        Self::at(Timestamp::from_micros(1_000_000_000_000_000))
    }
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now: watch::Sender::new(now) }
    }

    /// A shared handle to the same time, as constructors take it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// Moves the time on and wakes every sleeper that has become due.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = *now + by);
    }

    /// How many sleeps are waiting at this moment.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.now.receiver_count()
    }

    /// Completes once at least `count` sleeps are waiting: a test then knows that the code under
    /// test has come to rest, and moves the clock.
    pub async fn wait_for_sleepers(&self, count: usize) {
        while self.sleepers() < count {
            tokio::task::yield_now().await;
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            if now.wait_for(|now| *now >= at).await.is_err() {
                // Every handle that could move the clock is gone: this instant never comes.
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_exactly_when_its_time_has_come() {
        let clock = ManualClock::default();
        let sleeper = tokio::spawn(clock.shared().sleep(Duration::from_secs(10)));
        clock.wait_for_sleepers(1).await;

        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());

        clock.advance(Duration::from_secs(1));
        sleeper.await.expect("the sleeper completes");
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_time_limit_drops_what_is_late_and_keeps_what_is_ready() {
        let clock = ManualClock::default();
        let shared = clock.shared();
        assert_eq!(shared.timeout_at(clock.now(), async { 7 }).await, Some(7));
        assert_eq!(shared.timeout_at(clock.now(), std::future::pending::<u8>()).await, None);
    }
}
