//! Beginning work, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Timestamp, Writers};
use serde_json::value::RawValue;

use super::advance::slot;
use super::door::Begun;
use super::driver::{Driver, Finished, What, Work};
use super::history::{Entry, Event};
use super::places;
use super::records::{ItemRecord, SetPart, SetValue, StepEnd, StepRecord, UndoRecord, as_part};
use crate::attempt::{Failed, Tried, caught, panic_message, timed_out, try_job, try_step, try_undo};
use crate::bag::Part;
use crate::error::{Phase, StepError, StepErrorKind};
use crate::key::Stored;
use crate::observe;
use crate::plan::{Leaf, LeafKind};
use crate::policy::RetryPolicy;

/// What a record has room for beside a value.
const ENVELOPE: usize = 16 * 1024;

impl Driver {
    /// Begins to work on something.
    pub(crate) fn launch(&mut self, work: Work) {
        let (clock, plan) = (Arc::clone(&self.engine.settings.clock), Arc::clone(self.plan()));
        let began_at = clock.now();
        let attempt = self.open(&slot(work)).map_or(0, |open| open.failures + open.interruptions) + 1;
        let raw = self.context(work, attempt);
        let transaction = match work {
            Work::Step(step) if matches!(plan.leaves[step].kind, LeafKind::TxJob(_)) => {
                let hold_for = self.lease.until.since(began_at);
                self.registered.door.clone().map(|door| (door, self.at.clone(), hold_for))
            }
            _ => None,
        };
        let item = match work {
            Work::Item(step, item) => Some(Arc::clone(&self.items[&step][item])),
            _ => None,
        };
        let what = async move {
            let leaf = &plan.leaves[raw.step];
            match (work, &leaf.kind) {
                (Work::Undo(_), _) => What::Undone(try_undo(leaf, raw).await),
                (Work::Probe(_), _) => What::Probed(probe(leaf, raw, &clock).await),
                (Work::Item(..), LeafKind::ForEach(each)) => {
                    let item = item.expect("an item is launched with its item");
                    let deadline = raw.deadline;
                    let job = try_job(leaf, || (each.job)(raw, item));
                    What::Item(match deadline {
                        None => job.await,
                        Some(at) => {
                            let late = || Err(timed_out(leaf, Phase::Job));
                            clock.timeout_at(at, job).await.unwrap_or_else(late)
                        }
                    })
                }
                (Work::Step(_), LeafKind::TxJob(job)) => {
                    let (door, at, hold_for) =
                        transaction.expect("a transaction is registered with its door");
                    match door.begin(at, began_at, hold_for).await {
                        Err(error) => What::NotBegun(error),
                        Ok(Begun { tx, transaction }) => {
                            let tried = try_step(leaf, raw, &clock, |raw| job(raw, tx)).await;
                            What::Tried(tried, Some(transaction))
                        }
                    }
                }
                (Work::Step(_), LeafKind::Job(job)) => {
                    What::Tried(try_step(leaf, raw, &clock, |raw| job(raw)).await, None)
                }
                _ => unreachable!("only jobs, items, probes and compensations are launched"),
            }
        };
        self.in_flight.insert(work);
        let span = observe::step_span(&self.id, &self.plan().leaves[work.step()].name, attempt);
        let finished = async move { Finished { work, attempt, began_at, what: what.await } };
        self.working.push(Box::pin(tracing::Instrument::instrument(finished, span)));
    }

    /// Gathers what became of it as changes.
    pub(crate) async fn finish(&mut self, finished: Finished) {
        let Finished { work, attempt, began_at, what } = finished;
        observe::worked(&what);
        match (work, what) {
            (Work::Step(step), What::Tried(tried, transaction)) => match tried {
                Tried::Done(value) => {
                    self.end_with(step, attempt, began_at, value);
                    if let Some(transaction) = transaction {
                        if self.is_done(step) {
                            self.changes.transaction = Some((step, began_at, transaction));
                        } else {
                            transaction.rollback().await;
                        }
                    }
                }
                not_done => {
                    if let Some(transaction) = transaction {
                        transaction.rollback().await;
                    }
                    match not_done {
                        Tried::Failed(failed) => self.failed(work, began_at, failed),
                        Tried::Skipped(error) => {
                            self.end_step(step, attempt, began_at, StepEnd::Skipped(error))
                        }
                        Tried::Cancelled(error) => {
                            self.end_step(step, attempt, began_at, StepEnd::Failed(error))
                        }
                        Tried::Done(_) => unreachable!("it is not done"),
                    }
                }
            },
            (Work::Step(step), What::NotBegun(error)) => {
                let leaf = &self.plan().leaves[step];
                let error =
                    StepError::from_source(&leaf.name, Phase::Job, StepErrorKind::Failed, error.into());
                // Nothing has happened: the store's trouble is not the step's failure.
                self.note_step(Event::Wait, step, Entry::at(began_at).until(self.engine.now()).error(&error));
                let until = self.engine.now() + Duration::from_secs(1);
                self.open_mut(work).until = Some(until);
            }
            (Work::Probe(step), What::Probed(probed)) => match probed {
                Ok(Some(value)) => {
                    self.resolved(step);
                    self.end_with(step, attempt, began_at, value);
                }
                Ok(None) => self.run_again(step),
                Err(error) => {
                    let entry = Entry::at(began_at).until(self.engine.now()).error(&error);
                    self.note_step(Event::Failure, step, entry);
                    self.interrupted(step);
                }
            },
            (Work::Item(step, item), What::Item(result)) => {
                self.finish_item(step, item, attempt, began_at, result)
            }
            (Work::Undo(step), What::Undone(result)) => match result {
                Ok(()) => self.end_undo(step, attempt, began_at, None),
                Err(error) => self.failed(work, began_at, Failed { error, is_final: false }),
            },
            _ => unreachable!("work comes to the end of its kind"),
        }
    }

