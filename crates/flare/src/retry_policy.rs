use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The waits before a delivery is tried again, where a subscription does not say so itself.
const DEFAULT_SECONDS: [u64; 7] = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];

/// The most tries that a subscription may ask for.
const MOST_TRIES: u32 = 1_000;

/// When a delivery that failed is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Seconds before the second try.
    pub interval: f64,
    /// Seconds after the first try in which others may begin; `None` is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<f64>,
    /// How many tries there are in all, the first included; 1 to 1,000.
    pub quantity: u32,
    /// How the waits grow.
    #[serde(default)]
    pub progression: Progression,
    /// By how much the waits grow: seconds added each time for `arithmetic`, a factor for
    /// `geometric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// How waits grow from try to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progression {
    /// Not at all.
    #[default]
    Linear,
    /// By `ratio` seconds each time.
    Arithmetic,
    /// By the factor `ratio` each time.
    Geometric,
}

impl RetryPolicy {
    /// # Errors
    /// `InvalidInput` naming the field and its value.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, value: &dyn std::fmt::Display, message: &'static str| {
            Err(Error::new(ErrorKind::InvalidInput, message).with("field", field).with("value", value))
        };
        let positive = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if !positive(self.interval) {
            return refuse(
                "delivery.retry.interval",
                &self.interval,
                "an interval is a positive number of seconds",
            );
        }
        if let Some(ttl) = self.ttl
            && !positive(ttl)
        {
            return refuse("delivery.retry.ttl", &ttl, "a ttl is a positive number of seconds");
        }
        if !(1..=MOST_TRIES).contains(&self.quantity) {
            return refuse("delivery.retry.quantity", &self.quantity, "there are 1 to 1,000 tries");
        }
        match (self.progression, self.ratio) {
            (Progression::Linear, None) => Ok(()),
            (Progression::Linear, Some(ratio)) => {
                refuse("delivery.retry.ratio", &ratio, "a linear progression has no ratio")
            }
            (Progression::Arithmetic | Progression::Geometric, Some(ratio)) if positive(ratio) => Ok(()),
            (Progression::Arithmetic | Progression::Geometric, Some(ratio)) => {
                refuse("delivery.retry.ratio", &ratio, "a ratio is a positive number")
            }
            (Progression::Arithmetic | Progression::Geometric, None) => {
                refuse("delivery.retry.ratio", &"none", "a progression that grows has a ratio")
            }
        }
    }

    fn wait(&self, tries: u32) -> Option<Duration> {
        if tries >= self.quantity {
            return None;
        }
        let grown = f64::from(tries.saturating_sub(1));
        let ratio = self.ratio.unwrap_or_default();
        let seconds = match self.progression {
            Progression::Linear => self.interval,
            Progression::Arithmetic => self.interval + ratio * grown,
            Progression::Geometric => self.interval * ratio.powf(grown),
        };
        // A century of waiting is for ever.
        Some(Duration::from_secs_f64(seconds.clamp(0.001, 3_155_760_000.0)))
    }
}

/// The wait after `tries` failed tries that began `elapsed` ago, `None` where there is no further
/// one. What the subscriber asked for is honoured between the wait and twice that.
pub(crate) fn next_wait(
    policy: Option<&RetryPolicy>,
    tries: u32,
    elapsed: Duration,
    asked_for: Option<Duration>,
) -> Option<Duration> {
    let wait = match policy {
        Some(policy) => policy.wait(tries)?,
        None => {
            let index = usize::try_from(tries.saturating_sub(1)).expect("a u32 fits a usize");
            Duration::from_secs(*DEFAULT_SECONDS.get(index)?)
        }
    };
    let wait = asked_for.map_or(wait, |asked_for| asked_for.clamp(wait, wait * 2));
    if let Some(ttl) = policy.and_then(|policy| policy.ttl)
        && (elapsed + wait).as_secs_f64() > ttl
    {
        return None;
    }
    Some(wait)
}

/// The wait, longer by up to a tenth, so that what failed together is not tried again together.
pub(crate) fn with_jitter(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(progression: Progression, ratio: Option<f64>) -> RetryPolicy {
        RetryPolicy { interval: 2.0, ttl: None, quantity: 5, progression, ratio }
    }

    fn waits(policy: Option<&RetryPolicy>) -> Vec<u64> {
        let wait = |tries| next_wait(policy, tries, Duration::ZERO, None);
        (1..).map_while(wait).map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn waits_follow_the_progression_until_the_tries_are_used_up() {
        assert_eq!(waits(None), DEFAULT_SECONDS);
        assert_eq!(waits(Some(&policy(Progression::Linear, None))), [2, 2, 2, 2]);
        assert_eq!(waits(Some(&policy(Progression::Arithmetic, Some(3.0)))), [2, 5, 8, 11]);
        assert_eq!(waits(Some(&policy(Progression::Geometric, Some(3.0)))), [2, 6, 18, 54]);
    }

    #[test]
    fn what_the_subscriber_asks_for_counts_within_bounds() {
        let asked = |seconds| {
            next_wait(None, 1, Duration::ZERO, Some(Duration::from_secs(seconds))).unwrap().as_secs()
        };
        assert_eq!([asked(1), asked(7), asked(600)], [5, 7, 10]);
    }

    #[test]
    fn no_try_begins_after_the_ttl() {
        let policy = RetryPolicy { ttl: Some(10.0), ..policy(Progression::Linear, None) };
        let after = |seconds| next_wait(Some(&policy), 1, Duration::from_secs(seconds), None);
        assert!(after(8).is_some());
        assert_eq!(after(9), None);
    }

    #[test]
    fn a_wrong_number_is_named() {
        for (policy, field) in [
            (RetryPolicy { interval: 0.0, ..policy(Progression::Linear, None) }, "interval"),
            (RetryPolicy { interval: f64::NAN, ..policy(Progression::Linear, None) }, "interval"),
            (RetryPolicy { ttl: Some(-1.0), ..policy(Progression::Linear, None) }, "ttl"),
            (RetryPolicy { quantity: 0, ..policy(Progression::Linear, None) }, "quantity"),
            (policy(Progression::Linear, Some(1.0)), "ratio"),
            (policy(Progression::Geometric, None), "ratio"),
            (policy(Progression::Arithmetic, Some(-2.0)), "ratio"),
        ] {
            let error = policy.check().unwrap_err();
            assert!(error.to_string().contains(&format!("delivery.retry.{field}")), "{error}");
        }
        policy(Progression::Geometric, Some(2.0)).check().unwrap();
    }
}
