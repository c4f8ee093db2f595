//! What a driver writes, all or nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    Batch, Conflict, Error, ErrorKind, Expect, Found, Merge, Op, Partition, Record, Result, Store, Timestamp,
    Token,
};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::choreographer::Engine;
use super::driver::{Changes, Doubt, Driver, Fence, Finished, Held, Reload, Stop, is_passing};
use super::history::{Entry, Event};
use super::inspect::Run;
use super::journal::Journal;
use super::places;
use super::records::{IndexEntry, RunRecord, decode, encode};
use super::tasks::Task;
use crate::attempt::Failed;
use crate::error::{Phase, StepError, StepErrorKind};
use crate::observe;
use crate::outcome::RunState;
use crate::policy::VersionPolicy;

/// The wait before a commit that did not get through is sent again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// How many changes are gathered for one commit.
const MOST_CHANGES: usize = 40;

/// What becomes of the lease.
pub(crate) enum Ending {
    /// It is held on to.
    Hold,
    /// The run is put back until then.
    Rest(Timestamp),
    /// The run waits for a person.
    Park(StepError),
    /// The run is over.
    End(RunState),
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0 && !self.record
    }

    /// How many operations it takes, but for those on the run itself.
    pub(crate) fn count(&self) -> usize {
        self.puts.len() + self.fresh.len() + self.tasks.len()
    }

    /// Whether it is time to commit, well below what every store takes.
    pub(crate) fn is_full(&self) -> bool {
        self.count() >= MOST_CHANGES
    }

    pub(crate) fn task(&mut self, task: &Task, due: Timestamp) {
        self.tasks.push((task.id(), due, encode(task)));
    }

    fn clear(&mut self) {
        self.puts.clear();
        self.fresh.clear();
        self.parts = 0;
        self.tasks.clear();
        self.record = false;
    }
}

impl Driver {
    /// Writes the changes, and what becomes of the lease. Whether somebody changed the run
    /// meanwhile; that is taken over.
    pub(crate) async fn commit(&mut self, ending: Ending) -> Result<bool, Stop> {
        self.prepare(&ending);
        let mut merged = false;
        loop {
            let now = self.engine.now();
            let until =
                if now < self.renewal() { self.lease.until } else { now + self.engine.settings.lease };
            let ops = self.ops(&ending, until);
            let (version, result) = match self.changes.transaction.take() {
                None => {
                    let mut batch = Batch::new(self.at.clone(), now);
                    for op in ops {
                        batch.op(op);
                    }
                    (batch.version(), self.insist(batch).await)
                }
                Some((step, began_at, transaction)) => {
                    let commit = transaction.commit(ops, now);
                    match while_working(&mut self.working, &mut self.done, commit).await {
                        None => return Err(self.kept(step, began_at)),
                        Some((version, Ok(()))) => (version, Ok(())),
                        Some((_, Err(error))) => return Err(self.rolled_back(step, began_at, error)),
                    }
                }
            };
            match result {
                Ok(()) => {
                    if self.changes.record {
                        self.journal.version = version;
                        self.fence = Fence::Version;
                    }
                    self.changes.clear();
                    self.lease.until = until;
                    if !matches!(ending, Ending::Hold) {
                        self.told(&ending);
                    }
                    return Ok(merged);
                }
                Err(error) => {
                    let (found, version) = self.changed_by_others(error)?;
                    if self.fence == Fence::Open {
                        return Err(Stop::Anew);
                    }
                    self.merge(&found, version);
                    merged = true;
                }
            }
        }
    }

    /// When the lease is to be renewed; before, commits leave it as it is.
    pub(crate) fn renewal(&self) -> Timestamp {
        self.lease.until - self.engine.settings.lease * 2 / 3
    }

