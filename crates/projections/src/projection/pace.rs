use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How many events the first commit has.
const FIRST: usize = 100;

/// What takes less may take more events next time, and what takes more is to take fewer.
const QUICK: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(500);

/// How many events go into a commit: more while they are quick, fewer where they are slow,
/// contended for, or do not fit.
#[derive(Debug)]
pub(super) struct Pace {
    events: AtomicUsize,
    most: usize,
    /// What was too large, for good: the next ones will hardly be smaller.
    limit: AtomicUsize,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        Self { events: AtomicUsize::new(FIRST.min(most)), most, limit: AtomicUsize::new(most) }
    }

    pub(super) fn events(&self) -> usize {
        self.events.load(Relaxed)
    }

    /// A commit of `events` took this long.
    pub(super) fn took(&self, events: usize, time: Duration) {
        let now = self.events();
        if time > SLOW {
            self.shrink(events);
        } else if time < QUICK && events >= now {
            let limit = self.limit.load(Relaxed).min(self.most);
            self.events.store(now.saturating_mul(2).clamp(1, limit), Relaxed);
        }
    }

    /// A commit of `events` is to be tried with fewer.
    pub(super) fn shrink(&self, events: usize) {
        self.events.store((events / 2).max(1).min(self.events()), Relaxed);
    }

    /// A commit of `events` does not fit.
    pub(super) fn too_large(&self, events: usize) {
        self.shrink(events);
        // A quarter below, so that it is not found out again and again.
        self.limit.fetch_min((events - events / 4).saturating_sub(1).max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_quick_and_shrinks_when_slow_or_too_large() {
        let pace = Pace::new(1000);
        pace.took(100, Duration::ZERO);
        assert_eq!(pace.events(), 200);
        pace.took(7, Duration::ZERO);
        assert_eq!(pace.events(), 200, "a small batch says nothing");
        pace.took(200, Duration::from_secs(1));
        assert_eq!(pace.events(), 100);
        pace.too_large(100);
        assert_eq!(pace.events(), 50);
        (0..10).for_each(|_| pace.took(pace.events(), Duration::ZERO));
        assert_eq!(pace.events(), 74, "it stays below what was too large");
        pace.too_large(1);
        assert_eq!(pace.events(), 1);
    }
}
