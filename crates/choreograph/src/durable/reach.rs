//! What becomes of a step once the run has got there.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Timestamp;

use super::advance::slot;
use super::driver::{Driver, Work};
use super::places;
use super::records::{SignalRecord, StepEnd, as_part, encode};
use super::tasks::Task;
use crate::attempt::{is_taken, sync};
use crate::error::{Phase, StepError, StepErrorKind};
use crate::key::Stored;
use crate::plan::{ForEach, Leaf, LeafKind};

/// What became of a step that the run has reached.
pub(super) enum Reached {
    /// It came to its end at once, or something was decided about it: there is more to see.
    Ended,
    Begin(Vec<Work>),
    Waits,
}

impl Driver {
    /// Does what can be done about a step without waiting.
    pub(super) fn reach(&mut self, step: usize) -> Reached {
        let plan = Arc::clone(self.plan());
        let leaf = &plan.leaves[step];
        let now = self.engine.now();
        if leaf.condition.is_some() && !self.open(&slot(Work::Step(step))).is_some_and(|open| open.taken) {
            match is_taken(leaf, self.context(Work::Step(step), 1)) {
                Ok(true) => self.open_mut(Work::Step(step)).taken = true,
                Ok(false) => return self.ended(step, now, StepEnd::NotTaken),
                Err(error) => return self.ended(step, now, StepEnd::Failed(error)),
            }
        }
        match &leaf.kind {
            LeafKind::Job(_) | LeafKind::TxJob(_) => {
                let work = Work::Step(step);
                if self.in_flight.contains(&work) || self.in_flight.contains(&Work::Probe(step)) {
                    return Reached::Waits;
                }
                if self.waits(work, now) {
                    return Reached::Waits;
                }
                if self.doubts(step) {
                    if leaf.probe.is_some() {
                        return Reached::Begin(vec![Work::Probe(step)]);
                    }
                    self.interrupted(step);
                    return Reached::Ended;
                }
                Reached::Begin(vec![work])
            }
            LeafKind::ForEach(each) => self.reach_items(step, leaf, each, now),
            LeafKind::Sleep(until) => {
                if self.open(&slot(Work::Step(step))).is_none_or(|open| open.until.is_none()) {
                    match sync(leaf, Phase::Job, || until(self.context(Work::Step(step), 1), now)) {
                        Ok(until) => self.wait_until(step, now, Some(until)),
                        Err(error) => return self.ended(step, now, StepEnd::Failed(error)),
                    }
                }
                if self.waits(Work::Step(step), now) {
                    Reached::Waits
                } else {
                    self.ended_with(step, now, Arc::new(()))
                }
            }
            LeafKind::Signal { timeout } => self.reach_signal(step, leaf, *timeout, now),
            LeafKind::Child { definition, input } => {
                if let Some(child) = self.journal.children.get(&step) {
                    let end = super::child::end_of(&leaf.name, child);
                    return match end {
                        Ok(outcome) => self.ended_with(step, now, Arc::new(outcome)),
                        Err(error) => self.ended(step, now, StepEnd::Failed(error)),
                    };
                }
                if self.open(&slot(Work::Step(step))).is_none_or(|open| open.began_at.is_none()) {
                    let json = sync(leaf, Phase::Job, || input(self.context(Work::Step(step), 1)));
                    let input = json.and_then(|json| {
                        json.map_err(|source| {
                            StepError::from_source(
                                &leaf.name,
                                Phase::Job,
                                StepErrorKind::Failed,
                                source.into(),
                            )
                        })
                    });
                    match input {
                        Ok(input) => {
                            let task = Task::start_child(definition, &self.id, &leaf.name, step, input);
                            self.changes.task(&task, now);
                            self.wait_until(step, now, None);
                        }
                        Err(error) => return self.ended(step, now, StepEnd::Failed(error)),
                    }
                }
                Reached::Waits
            }
        }
    }

