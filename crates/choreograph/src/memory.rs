//! Runs in memory: no store, no journal, the callbacks and as little as possible beside them.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_core::{Clock, Timestamp};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::attempt::{Failed, Tried, is_taken, sync, timed_out, try_job, try_step, try_undo};
use crate::bag::Part;
use crate::cancellation::Cancellation;
use crate::context::{RawContext, RunShared, Scope};
use crate::error::{Phase, StepError, StepErrorKind};
use crate::key::Stored;
use crate::outcome::{Ended, Outcome, RunState};
use crate::plan::{ForEach, Leaf, LeafKind, Node, Plan};
use crate::policy::Join;

pub(crate) async fn run<I>(
    plan: Arc<Plan>,
    clock: Arc<dyn Clock>,
    input: Stored,
    cancellation: Option<Cancellation>,
) -> Outcome<I> {
    let run = Arc::new(RunShared::new(plan, input, cancellation));
    let ended = Execution::new(&run, &clock).execute().await;
    Outcome { run, ended, types: PhantomData }
}

struct Execution<'a> {
    run: &'a Arc<RunShared>,
    clock: &'a Arc<dyn Clock>,
    deadline: Option<Timestamp>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    errors: Vec<StepError>,
    /// What can be taken back, in order of completion.
    finished: Vec<usize>,
}

impl<'a> Execution<'a> {
    fn new(run: &'a Arc<RunShared>, clock: &'a Arc<dyn Clock>) -> Self {
        let deadline = run.plan.deadline.map(|after| clock.now() + after);
        Self { run, clock, deadline, progress: Mutex::default() }
    }

    async fn execute(self) -> Ended {
        let plan = &self.run.plan;
        if let Some(leaf) = plan.leaves.iter().find(|leaf| leaf.kind.needs_store()) {
            let message = format!("a {} can only run durably", leaf.kind.word());
            let error = StepError::new(&leaf.name, Phase::Job, StepErrorKind::NeedsDurableRun, message);
            return Ended { state: RunState::Failed, error: Some(error), errors: Vec::new() };
        }
        let (state, error) = match self.sequence(&plan.root).await {
            Ok(()) => (RunState::Completed, None),
            Err(error) => (Box::pin(self.compensate(&error)).await, Some(error)),
        };
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ended { state, error, errors: progress.errors }
    }

    async fn sequence(&self, nodes: &[Node]) -> Result<(), StepError> {
        for node in nodes {
            match node {
                Node::Leaf(step) => self.leaf(*step).await?,
                nested => self.nested(nested).await?,
            }
        }
        Ok(())
    }

    fn nested<'b>(&'b self, node: &'b Node) -> BoxFuture<'b, Result<(), StepError>> {
        match node {
            Node::Leaf(step) => Box::pin(self.leaf(*step)),
            Node::Sequence(nodes) => Box::pin(self.sequence(nodes)),
            Node::Parallel { join, branches } => Box::pin(self.parallel(*join, branches)),
        }
    }

