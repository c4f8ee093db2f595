use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Batch, Expect, Record, Store, StoreExt, Timestamp};
use tokio::runtime::Handle;

use crate::decision::{Arrival, Decision, decide};
use crate::detached::Detached;
use crate::engine::{Engine, Idempotency, Task};
use crate::error::Result;
use crate::observe;
use crate::operation::Place;
use crate::ownership::Ownership;
use crate::record::{Entry, Sight, list, put_expecting};
use crate::send::{Insist, Sent, send};
use crate::state::{Stored, corrupt};
use crate::waiters::Waiter;
use crate::{Answer, Content, Error, ErrorKind, Guard, OnRunning, Operation, Status, Tracked};

/// What a claim came to.
#[derive(Debug)]
pub enum Claim<S: Store + Clone> {
    /// Run the operation and tell the guard.
    Run(Guard<S>),
    /// It ran before; this is its answer.
    Replay(Answer),
}

/// The first wait between two looks at an operation in other hands; doubled up to the longest.
const FIRST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_secs(1);

impl<S: Store + Clone> Idempotency<S> {
    /// Claims an operation or sees what became of it: one commit where nobody has it, and one
    /// where it is finished.
    ///
    /// Of any number of simultaneous claims in any number of processes, exactly one owns the
    /// operation. An arrival that finds it in other hands and [waits](OnRunning::Wait) gets what
    /// comes of that attempt; it never runs an operation whose failure it has waited for.
    ///
    /// Where the future is dropped while the claim is being written, that goes on in the
    /// background, and a claim won is recorded as failed.
    ///
    /// # Errors
    /// `Running`, `Mismatch`, `Expired`, `Interrupted` and `Failed` by what was found;
    /// `InvalidInput` for malformed text in the identity; `Store`. After a `Store` error of kind
    /// `OutcomeUnknown`, nobody may be able to run the operation until the lease has lapsed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[tracing::instrument(
        name = "idempotency.claim",
        level = "debug",
        skip_all,
        fields(target = operation.identity.target, key = operation.identity.key, outcome),
    )]
    pub async fn claim(&self, operation: Operation) -> Result<Claim<S>> {
        let result = self.decide_and_take(operation).await;
        observe::claimed(&result);
        result
    }

    async fn decide_and_take(&self, operation: Operation) -> Result<Claim<S>> {
        let engine = &*self.engine;
        let mut task = Task::new(self, operation)?;
        let arrived = engine.now();
        let (reference_time, expires_at) = engine.settings.expiry(&task.operation, arrived);
        let arrival = Arrival {
            fingerprint: task.operation.fingerprint,
            expires_at,
            on_interrupted: engine.settings.on_interrupted(&task.operation),
        };
        let on_running = engine.settings.on_running(&task.operation);
        let place = Arc::clone(&task.place);

        let mut failures_seen = None;
        let mut waiting = None;
        // Most often nobody has it: the claim itself shows otherwise. An expired arrival must
        // leave no trace, so it looks first.
        let mut found = if arrival.is_expired(arrived) { engine.look(&place).await? } else { None };
        loop {
            let now = engine.now();
            let decision = decide(found.as_ref().map(|sight| &sight.tracked), &arrival, now);
            if let Some(sight) = &found
                && matches!(decision, Decision::Run | Decision::Running)
                && sight.tracked.error_count > *failures_seen.get_or_insert(sight.tracked.error_count)
            {
                return Err(failed(&sight.tracked));
            }
            match (decision, found) {
                (Decision::Replay, Some(sight)) => {
                    return Ok(Claim::Replay(engine.answer(&sight.tracked, &place).await?));
                }
                (Decision::Running, Some(sight)) => {
                    let Some(until) = waits_until(on_running, arrived, now) else {
                        return Err(running(&sight.tracked, now));
                    };
                    let wait = waiting.get_or_insert_with(|| Wait::new(engine, &place));
                    wait.pause(engine, until.min(sight.tracked.lease_until)).await;
                    found = engine.look(&place).await?;
                }
                (Decision::Run, before) => {
                    let take = take(task, before, (reference_time, expires_at));
                    match Detached::new(Handle::current(), take).await? {
                        Taken::Won(guard) => return Ok(Claim::Run(guard)),
                        Taken::Beaten(back, record) => {
                            task = *back;
                            found = Sight::read(record, &place)?;
                        }
                    }
                }
                (decision, _) => return Err(refused(decision, &task)),
            }
        }
    }
}

/// How an attempt to take an operation went.
enum Taken<S: Store + Clone> {
    Won(Guard<S>),
    Beaten(Box<Task<S>>, Option<Record>),
}

