use std::time::Duration;

use evenkeel_core::Timestamp;

/// Spaces deliveries so that there are at most so many a second.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two deliveries; `None` is no limit.
    interval: Option<Duration>,
    /// When the next may begin.
    next: Timestamp,
}

impl Pace {
    /// Deliveries that would begin within this time of each other may begin together.
    const SLACK: Duration = Duration::from_millis(10);

    pub(crate) fn new(per_second: Option<f64>) -> Self {
        let interval = per_second.map(|rate| Duration::from_secs_f64(1.0 / rate));
        Self { interval, next: Timestamp::MIN }
    }

    /// How many of `wanted` may begin at `now`.
    pub(crate) fn room(&self, now: Timestamp, wanted: usize) -> usize {
        let Some(interval) = self.interval else { return wanted };
        let horizon = now + Self::SLACK;
        let (mut at, mut room) = (self.next.max(now), 0);
        if self.next > now {
            return 0;
        }
        while room < wanted && at < horizon {
            at = at + interval;
            room += 1;
        }
        room
    }

    /// Notes that `count` begin at `now`.
    pub(crate) fn take(&mut self, now: Timestamp, count: usize) {
        if let Some(interval) = self.interval {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.next = self.next.max(now) + interval * count;
        }
    }

    /// When the next may begin, where that is later than `now`.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.interval.is_some().then_some(self.next).filter(|next| *next > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_as_many_deliveries_as_the_rate_says() {
        for (rate, expected) in [(0.5, 1), (1.0, 1), (10.0, 10), (1_000.0, 1_000)] {
            let mut pace = Pace::new(Some(rate));
            let mut begun = 0;
            for millisecond in 0..1_000 {
                let now = Timestamp::EPOCH + Duration::from_millis(millisecond);
                let room = pace.room(now, usize::MAX);
                pace.take(now, room);
                begun += room;
            }
            assert!((expected..=expected + expected / 50).contains(&begun), "{begun} at {rate} a second");
        }
    }

    #[test]
    fn without_a_rate_there_is_room_for_all() {
        let mut pace = Pace::new(None);
        pace.take(Timestamp::EPOCH, 1_000);
        assert_eq!(pace.room(Timestamp::EPOCH, 7), 7);
        assert_eq!(pace.next(Timestamp::EPOCH), None);
    }
}
