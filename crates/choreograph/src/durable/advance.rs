//! What a run does next, from what is known of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Timestamp;

use super::driver::{Doubt, Driver, Next, Work};
use super::history::{Entry, Event};
use super::reach::Reached;
use super::records::{Open, StepEnd};
use crate::context::{RawContext, Scope};
use crate::error::{Phase, StepError, StepErrorKind};
use crate::outcome::RunState;
use crate::plan::{LeafKind, Node};
use crate::policy::{Join, OnInterrupted};

/// What has no end of its own is looked at again after this long; a signal or a child wakes it
/// before.
const FAR: Duration = Duration::from_hours(365 * 24);

/// How far a part of the structure is.
enum Walked {
    Done,
    Failed,
    Pending,
}

impl Driver {
    /// What to do next. What can be decided without waiting is decided, and gathered as changes.
    pub(crate) fn advance(&mut self) -> Next {
        loop {
            self.next_wake = None;
            if self.changes.is_full() {
                return Next::Go(Vec::new());
            }
            if let Some(next) = self.look() {
                return next;
            }
        }
    }

    /// `None` where something came to its end, so that there is more to see.
    fn look(&mut self) -> Option<Next> {
        if self.journal.record.error.is_some() {
            return Some(self.take_back());
        }
        let plan = Arc::clone(self.plan());
        let stopping = self.stopping();
        let mut reached = Vec::new();
        match self.walk_all(&plan.root, &mut reached) {
            Walked::Done => return Some(Next::End(RunState::Completed)),
            Walked::Failed => {
                let error = self.first_failure().expect("a walk fails at a step that failed");
                return self.stop(error);
            }
            Walked::Pending => {}
        }
        if let Some((kind, message)) = stopping {
            let step = reached.first().map_or("", |step| &*plan.leaves[*step].name);
            return self.stop(StepError::new(step, Phase::Job, kind, message));
        }
        if *self.closing.borrow() || self.parking.is_some() {
            if !self.in_flight.is_empty() {
                return Some(Next::Go(Vec::new()));
            }
            return Some(match self.parking.take() {
                Some(error) => Next::Park(error),
                None => Next::Rest(self.engine.now()),
            });
        }
        self.name_doubts(&reached);
        let mut begin = Vec::new();
        for step in reached {
            match self.reach(step) {
                Reached::Ended => return None,
                Reached::Begin(work) => begin.extend(work),
                Reached::Waits => {}
            }
            if self.parking.is_some() {
                return None;
            }
        }
        if self.one_writer() {
            self.leave_one_transaction(&mut begin);
        }
        if begin.is_empty() && self.in_flight.is_empty() {
            let wake = self.next_wake.unwrap_or_else(|| self.engine.now() + FAR);
            return Some(Next::Rest(
                self.journal.record.deadline.map_or(wake, |deadline| wake.min(deadline)),
            ));
        }
        if let Some(deadline) = self.journal.record.deadline {
            self.wake_at(deadline);
        }
        Some(Next::Go(begin))
    }

    /// Stops the run, once nothing is under way and nothing that could be taken back is in doubt.
    fn stop(&mut self, error: StepError) -> Option<Next> {
        self.live.run.stop.raise();
        if !self.in_flight.is_empty() {
            return Some(Next::Go(Vec::new()));
        }
        if let Some(next) = self.settle_doubts() {
            return Some(next);
        }
        self.journal.record.error = Some(error);
        self.changes.record = true;
        None
    }

    /// Finds out whether steps that can be taken back happened, where that is in doubt: a probe says
    /// so. Where nobody can, a person decides if the step asks for one; else it counts as not done.
    fn settle_doubts(&mut self) -> Option<Next> {
        let plan = Arc::clone(self.plan());
        let mut begun = Vec::new();
        self.walk_begun(&plan.root, &mut begun);
        self.name_doubts(&begun);
        begun.retain(|step| self.doubts(*step) && plan.leaves[*step].undo.is_some());
        let doubts = begun;
        if !doubts.is_empty() && *self.closing.borrow() {
            return Some(Next::Rest(self.engine.now()));
        }
        if let Some(error) = self.parking.take() {
            return Some(Next::Park(error));
        }
        let probes = doubts.iter().copied().filter(|step| plan.leaves[*step].probe.is_some());
        let probes: Vec<_> = probes.map(Work::Probe).collect();
        if !probes.is_empty() {
            return Some(Next::Go(probes));
        }
        for step in doubts {
            self.interrupted(step);
        }
        self.parking.take().map(Next::Park)
    }

