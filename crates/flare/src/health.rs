use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Key, Record, Result, Timestamp, Version};
use serde::{Deserialize, Serialize};

use crate::places;

/// How a subscription fares; the default is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// When the first of the failures was that no success followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Whether there was a notice of the failures.
    #[serde(default)]
    pub(crate) is_noticed: bool,
    /// Whether there was a notice that no message can be made.
    #[serde(default)]
    pub(crate) is_broken: bool,
    #[serde(default)]
    pub(crate) breaker: Breaker,
}

/// Whether deliveries are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They are.
    #[default]
    Active,
    /// An operator said not now; what is published waits.
    Paused,
    /// An operator said no more, the subscriber answered 410 Gone, or nothing succeeded for too
    /// long; what is published waits, too.
    Disabled,
}

impl Health {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a health is JSON")
    }

    /// What the record says, if any; without one a subscription is well.
    pub(crate) fn decode(record: Option<&Record>) -> Result<(Self, Option<Version>)> {
        let Some(record) = record else { return Ok((Self::default(), None)) };
        let health = serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "a health's record is not one").with_source(source)
        })?;
        Ok((health, Some(record.version)))
    }
}

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Notice {
    /// The subscription.
    pub subscription: String,
    /// What happened.
    pub kind: NoticeKind,
    /// When.
    pub at: Timestamp,
    /// In words.
    pub message: String,
}

/// What happened to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoticeKind {
    /// Its deliveries fail one after the other.
    Failing,
    /// A delivery failed for the last time.
    Exhausted,
    /// Deliveries are made no more.
    Disabled,
    /// A delivery succeeded after the failures.
    Recovered,
    /// No message can be made of it, as where the vault lacks the key of its secret.
    Broken,
}

impl Notice {
    /// Notices sort by their time.
    pub(crate) fn key(&self, what: &str) -> Key {
        let id = format!("{:020}-{}", self.at.as_micros().max(0), places::hash(&[&self.subscription, what]));
        Key::new(places::NOTICES, places::ALL, id)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notice is JSON")
    }

    pub(crate) fn decode(record: &Record) -> Result<Self> {
        serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "a notice's record is not one").with_source(source)
        })
    }
}

/// Keeps a subscriber that fails from being tried over and over: after some failures in a row
/// nothing is sent for a while, and then one delivery at a time until one succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breaker {
    failures: u32,
    open_until: Option<Timestamp>,
}

/// What an outcome does to a [`Breaker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    /// It opened for the first time in this series of failures.
    Opened,
}

impl Breaker {
    /// The failures in a row after which it opens.
    const LIMIT: u32 = 10;
    const FIRST_PAUSE: Duration = Duration::from_secs(5);
    const LONGEST_PAUSE: Duration = Duration::from_secs(300);

    pub(crate) fn failed(&mut self, now: Timestamp) -> Turn {
        // What was under way when it opened says nothing new.
        if self.closed_off_until(now).is_some() {
            return Turn::None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < Self::LIMIT {
            return Turn::None;
        }
        let turn = if self.open_until.is_none() { Turn::Opened } else { Turn::None };
        let pauses = self.failures.saturating_sub(Self::LIMIT).min(16);
        self.open_until = Some(now + (Self::FIRST_PAUSE * (1 << pauses)).min(Self::LONGEST_PAUSE));
        turn
    }

    /// Until when nothing is sent.
    pub(crate) fn closed_off_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.open_until.filter(|until| now < *until)
    }

    /// How many deliveries may be under way at `now`, of `concurrency`.
    pub(crate) fn room(&self, now: Timestamp, concurrency: usize) -> usize {
        match self.open_until {
            Some(until) if now < until => 0,
            Some(_) => 1,
            None => concurrency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_after_ten_failures_and_lets_one_through_at_a_time() {
        let (mut breaker, start) = (Breaker::default(), Timestamp::EPOCH);
        for _ in 0..9 {
            assert_eq!(breaker.failed(start), Turn::None);
        }
        assert_eq!(breaker.room(start, 32), 32);
        assert_eq!(breaker.failed(start), Turn::Opened);
        assert_eq!(breaker.failed(start), Turn::None);
        assert_eq!(breaker.room(start, 32), 0);

        let until = breaker.closed_off_until(start).unwrap();
        assert_eq!(until.since(start), Duration::from_secs(5));
        assert_eq!(breaker.room(until, 32), 1);
        assert_eq!(breaker.failed(until), Turn::None);
        assert_eq!(breaker.closed_off_until(until).unwrap().since(until), Duration::from_secs(10));
    }

    #[test]
    fn the_pause_never_exceeds_five_minutes() {
        let (mut breaker, mut now) = (Breaker::default(), Timestamp::EPOCH);
        for _ in 0..100 {
            breaker.failed(now);
            now = breaker.closed_off_until(now).unwrap_or(now);
        }
        breaker.failed(now);
        assert_eq!(breaker.closed_off_until(now).unwrap().since(now), Duration::from_secs(300));
    }
}