    /// Moves the end of the lease.
    pub(crate) async fn renew(&mut self) -> Result<(), Stop> {
        let now = self.engine.now();
        let until = now + self.engine.settings.lease;
        let mut batch = Batch::new(self.at.clone(), now);
        batch.extend(places::RUNS, &*self.id, self.lease.token, until);
        let store = self.engine.store.clone();
        match while_working(&mut self.working, &mut self.done, store.commit(batch)).await {
            Ok(_) => self.lease.until = until,
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, run = self.id, "a lease was not renewed");
                self.renew_after = now + AGAIN;
            }
            Err(error) => return Err(Stop::Abandon(error)),
        }
        Ok(())
    }

    fn prepare(&mut self, ending: &Ending) {
        let now = self.engine.now();
        if let Ending::Park(error) = ending {
            self.note(&Entry::of(Event::Parked, now).error(error));
        }
        let record = &mut self.journal.record;
        match ending {
            Ending::Hold => return,
            Ending::Rest(_) => {
                record.released = self.lease.attempt;
                record.in_doubt = match &self.in_doubt {
                    Doubt::Everything => true,
                    Doubt::Steps(steps) => !steps.is_empty(),
                };
            }
            Ending::Park(error) => {
                record.state = RunState::Parked;
                record.parked = Some(error.clone());
            }
            Ending::End(state) => {
                record.state = *state;
                record.finished_at = Some(now);
                record.open.clear();
                if let Some(told) =
                    super::child::tell_parent(&self.id, &self.journal, self.registered.plan.as_ref())
                {
                    self.changes.task(&told, now);
                }
            }
        }
        self.changes.record = true;
    }

    fn ops(&self, ending: &Ending, until: Timestamp) -> Vec<Op> {
        let record = &self.journal.record;
        let (queue, id, token) = (places::RUNS.to_owned(), self.id.clone(), self.lease.token);
        let mut ops = Vec::with_capacity(self.changes.count() + 4);
        // First, so that who lost the lease learns that and nothing else.
        match ending {
            Ending::Hold if until == self.lease.until && self.is_proved_by_version() => {}
            Ending::Hold => ops.push(Op::Extend { queue, id, token, until }),
            Ending::Rest(due) => ops.push(Op::Retry { queue, id, token, due: *due }),
            Ending::Park(_) => ops.push(Op::Ack { queue, id, token }),
            // Its job is the one to forget it.
            Ending::End(_) => {
                let ended_at = record.finished_at.expect("a run that ends has its end");
                let due = ended_at + self.engine.settings.retention;
                ops.push(Op::Retry { queue, id, token, due });
            }
        }
        let (key, expect) = (places::key(&self.id, places::RECORD), Expect::Version(self.journal.version));
        ops.push(if self.changes.record {
            Op::Put { key, value: encode(record), expect, expires_at: None }
        } else {
            Op::Check { key, expect }
        });
        let put = |expect| {
            move |(key, value): &(_, bytes::Bytes)| Op::Put {
                key: Clone::clone(key),
                value: value.clone(),
                expect,
                expires_at: None,
            }
        };
        ops.extend(self.changes.fresh.iter().map(put(Expect::Absent)));
        ops.extend(self.changes.puts.iter().map(put(Expect::Any)));
        ops.extend(self.changes.tasks.iter().map(|(id, due, payload)| Op::Push {
            queue: places::TASKS.to_owned(),
            id: id.clone(),
            due: *due,
            payload: payload.clone(),
            merge: Merge::Sooner,
        }));
        if let Ending::Park(_) | Ending::End(_) = ending {
            ops.extend(move_entry(&self.id, record, RunState::Running));
        }
        ops
    }

    /// Whether nobody can have taken the run over if its record has the version that the next commit
    /// expects. Only a commit that writes the record shows whoever takes the run over that something
    /// was recorded meanwhile, and what a transaction takes back is not to be begun again in vain.
    fn is_proved_by_version(&self) -> bool {
        self.fence == Fence::Version && self.changes.record && self.changes.transaction.is_none()
    }

    /// Commits, again and again while the store is away: what happened must not be lost as long as
    /// nobody else holds the run.
    async fn insist(&mut self, batch: Batch) -> Result<()> {
        let (store, clock) = (self.engine.store.clone(), Arc::clone(&self.engine.settings.clock));
        let until = self.lease.until + self.engine.settings.lease;
        loop {
            let sent = while_working(&mut self.working, &mut self.done, store.commit(batch.clone())).await;
            match sent {
                Ok(_) => return Ok(()),
                Err(error) => match error.kind() {
                    ErrorKind::Unavailable | ErrorKind::OutcomeUnknown
                        if clock.now() < until && !*self.closing.borrow() =>
                    {
                        tracing::warn!(%error, run = self.id, "a commit did not get through and is sent again");
                    }
                    _ => return Err(error),
                },
            }
            while_working(&mut self.working, &mut self.done, clock.sleep(AGAIN)).await;
        }
    }

    /// The run's record as somebody else left it, where that is what `error` says.
    fn changed_by_others(&self, error: Error) -> Result<(RunRecord, evenkeel_core::Version), Stop> {
        let Some(Record { value, version, .. }) = found_run(&self.id, &error) else {
            return Err(Stop::Abandon(error));
        };
        Ok((decode(&self.id, places::RECORD, &value)?, version))
    }

    fn reload(&self, failed: Option<(usize, Timestamp, Failed)>) -> Stop {
        // What finished beside the transaction's step is not recorded either.
        let others = self.changes.parts > 1 || !self.done.is_empty();
        let interrupted = others || !self.in_flight.is_empty();
        Stop::Reload(Reload { interrupted, failed })
    }

    fn kept(&self, step: usize, began_at: Timestamp) -> Stop {
        let message = "the job kept its transaction";
        let name = &self.plan().leaves[step].name;
        let error = StepError::new(name, Phase::Job, StepErrorKind::Failed, message);
        self.reload(Some((step, began_at, Failed { error, is_final: true })))
    }

    /// What becomes of a step whose transaction did not commit.
    fn rolled_back(&self, step: usize, began_at: Timestamp, error: Error) -> Stop {
        if found_run(&self.id, &error).is_some() {
            return self.reload(None);
        }
        match error.kind() {
            ErrorKind::LeaseLost => Stop::Abandon(error),
            // Either it shows in the records, or it never can: they expect what it would have changed.
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => self.reload(None),
            _ => {
                let name = &self.plan().leaves[step].name;
                let error = StepError::from_source(name, Phase::Job, StepErrorKind::Failed, error.into());
                self.reload(Some((step, began_at, Failed { error, is_final: false })))
            }
        }
    }

    /// Tells those who wait in this process, and the operator.
    fn told(&self, ending: &Ending) {
        match ending {
            Ending::Hold | Ending::Rest(_) => return,
            Ending::Park(_) => observe::ended(RunState::Parked),
            Ending::End(state) => observe::ended(*state),
        }
        self.engine.shared.ended(&self.at, &self.id, || Run::of(&self.id, &self.journal));
    }
}