    /// Why no further step is to begin, where that is so.
    pub(crate) fn stopping(&self) -> Option<(StepErrorKind, &'static str)> {
        let record = &self.journal.record;
        if record.cancelled_at.is_some() {
            return Some((StepErrorKind::Cancelled, "the run was cancelled"));
        }
        let late = record.deadline.is_some_and(|deadline| self.engine.now() >= deadline);
        late.then_some((StepErrorKind::DeadlineExceeded, "the run passed its deadline"))
    }

    fn walk_all(&self, nodes: &[Node], reached: &mut Vec<usize>) -> Walked {
        for node in nodes {
            match self.walk(node, reached) {
                Walked::Done => {}
                other => return other,
            }
        }
        Walked::Done
    }

    fn walk(&self, node: &Node, reached: &mut Vec<usize>) -> Walked {
        match node {
            Node::Leaf(step) => match self.journal.steps.get(step).map(|record| &record.end) {
                Some(StepEnd::Done(_) | StepEnd::Skipped(_) | StepEnd::NotTaken) => Walked::Done,
                Some(StepEnd::Failed(_)) => Walked::Failed,
                None => {
                    reached.push(*step);
                    Walked::Pending
                }
            },
            Node::Sequence(nodes) => self.walk_all(nodes, reached),
            Node::Parallel { join, branches } => self.walk_beside(*join, branches, reached),
        }
    }

    fn walk_beside(&self, join: Join, branches: &[Node], reached: &mut Vec<usize>) -> Walked {
        let (mut failed, mut pending, mut inside) = (false, false, Vec::new());
        for branch in branches {
            match self.walk(branch, &mut inside) {
                Walked::Done => {}
                Walked::Failed => failed = true,
                Walked::Pending => pending = true,
            }
        }
        match (failed, pending, join) {
            (true, true, Join::All) | (false, true, _) => {
                reached.extend(inside);
                Walked::Pending
            }
            // What is under way is waited for by whoever asked.
            (true, _, _) => Walked::Failed,
            (false, false, _) => Walked::Done,
        }
    }

    /// The steps without an end that may have begun, whatever failed beside them; whether all ended
    /// well.
    fn walk_begun(&self, nodes: &[Node], begun: &mut Vec<usize>) -> bool {
        nodes.iter().all(|node| match node {
            Node::Leaf(step) => match self.journal.steps.get(step).map(|record| &record.end) {
                Some(end) => !matches!(end, StepEnd::Failed(_)),
                None => {
                    begun.push(*step);
                    false
                }
            },
            Node::Sequence(nodes) => self.walk_begun(nodes, begun),
            Node::Parallel { branches, .. } => {
                // Each is looked at, also where one before it is not done.
                let mut all = true;
                for branch in branches {
                    all &= self.walk_begun(std::slice::from_ref(branch), begun);
                }
                all
            }
        })
    }

    fn first_failure(&self) -> Option<StepError> {
        let failures = self.journal.steps.values().filter_map(|record| match &record.end {
            StepEnd::Failed(error) => Some((record.order, error)),
            StepEnd::Done(_) | StepEnd::Skipped(_) | StepEnd::NotTaken => None,
        });
        failures.min_by_key(|(order, _)| *order).map(|(_, error)| error.clone())
    }

    /// Which of the steps reached a vanished holder may have begun.
    fn name_doubts(&mut self, reached: &[usize]) {
        if self.in_doubt != Doubt::Everything {
            return;
        }
        let now = self.engine.now();
        let may_have_begun = |step: &&usize| {
            let (leaf, open) = (&self.plan().leaves[**step], self.open(&slot(Work::Step(**step))));
            // A transaction that was cut off rolled back; a condition that holds is recorded before
            // its step begins, and so is a wait.
            let attempted = matches!(leaf.kind, LeafKind::Job(_) | LeafKind::ForEach(_));
            let taken = leaf.condition.is_none() || open.is_some_and(|open| open.taken);
            attempted && taken && open.and_then(|open| open.until).is_none_or(|until| until <= now)
        };
        self.in_doubt = Doubt::Steps(reached.iter().filter(may_have_begun).copied().collect());
    }

    /// The next step to take back, the last to finish first.
    fn take_back(&mut self) -> Next {
        self.live.run.stop.raise();
        if !self.in_flight.is_empty() {
            return Next::Go(Vec::new());
        }
        if *self.closing.borrow() {
            return Next::Rest(self.engine.now());
        }
        self.in_doubt = Doubt::Steps(BTreeSet::new());
        let plan = Arc::clone(self.plan());
        let to_undo = self.journal.steps.iter().filter(|(step, record)| {
            let undo = plan.leaves.get(**step).is_some_and(|leaf| leaf.undo.is_some());
            undo && matches!(record.end, StepEnd::Done(_)) && !self.journal.undone.contains_key(step)
        });
        let Some(step) = to_undo.max_by_key(|(_, record)| record.order).map(|(step, _)| *step) else {
            return Next::End(self.end_of_failure());
        };
        if self.waits(Work::Undo(step), self.engine.now()) {
            return Next::Rest(self.next_wake.expect("what waits says until when"));
        }
        Next::Go(vec![Work::Undo(step)])
    }