    fn reach_signal(
        &mut self,
        step: usize,
        leaf: &Leaf,
        timeout: Option<Duration>,
        now: Timestamp,
    ) -> Reached {
        let mine = self.journal.signals.iter().filter(|(_, signal)| signal.name == leaf.name);
        let earliest = mine.min_by_key(|(id, signal)| (signal.sent_at, (*id).clone()));
        if let Some((id, signal)) = earliest.map(|(id, signal)| (id.clone(), signal.clone())) {
            self.journal.signals.remove(&id);
            let taken = SignalRecord { payload: None, ..signal.clone() };
            self.changes
                .puts
                .push((places::key(&self.id, format!("{}{id}", places::SIGNAL)), encode(&taken)));
            self.taken.insert(id);
            let payload = signal.payload.expect("a signal that nobody has taken has its payload");
            return match (leaf.value.decode)(&payload) {
                Ok(value) => self.ended_with(step, now, value),
                Err(source) => {
                    let kind = StepErrorKind::Failed;
                    let error = StepError::from_source(&leaf.name, Phase::Job, kind, source.into());
                    self.ended(step, now, StepEnd::Failed(error))
                }
            };
        }
        if self.open(&slot(Work::Step(step))).is_none_or(|open| open.began_at.is_none()) {
            self.wait_until(step, now, timeout.map(|timeout| now + timeout));
        }
        let until = self.open(&slot(Work::Step(step))).and_then(|open| open.until);
        match until {
            Some(until) if until <= now => {
                let kind = StepErrorKind::TimedOut;
                let error = StepError::new(&leaf.name, Phase::Job, kind, "no such signal came in time");
                self.ended(step, now, StepEnd::Skipped(error))
            }
            Some(until) => {
                self.wake_at(until);
                Reached::Waits
            }
            None => Reached::Waits,
        }
    }

    fn reach_items(&mut self, step: usize, leaf: &Leaf, each: &ForEach, now: Timestamp) -> Reached {
        if self.doubts(step) {
            self.interrupted(step);
            return Reached::Ended;
        }
        if !self.items.contains_key(&step) {
            let made = sync(leaf, Phase::Job, || (each.items)(self.context(Work::Step(step), 1)));
            let list = made.and_then(|items| {
                let json = items.iter().map(each.item.encode).collect::<serde_json::Result<Vec<_>>>();
                let failed = |source: serde_json::Error| {
                    StepError::from_source(&leaf.name, Phase::Job, StepErrorKind::Failed, source.into())
                };
                Ok((items, json.map_err(failed)?))
            });
            match list {
                Ok((items, json)) => {
                    let list = as_part(&json);
                    if let Err(error) = self.fits(leaf, list.get().len()) {
                        return self.ended(step, now, StepEnd::Failed(error));
                    }
                    self.keep(places::of_step(places::LIST, step), list);
                    self.items.insert(step, items);
                }
                Err(error) => return self.ended(step, now, StepEnd::Failed(error)),
            }
        }
        let count = self.items[&step].len();
        let missing: Vec<_> =
            (0..count).filter(|item| !self.journal.items.contains_key(&(step, *item))).collect();
        if missing.is_empty() {
            let values =
                (0..count).map(|item| (each.item_value.decode)(&self.journal.items[&(step, item)].value));
            return match values.collect::<serde_json::Result<Vec<Stored>>>() {
                Ok(values) => self.ended_with(step, now, (each.collect)(values)),
                Err(source) => {
                    let kind = StepErrorKind::Failed;
                    let error = StepError::from_source(&leaf.name, Phase::Job, kind, source.into());
                    self.ended(step, now, StepEnd::Failed(error))
                }
            };
        }
        let under_way = |item: &usize| self.in_flight.contains(&Work::Item(step, *item));
        let (running, idle): (Vec<_>, Vec<_>) = missing.into_iter().partition(under_way);
        let free = each.at_once.saturating_sub(running.len());
        let mut begin = Vec::new();
        for item in idle {
            if begin.len() == free {
                break;
            }
            if !self.waits(Work::Item(step, item), now) {
                begin.push(Work::Item(step, item));
            }
        }
        if begin.is_empty() { Reached::Waits } else { Reached::Begin(begin) }
    }

    fn wait_until(&mut self, step: usize, now: Timestamp, until: Option<Timestamp>) {
        let open = self.open_mut(Work::Step(step));
        open.began_at = Some(now);
        open.until = until;
    }

    /// Ends a step without a value.
    fn ended(&mut self, step: usize, now: Timestamp, end: StepEnd) -> Reached {
        self.end_step(step, 1, self.began(step, now), end);
        Reached::Ended
    }

    fn ended_with(&mut self, step: usize, now: Timestamp, value: Stored) -> Reached {
        self.end_with(step, 1, self.began(step, now), value);
        Reached::Ended
    }

    fn began(&self, step: usize, now: Timestamp) -> Timestamp {
        self.open(&slot(Work::Step(step))).and_then(|open| open.began_at).unwrap_or(now)
    }
}
