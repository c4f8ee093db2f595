use evenkeel_core::Timestamp;

use crate::state::Ending;
use crate::{Fingerprint, OnInterrupted, Status, Tracked};

/// What becomes of an arrival.
///
/// | found | expired | not expired |
/// |---|---|---|
/// | nothing | `Expired` | `Run` |
/// | running, lease alive | `Expired` | `Running` |
/// | running, lease lapsed | `Expired` | `Run`, or `Interrupted` by policy |
/// | finished | `Replay` | `Replay` |
/// | failed | `Expired` | `Run` |
/// | any of these with another fingerprint | `Mismatch` | `Mismatch` |
///
/// A failure recorded for an attempt that was cut off counts as a lapsed lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Run,
    Replay,
    Running,
    Interrupted,
    Mismatch,
    Expired,
}

/// What matters about an arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) on_interrupted: OnInterrupted,
}

impl Arrival {
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

pub(crate) fn decide(found: Option<&Tracked>, arrival: &Arrival, now: Timestamp) -> Decision {
    let interrupted = match arrival.on_interrupted {
        OnInterrupted::Retry => Decision::Run,
        OnInterrupted::Refuse => Decision::Interrupted,
    };
    match found {
        None if arrival.is_expired(now) => Decision::Expired,
        None => Decision::Run,
        Some(found) if found.fingerprint != arrival.fingerprint => Decision::Mismatch,
        Some(found) if found.status == Status::Finished => Decision::Replay,
        Some(found) if found.is_expired(now) || arrival.is_expired(now) => Decision::Expired,
        Some(found) => match found.status {
            Status::Running if found.lease_until > now => Decision::Running,
            Status::Running => interrupted,
            Status::Failed if found.ending == Some(Ending::Interrupted) => interrupted,
            Status::Failed | Status::Finished => Decision::Run,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Decision::{Expired, Interrupted, Mismatch, Replay, Run, Running};
    use super::*;
    use crate::{Identity, Scope};

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);
    const FUTURE: Timestamp = Timestamp::from_micros(1_000_001);

    fn tracked(status: Status, lease_until: Timestamp, ending: Option<Ending>) -> Tracked {
        Tracked {
            identity: Identity::new(Scope::Global, "t", "k"),
            status,
            attempt: 1,
            fingerprint: Fingerprint::of("same"),
            reference_time: Timestamp::EPOCH,
            started_at: Timestamp::EPOCH,
            finished_at: None,
            lease_until,
            timeout: Duration::ZERO,
            expires_at: None,
            error_count: 0,
            error: None,
            ending,
            result: None,
        }
    }

    #[test]
    fn every_cell_of_the_decision_table() {
        let alive = tracked(Status::Running, FUTURE, None);
        let lapsed = tracked(Status::Running, NOW, None);
        let finished = tracked(Status::Finished, NOW, None);
        let failed = tracked(Status::Failed, NOW, Some(Ending::Reported));
        let released = tracked(Status::Failed, NOW, Some(Ending::Released));
        let cut_off = tracked(Status::Failed, NOW, Some(Ending::Interrupted));
        // found; expired; not expired under Retry; not expired under Refuse
        let table = [
            (None, Expired, Run, Run),
            (Some(&alive), Expired, Running, Running),
            (Some(&lapsed), Expired, Run, Interrupted),
            (Some(&finished), Replay, Replay, Replay),
            (Some(&failed), Expired, Run, Run),
            (Some(&released), Expired, Run, Run),
            (Some(&cut_off), Expired, Run, Interrupted),
        ];
        let arrival = |text: &str, expires_at, on_interrupted| Arrival {
            fingerprint: Fingerprint::of(text),
            expires_at,
            on_interrupted,
        };
        for (found, expired, retry, refuse) in table {
            for (policy, not_expired) in [(OnInterrupted::Retry, retry), (OnInterrupted::Refuse, refuse)] {
                // The arrival's own expiration.
                for (expires_at, want) in
                    [(None, not_expired), (Some(FUTURE), not_expired), (Some(NOW), expired)]
                {
                    let same = arrival("same", expires_at, policy);
                    assert_eq!(decide(found, &same, NOW), want, "{found:?} {same:?}");
                    let other = arrival("other", expires_at, policy);
                    let want = if found.is_some() { Mismatch } else { want };
                    assert_eq!(decide(found, &other, NOW), want, "{found:?} {other:?}");
                }
                // The expiration recorded for what was found.
                let Some(found) = found else { continue };
                for (expires_at, want) in [(Some(FUTURE), not_expired), (Some(NOW), expired)] {
                    let found = Tracked { expires_at, ..found.clone() };
                    let same = arrival("same", None, policy);
                    assert_eq!(decide(Some(&found), &same, NOW), want, "{found:?}");
                    let other = arrival("other", None, policy);
                    assert_eq!(decide(Some(&found), &other, NOW), Mismatch, "{found:?}");
                }
            }
        }
    }
}