    fn end_of_failure(&self) -> RunState {
        let kind = self.journal.record.error.as_ref().map(StepError::kind);
        if self.journal.undone.values().any(|undo| undo.error.is_some()) {
            RunState::CompensationFailed
        } else if !self.journal.undone.is_empty() {
            RunState::Compensated
        } else if matches!(kind, Some(StepErrorKind::Cancelled | StepErrorKind::DeadlineExceeded)) {
            RunState::Cancelled
        } else {
            RunState::Failed
        }
    }

    pub(super) fn doubts(&self, step: usize) -> bool {
        matches!(&self.in_doubt, Doubt::Steps(steps) if steps.contains(&step))
    }

    /// Decides on a step that was cut off where nobody knows whether it happened.
    pub(crate) fn interrupted(&mut self, step: usize) {
        let leaf = &self.plan().leaves[step];
        let name = leaf.name.clone();
        match leaf.on_interrupted {
            OnInterrupted::Retry => self.run_again(step),
            OnInterrupted::Park => {
                self.cut_off(step);
                let message = "it was cut off, and whether it happened is unknown";
                self.parking = Some(StepError::new(&name, Phase::Job, StepErrorKind::Interrupted, message));
            }
        }
    }

    /// Lets a step that was cut off begin again.
    pub(crate) fn run_again(&mut self, step: usize) {
        self.resolved(step);
        self.cut_off(step);
    }

    /// Remembers that an attempt at a step was cut off, and when it can have begun at the earliest.
    fn cut_off(&mut self, step: usize) {
        let now = self.engine.now();
        let mut before = Vec::new();
        self.plan().before(step, &mut before);
        let ends =
            before.iter().filter_map(|step| self.journal.steps.get(step)).map(|record| record.ended_at);
        let waited_to = self.open(&slot(Work::Step(step))).and_then(|open| open.until);
        let began_at = ends.chain(waited_to).fold(self.journal.record.started_at, Ord::max);
        let open = self.open_mut(Work::Step(step));
        open.interruptions += 1;
        // The next attempt can begin from here.
        open.until = Some(now);
        let attempt = open.failures + open.interruptions;
        self.note_step(Event::Interrupted, step, Entry::at(began_at).until(now).attempt(attempt));
    }

    /// Nothing about the step is in doubt any more.
    pub(crate) fn resolved(&mut self, step: usize) {
        if let Doubt::Steps(steps) = &mut self.in_doubt {
            steps.remove(&step);
        }
    }

    /// Whether `work` is not to begin yet; then it is seen to when it is.
    pub(super) fn waits(&mut self, work: Work, now: Timestamp) -> bool {
        let until = self.open(&slot(work)).and_then(|open| open.until).filter(|until| *until > now);
        until.is_some_and(|until| {
            self.wake_at(until);
            true
        })
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.next_wake = Some(self.next_wake.map_or(at, |wake| wake.min(at)));
    }

    pub(crate) fn open(&self, slot: &str) -> Option<&Open> {
        self.journal.record.open.get(slot)
    }

    /// What is remembered of unfinished work, to be changed and written with the next commit.
    pub(crate) fn open_mut(&mut self, work: Work) -> &mut Open {
        self.changes.record = true;
        let name = &self.registered.plan.leaves[work.step()].name;
        self.journal.record.open.entry(slot(work)).or_insert_with(|| Open::of(name))
    }

    pub(crate) fn context(&self, work: Work, attempt: u32) -> RawContext {
        let (step, item, scope) = match work {
            Work::Step(step) | Work::Probe(step) => (step, None, Scope::Forward),
            Work::Item(step, item) => (step, Some(item), Scope::Forward),
            Work::Undo(step) => (step, None, Scope::Compensation),
        };
        let now = self.engine.now();
        let timeout = self.plan().leaves[step].timeout.map(|timeout| now + timeout);
        let deadline = match work {
            Work::Step(_) | Work::Item(..) => {
                [timeout, self.journal.record.deadline].into_iter().flatten().min()
            }
            // What happened is asked after the run's deadline too.
            Work::Probe(_) => timeout,
            Work::Undo(_) => None,
        };
        RawContext { run: Arc::clone(&self.live.run), step, item, attempt, deadline, scope }
    }
}

/// What unfinished work is remembered under.
pub(crate) fn slot(work: Work) -> String {
    match work {
        Work::Step(step) | Work::Probe(step) => format!("{step}"),
        Work::Item(step, item) => format!("{step}/{item}"),
        Work::Undo(step) => format!("undo {step}"),
    }
}