/// Begins an attempt where nothing changed since `before` was seen.
async fn take<S: Store + Clone>(
    task: Task<S>,
    before: Option<Sight>,
    (reference_time, expires_at): (Timestamp, Option<Timestamp>),
) -> Result<Taken<S>> {
    let engine = Arc::clone(&task.engine);
    let now = engine.now();
    let mut tracked = Tracked {
        identity: task.operation.identity.clone(),
        status: Status::Running,
        attempt: before.as_ref().map_or(0, |sight| sight.tracked.attempt).saturating_add(1),
        fingerprint: task.operation.fingerprint,
        reference_time,
        started_at: now,
        finished_at: None,
        lease_until: now + engine.settings.lease,
        timeout: task.operation.timeout,
        expires_at,
        error_count: before.as_ref().map_or(0, |sight| sight.tracked.error_count),
        error: before.as_ref().and_then(|sight| sight.tracked.error.clone()),
        ending: None,
        result: None,
    };
    tracked.lease_until = tracked.lease_until.min(tracked.renewable_until());

    let expect = before.as_ref().map_or(Expect::Absent, |sight| Expect::Version(sight.version));
    let mut batch = Batch::new(task.place.at.clone(), now);
    put_expecting(&mut batch, &task.place, &tracked, tracked.encode(), expect, &engine);
    let listed = before.and_then(|sight| Entry::of(&sight.tracked, &task.place));
    list(&mut batch, &task.place, listed, &tracked, &engine);
    let version = batch.version();
    match send(&engine.store, &*engine.settings.clock, &task.place, batch, Insist::OnOutcome).await? {
        Sent::Applied => {
            tracing::debug!(target = %tracked.identity.target, key = %tracked.identity.key, attempt = tracked.attempt, "claimed");
            let ownership = Arc::new(Ownership::new(task, tracked, version));
            engine.keeper.watch(&engine, Arc::clone(&ownership));
            Ok(Taken::Won(Guard::new(ownership, Handle::current())))
        }
        Sent::Beaten(record) => Ok(Taken::Beaten(Box::new(task), record)),
    }
}

impl<S: Store + Clone> Engine<S> {
    pub(crate) async fn look(&self, place: &Place) -> Result<Option<Sight>> {
        let record = self.store.get_one(&place.at, self.now(), &place.key).await?;
        Sight::read(record, place)
    }

    async fn answer(&self, tracked: &Tracked, place: &Place) -> Result<Answer> {
        let content = match &tracked.result {
            Some(Stored::Omitted { bytes }) => Content::NotStored { bytes: *bytes },
            Some(Stored::Chunks(chunks)) => match &self.settings.offload {
                Some(offload) => Content::Stored(offload.read(chunks, self.now()).await?),
                None => return Err(corrupt("the answer is in a second store, and none is set", place)),
            },
            Some(stored) => Content::Stored(stored.decode(place)?),
            None => return Err(corrupt("the operation finished without a result", place)),
        };
        let finished_at = tracked.finished_at.unwrap_or(tracked.started_at);
        Ok(Answer { content, attempt: tracked.attempt, finished_at })
    }
}

/// Looking again and again at an operation in other hands.
struct Wait<'a> {
    waiter: Waiter<'a>,
    next_poll: Option<Duration>,
}

impl<'a> Wait<'a> {
    fn new<S>(engine: &'a Engine<S>, place: &Place) -> Self {
        Self { waiter: engine.waiters.enter(&place.id), next_poll: None }
    }

    /// Returns when it is time for another look, `until` at the latest.
    async fn pause<S>(&mut self, engine: &Engine<S>, until: Timestamp) {
        // The attempt may have ended between the last look and our entry, unheard.
        let Some(poll) = self.next_poll.replace(FIRST_POLL) else { return };
        self.next_poll = Some(LONGEST_POLL.min(poll * 2));
        tokio::select! {
            () = self.waiter.ended() => self.next_poll = Some(FIRST_POLL),
            () = engine.settings.clock.sleep_until(until.min(engine.now() + poll)) => {}
        }
    }
}

/// Until when to wait for an attempt in other hands; `None` where there is no waiting any more.
fn waits_until(on_running: OnRunning, arrived: Timestamp, now: Timestamp) -> Option<Timestamp> {
    match on_running {
        OnRunning::Reject => None,
        OnRunning::Wait(max) => Some(arrived + max).filter(|until| *until > now),
    }
}

/// The hint doubles the time that the attempt has taken so far, and is neither less than a second
/// nor beyond the lease.
fn running(tracked: &Tracked, now: Timestamp) -> Error {
    let second = Duration::from_secs(1);
    let left = tracked.lease_until.since(now);
    let delay = now.since(tracked.started_at).min(left).max(second);
    Error::of(&tracked.identity, ErrorKind::Running, "another attempt is running")
        .with("attempt", tracked.attempt)
        .retry_after(delay)
}

fn failed(tracked: &Tracked) -> Error {
    let message = tracked.error.clone().unwrap_or_else(|| "the attempt failed".to_owned());
    Error::of(&tracked.identity, ErrorKind::Failed, message)
}

fn refused<S>(decision: Decision, task: &Task<S>) -> Error {
    let (kind, message) = match decision {
        Decision::Mismatch => (ErrorKind::Mismatch, "the key was used for another request"),
        Decision::Expired => (ErrorKind::Expired, "the operation has expired"),
        Decision::Interrupted => {
            (ErrorKind::Interrupted, "an earlier attempt was cut off, and what it did is unknown")
        }
        Decision::Run | Decision::Replay | Decision::Running => {
            unreachable!("only nothing found leads here, and that is not {decision:?}")
        }
    };
    Error::of(&task.operation.identity, kind, message)
}