    fn finish_item(
        &mut self,
        step: usize,
        item: usize,
        attempt: u32,
        began_at: Timestamp,
        result: Result<Stored, Failed>,
    ) {
        let plan = Arc::clone(self.plan());
        let leaf = &plan.leaves[step];
        let LeafKind::ForEach(each) = &leaf.kind else { unreachable!("only lists have items") };
        let value = result.and_then(|value| {
            self.encoded(leaf, &value, each.item_value.encode)
                .map_err(|error| Failed { error, is_final: true })
        });
        match value {
            Ok(value) => {
                let (name, ended_at) = (leaf.name.clone().into_owned(), self.engine.now());
                let record = ItemRecord { name, value, attempt, began_at, ended_at };
                self.keep(places::of_item(step, item), as_part(&record));
                self.journal.items.insert((step, item), record);
                self.close(Work::Item(step, item));
            }
            Err(failed) => self.failed(Work::Item(step, item), began_at, failed),
        }
    }

    /// Sets the next attempt of what failed, or ends it.
    pub(crate) fn failed(&mut self, work: Work, began_at: Timestamp, failed: Failed) {
        let now = self.engine.now();
        let (step, item, event) = match work {
            Work::Step(step) | Work::Probe(step) => (step, None, Event::Failure),
            Work::Item(step, item) => (step, Some(item), Event::Failure),
            Work::Undo(step) => (step, None, Event::CompensationFailure),
        };
        let stopping = !matches!(work, Work::Undo(_)) && self.stopping().is_some();
        let policy = match (work, &self.plan().leaves[step].undo) {
            (Work::Undo(_), Some((_, policy))) => *policy,
            (Work::Undo(_), None) => RetryPolicy::NONE,
            _ => self.plan().leaves[step].retry,
        };
        let open = self.open_mut(work);
        open.failures += 1;
        let first_began = *open.began_at.get_or_insert(began_at);
        let attempt = open.failures + open.interruptions;
        let wait =
            policy.wait(open.failures, now.since(first_began)).filter(|_| !failed.is_final && !stopping);
        let next = wait.map(|wait| now + wait);
        open.until = next;
        let entry =
            Entry::at(began_at).until(now).attempt(attempt).error(&failed.error).item(item).next(next);
        match (work, next) {
            (_, Some(_)) => self.note_step(event, step, entry),
            // What stops the run is said by whoever stops it.
            _ if stopping => self.note_step(event, step, entry),
            (Work::Undo(_), None) => self.end_undo(step, attempt, began_at, Some(failed.error)),
            (Work::Item(..), None) => {
                self.note_step(event, step, entry);
                self.end_step(step, attempt, began_at, StepEnd::Failed(failed.error));
            }
            (_, None) => self.end_step(step, attempt, began_at, StepEnd::Failed(failed.error)),
        }
    }

    /// Ends a step with its value, or with a failure where that cannot be kept.
    pub(crate) fn end_with(&mut self, step: usize, attempt: u32, began_at: Timestamp, value: Stored) {
        let plan = Arc::clone(self.plan());
        let leaf = &plan.leaves[step];
        match self.encoded(leaf, &value, leaf.value.encode) {
            Ok(json) => {
                self.live.run.bag.put(step, Part::Job, value);
                self.end_step(step, attempt, began_at, StepEnd::Done(json));
            }
            Err(error) => self.end_step(step, attempt, began_at, StepEnd::Failed(error)),
        }
    }