    async fn parallel(&self, join: Join, branches: &[Node]) -> Result<(), StepError> {
        let first = Mutex::new(None);
        let branches: Vec<_> = branches.iter().map(|node| self.branch(join, node, &first)).collect();
        join_all(branches).await;
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    async fn branch(&self, join: Join, node: &Node, first: &Mutex<Option<StepError>>) {
        if let Err(error) = self.nested(node).await {
            if join == Join::FailFast {
                self.run.stop.raise();
            }
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    async fn leaf(&self, step: usize) -> Result<(), StepError> {
        let leaf = &self.run.plan.leaves[step];
        self.check_end(leaf)?;
        if leaf.condition.is_some() && !is_taken(leaf, self.context(step, 1))? {
            return Ok(());
        }
        let value = match &leaf.kind {
            LeafKind::Job(job) => {
                let mut tries = Tries::new(self, leaf);
                loop {
                    let raw = RawContext { deadline: tries.deadline(), ..self.context(step, tries.attempt) };
                    // The plain case apart, and the rest in a box: a run is moved about less.
                    let tried = if leaf.pre_check.is_none() && raw.deadline.is_none() {
                        try_job(leaf, || job(raw)).await.map_or_else(Tried::Failed, Tried::Done)
                    } else {
                        Box::pin(try_step(leaf, raw, self.clock, |raw| job(raw))).await
                    };
                    match tried {
                        Tried::Done(value) => break value,
                        Tried::Skipped(error) => {
                            self.progress().errors.push(error);
                            return Ok(());
                        }
                        Tried::Cancelled(error) => return Err(error),
                        Tried::Failed(failed) => Box::pin(tries.again(failed)).await?,
                    }
                }
            }
            LeafKind::ForEach(each) => Box::pin(self.for_each(step, leaf, each)).await?,
            LeafKind::Sleep(until) => {
                let now = self.clock.now();
                let until = sync(leaf, Phase::Job, || until(self.context(step, 1), now))?;
                Box::pin(self.sleep_until(leaf, until)).await?;
                Arc::new(())
            }
            LeafKind::TxJob(_) | LeafKind::Signal { .. } | LeafKind::Child { .. } => {
                unreachable!("a definition that needs a store was refused")
            }
        };
        self.run.bag.put(step, Part::Job, value);
        if leaf.undo.is_some() {
            self.progress().finished.push(step);
        }
        Ok(())
    }

    async fn for_each(&self, step: usize, leaf: &Leaf, each: &ForEach) -> Result<Stored, StepError> {
        let items = sync(leaf, Phase::Job, || (each.items)(self.context(step, 1)))?;
        let item = |(index, item)| self.item(step, leaf, each, index, item);
        let items: Vec<_> = items.into_iter().enumerate().map(item).collect();
        let values = stream::iter(items).buffered(each.at_once);
        Ok((each.collect)(values.try_collect().await?))
    }

    async fn item(
        &self,
        step: usize,
        leaf: &Leaf,
        each: &ForEach,
        index: usize,
        item: Stored,
    ) -> Result<Stored, StepError> {
        let mut tries = Tries::new(self, leaf);
        loop {
            self.check_end(leaf)?;
            let context = self.context(step, tries.attempt);
            let raw = RawContext { deadline: tries.deadline(), item: Some(index), ..context };
            let deadline = raw.deadline;
            let job = try_job(leaf, || (each.job)(raw, Arc::clone(&item)));
            let tried = match deadline {
                None => job.await,
                Some(at) => {
                    let late = || Err(timed_out(leaf, Phase::Job));
                    self.clock.timeout_at(at, job).await.unwrap_or_else(late)
                }
            };
            match tried {
                Ok(value) => return Ok(value),
                Err(failed) => tries.again(failed).await?,
            }
        }
    }

    /// Takes back what finished, the last first.
    async fn compensate(&self, error: &StepError) -> RunState {
        let finished = std::mem::take(&mut self.progress().finished);
        let mut state = match error.kind() {
            _ if !finished.is_empty() => RunState::Compensated,
            StepErrorKind::Cancelled | StepErrorKind::DeadlineExceeded => RunState::Cancelled,
            _ => RunState::Failed,
        };
        for step in finished.into_iter().rev() {
            let leaf = &self.run.plan.leaves[step];
            let policy = leaf.undo.as_ref().map_or(crate::RetryPolicy::NONE, |(_, policy)| *policy);
            let began = self.clock.now();
            let mut attempt = 1;
            loop {
                let raw = RawContext { scope: Scope::Compensation, ..self.context(step, attempt) };
                let Err(error) = try_undo(leaf, raw).await else { break };
                let Some(wait) = policy.wait(attempt, self.clock.now().since(began)) else {
                    self.progress().errors.push(error);
                    state = RunState::CompensationFailed;
                    break;
                };
                self.clock.sleep(wait).await;
                attempt += 1;
            }
        }
        state
    }

    /// Whether the run may go on at all.
    fn check_end(&self, leaf: &Leaf) -> Result<(), StepError> {
        let stop = |kind, message| Err(StepError::new(&leaf.name, Phase::Job, kind, message));
        if self.run.is_stopped() {
            return stop(StepErrorKind::Cancelled, "the run was cancelled");
        }
        if self.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return stop(StepErrorKind::DeadlineExceeded, "the run passed its deadline");
        }
        Ok(())
    }

    async fn sleep_until(&self, leaf: &Leaf, until: Timestamp) -> Result<(), StepError> {
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            () = self.run.stopped() => {}
        }
        self.check_end(leaf)
    }

    fn context(&self, step: usize, attempt: u32) -> RawContext {
        let (run, scope) = (Arc::clone(self.run), Scope::Forward);
        RawContext { run, step, item: None, attempt, deadline: self.deadline, scope }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts at one callback.
struct Tries<'a> {
    execution: &'a Execution<'a>,
    leaf: &'a Leaf,
    attempt: u32,
    /// Where the policy needs to know.
    began: Option<Timestamp>,
}

impl<'a> Tries<'a> {
    fn new(execution: &'a Execution<'a>, leaf: &'a Leaf) -> Self {
        let began = (leaf.retry.attempts > 1).then(|| execution.clock.now());
        Self { execution, leaf, attempt: 1, began }
    }

    /// When the attempt that begins now is given up.
    fn deadline(&self) -> Option<Timestamp> {
        let Execution { clock, deadline, .. } = self.execution;
        match self.leaf.timeout {
            None => *deadline,
            Some(timeout) => {
                let at = clock.now() + timeout;
                Some(deadline.map_or(at, |deadline| at.min(deadline)))
            }
        }
    }

    /// Waits for the next attempt, or gives up.
    async fn again(&mut self, failed: Failed) -> Result<(), StepError> {
        let Execution { clock, .. } = self.execution;
        let elapsed = self.began.map_or(std::time::Duration::ZERO, |began| clock.now().since(began));
        match self.leaf.retry.wait(self.attempt, elapsed) {
            Some(wait) if !failed.is_final => {
                self.execution.sleep_until(self.leaf, clock.now() + wait).await?;
                self.attempt += 1;
                Ok(())
            }
            _ => {
                // Where the attempt ended because the run did, that is the reason.
                if self.execution.deadline.is_some() {
                    self.execution.check_end(self.leaf)?;
                }
                Err(failed.error)
            }
        }
    }
}
