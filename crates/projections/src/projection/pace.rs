use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many events the first commit has.
const FIRST: usize = 100;

/// What takes less may take more events next time, and what takes more is to take fewer.
const QUICK: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(500);

/// After so many quick commits that were as large as may be, they may be larger.
const CONFIDENCE: usize = 64;

/// How many events go into a commit: more while they are quick, fewer where they are slow,
/// contended for, or do not fit.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    events: usize,
    /// What is too large beyond it, as far as is known.
    limit: usize,
    /// How many events are left of a commit that was too large. While they are committed, smaller
    /// ones that are too large say nothing new: it may be one event that takes up the room.
    unfit: usize,
    quick_at_limit: usize,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        let state = State { events: FIRST.min(most), limit: most, unfit: 0, quick_at_limit: 0 };
        Self { most, state: Mutex::new(state) }
    }

    pub(super) fn events(&self) -> usize {
        self.state().events
    }

    /// A commit of `events` took this long.
    pub(super) fn took(&self, events: usize, time: Duration) {
        let mut state = self.state();
        state.unfit = state.unfit.saturating_sub(events);
        if time > SLOW {
            state.shrink(events);
        } else if time < QUICK && events >= state.events {
            state.grow(self.most);
        }
    }

    /// A commit of `events` is to be tried with fewer.
    pub(super) fn shrink(&self, events: usize) {
        self.state().shrink(events);
    }

    /// A commit of `events` does not fit.
    pub(super) fn too_large(&self, events: usize) {
        let mut state = self.state();
        state.shrink(events);
        if state.unfit == 0 {
            // A quarter below, so that it is not found out again and again.
            state.limit = (events - events / 4).saturating_sub(1).clamp(1, state.limit);
            (state.unfit, state.quick_at_limit) = (events, 0);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grow(&mut self, most: usize) {
        if self.events < self.limit {
            self.events = self.events.saturating_mul(2).clamp(1, self.limit);
            return;
        }
        self.quick_at_limit += 1;
        if self.quick_at_limit >= CONFIDENCE {
            self.limit = (self.limit + (self.limit / 8).max(1)).min(most);
            (self.events, self.quick_at_limit) = (self.limit, 0);
        }
    }

    fn shrink(&mut self, events: usize) {
        self.events = (events / 2).max(1).min(self.events);
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

    #[test]
    fn one_event_that_takes_up_the_room_does_not_slow_down_the_rest() {
        let pace = Pace::new(1000);
        // Halved until what does not fit stands alone.
        for events in [100, 50, 25, 12, 6, 3, 1] {
            pace.too_large(events);
        }
        assert_eq!(pace.events(), 1);
        (0..10).for_each(|_| pace.took(pace.events(), Duration::ZERO));
        assert_eq!(pace.events(), 74);
    }

    #[test]
    fn what_was_too_large_once_is_tried_again_after_a_while() {
        let pace = Pace::new(1000);
        pace.too_large(2);
        let commits = (1..).find(|_| {
            pace.took(pace.events(), Duration::ZERO);
            pace.events() > 4
        });
        assert_eq!(commits, Some(4 * CONFIDENCE));
    }
}