    pub(crate) fn end_step(&mut self, step: usize, attempt: u32, began_at: Timestamp, end: StepEnd) {
        let plan = Arc::clone(self.plan());
        let leaf = &plan.leaves[step];
        let order = self.journal.steps.values().map(|record| record.order + 1).max().unwrap_or(0);
        let bag = &self.live.run.bag;
        let pre_check = leaf.pre_check.as_ref().and_then(|_| bag.get(step, Part::PreCheck));
        // A value that cannot be written is as good as none; the step's own value was tried above.
        let pre_check = pre_check.and_then(|value| self.encoded(leaf, &value, leaf.pre_value.encode).ok());
        let set = bag.take_set(step).into_iter().filter_map(|set| {
            let target = &plan.leaves[set.step];
            let (name, value) = (target.name.clone().into_owned(), bag.get(set.step, set.part)?);
            let (part, value) = match set.part {
                Part::Job => (SetPart::Job, (target.value.encode)(&value)),
                Part::PreCheck => (SetPart::PreCheck, (target.pre_value.encode)(&value)),
            };
            Some(SetValue { name, part, value: value.ok()? })
        });
        let set = set.collect();
        let (name, waited, ended_at) = (leaf.name.clone().into_owned(), leaf.kind.waits(), self.engine.now());
        let record = StepRecord { name, order, attempt, began_at, ended_at, end, waited, pre_check, set };
        self.keep(places::of_step(places::STEP, step), as_part(&record));
        self.journal.steps.insert(step, record);
        self.close(Work::Step(step));
    }

    fn end_undo(&mut self, step: usize, attempt: u32, began_at: Timestamp, error: Option<StepError>) {
        let (name, ended_at) = (self.plan().leaves[step].name.clone().into_owned(), self.engine.now());
        let record = UndoRecord { name, attempt, began_at, ended_at, error };
        self.keep(places::of_step(places::UNDO, step), as_part(&record));
        self.journal.undone.insert(step, record);
        self.close(Work::Undo(step));
    }

    /// Keeps a part of the run: in the run's own record, or, where that has no room, in a new one.
    pub(super) fn keep(&mut self, id: String, part: Box<RawValue>) {
        self.changes.parts += 1;
        match self.journal.record.take_in(id, part) {
            Ok(()) => self.changes.record = true,
            Err((id, part)) => {
                let value = String::from(Box::<str>::from(part)).into();
                self.changes.fresh.push((places::key(&self.id, id), value));
            }
        }
    }

    /// Nothing is to be remembered of work that came to its end.
    fn close(&mut self, work: Work) {
        if self.journal.record.open.remove(&slot(work)).is_some() {
            self.changes.record = true;
        }
    }

    fn is_done(&self, step: usize) -> bool {
        self.journal.steps.get(&step).is_some_and(|record| matches!(record.end, StepEnd::Done(_)))
    }

    fn encoded(
        &self,
        leaf: &Leaf,
        value: &Stored,
        encode: fn(&Stored) -> serde_json::Result<Box<RawValue>>,
    ) -> Result<Box<RawValue>, StepError> {
        let json = encode(value).map_err(|source| {
            StepError::from_source(&leaf.name, Phase::Job, StepErrorKind::Failed, source.into())
        })?;
        self.fits(leaf, json.get().len())?;
        Ok(json)
    }

    /// Whether so many bytes fit a record.
    pub(crate) fn fits(&self, leaf: &Leaf, bytes: usize) -> Result<(), StepError> {
        let limit = evenkeel_core::Store::info(&self.engine.store).limits.value.saturating_sub(ENVELOPE);
        if bytes <= limit {
            return Ok(());
        }
        let message = format!("its value is too large for the store ({bytes} bytes, limit {limit})");
        Err(StepError::new(&leaf.name, Phase::Job, StepErrorKind::Failed, message))
    }

    pub(crate) fn one_writer(&self) -> bool {
        evenkeel_core::Store::info(&self.engine.store).writers == Writers::One
    }

    fn is_transaction(&self, work: &Work) -> bool {
        matches!(work, Work::Step(step) if matches!(self.plan().leaves[*step].kind, LeafKind::TxJob(_)))
    }

    /// Whether a transaction of this run may hold up every other commit.
    pub(crate) fn holds_writer(&self) -> bool {
        self.one_writer() && self.in_flight.iter().any(|work| self.is_transaction(work))
    }

    /// Where there is one writer, the second of two transactions would wait for the first, and the
    /// first for this to commit it.
    pub(crate) fn leave_one_transaction(&self, begin: &mut Vec<Work>) {
        let mut taken = self.holds_writer();
        begin.retain(|work| !self.is_transaction(work) || !std::mem::replace(&mut taken, true));
    }
}

async fn probe(
    leaf: &Leaf,
    raw: crate::context::RawContext,
    clock: &Arc<dyn evenkeel_core::Clock>,
) -> Result<Option<Stored>, StepError> {
    let Some(probe) = &leaf.probe else { return Ok(None) };
    let deadline = raw.deadline.unwrap_or(Timestamp::MAX);
    let probed = match raw.deadline {
        None => caught(|| probe(raw)).await,
        Some(_) => match clock.timeout_at(deadline, caught(|| probe(raw))).await {
            Some(probed) => probed,
            None => return Err(timed_out(leaf, Phase::Probe).error),
        },
    };
    let error = |kind, message| StepError::new(&leaf.name, Phase::Probe, kind, message);
    match probed {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => {
            Err(StepError::from_source(&leaf.name, Phase::Probe, StepErrorKind::Failed, source))
        }
        Err(panic) => Err(error(StepErrorKind::Panicked, panic_message(panic))),
    }
}