/// Waits for `future` while what is under way goes on: it may hold what the future waits for.
async fn while_working<T>(
    working: &mut FuturesUnordered<futures_util::future::BoxFuture<'static, Finished>>,
    done: &mut VecDeque<Finished>,
    future: impl Future<Output = T>,
) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            Some(finished) = working.next(), if !working.is_empty() => done.push_back(finished),
        }
    }
}

/// The run's record, where `error` is a conflict about it.
fn found_run(id: &str, error: &Error) -> Option<Record> {
    let Some(Conflict { found: Found::Record { key, record: Some(record) }, .. }) = error.conflict() else {
        return None;
    };
    (*key == places::key(id, places::RECORD)).then(|| record.clone())
}

/// Lists a run under its state instead of the one before.
pub(crate) fn move_entry(id: &str, record: &RunRecord, from: RunState) -> [Op; 2] {
    let entry = places::entry(id, record.started_at);
    let (definition, started_at) = (record.definition.clone(), record.started_at);
    let value = encode(&IndexEntry { run: id.to_owned(), definition, started_at });
    let (old, new) =
        (places::INDEX.key(from.as_str(), &entry), places::INDEX.key(record.state.as_str(), &entry));
    [
        Op::Delete { key: old, expect: Expect::Any },
        Op::Put { key: new, value, expect: Expect::Any, expires_at: None },
    ]
}

/// Ends the job of a run that has nothing to do.
pub(crate) async fn ack(engine: &Engine, at: &Partition, id: &str, token: Token) -> Result<()> {
    let mut batch = Batch::new(at.clone(), engine.now());
    batch.ack(places::RUNS, id, token);
    engine.store.commit(batch).await.map(drop)
}

/// Puts a run back for a worker that has its version, or parks it.
pub(crate) async fn leave(
    engine: &Engine,
    at: &Partition,
    id: &str,
    lease: Held,
    journal: Journal,
    policy: VersionPolicy,
) -> Result<()> {
    let park = policy == VersionPolicy::Park;
    let (mut record, version) = (journal.record.clone(), journal.version);
    let now = engine.now();
    let mut batch = Batch::new(at.clone(), now);
    record.in_doubt |= !record.resumed && lease.attempt > record.released.saturating_add(1);
    if park {
        let message = format!("version {} of {:?} is not registered here", record.version, record.definition);
        record.parked = Some(StepError::new("", Phase::Job, StepErrorKind::Interrupted, message));
        record.state = RunState::Parked;
        batch.ack(places::RUNS, id, lease.token);
        for op in move_entry(id, &record, RunState::Running) {
            batch.op(op);
        }
    } else {
        record.released = lease.attempt;
        // The longer nobody has it, the less often it is looked for.
        let wait = Duration::from_secs(2_u64.saturating_pow(lease.attempt.min(6)));
        batch.retry(places::RUNS, id, lease.token, now + wait);
        tracing::debug!(run = id, version = record.version, "a run is left to workers that have its version");
    }
    batch.put(places::key(id, places::RECORD), encode(&record), Expect::Version(version));
    let version = batch.version();
    engine.store.commit(batch).await?;
    if park {
        let journal = Journal { record, version, ..journal };
        engine.shared.ended(at, id, || Run::of(id, &journal));
    }
    Ok(())
}
