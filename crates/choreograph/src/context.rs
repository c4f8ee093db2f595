use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use sha2::{Digest, Sha256};

use crate::bag::{Bag, Part};
use crate::cancellation::{Cancellation, Flag};
use crate::key::{StepKey, Stored, Value};
use crate::plan::Plan;

/// What a callback of a step is given: the run's input, what other steps found, and who is asking.
///
/// A cheap handle, by value, so that a callback may keep it across awaits.
pub struct StepContext<I> {
    pub(crate) raw: RawContext,
    input: PhantomData<fn() -> I>,
}

/// A [`StepContext`] that has forgotten the type of its input.
#[derive(Clone)]
pub(crate) struct RawContext {
    pub(crate) run: Arc<RunShared>,
    pub(crate) step: usize,
    pub(crate) item: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) scope: Scope,
}

/// Whether a callback goes forward or takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Forward,
    Compensation,
}

/// One run in this process.
pub(crate) struct RunShared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) input: Stored,
    pub(crate) bag: Bag,
    /// Given to durable runs; made up where it is asked for in memory.
    id: OnceLock<RunName>,
    /// What the caller of a run in memory may cancel it by.
    pub(crate) outer: Option<Cancellation>,
    pub(crate) stop: Flag,
}

#[derive(Clone)]
pub(crate) struct RunName {
    pub(crate) namespace: String,
    pub(crate) id: String,
}

impl RunShared {
    pub(crate) fn new(plan: Arc<Plan>, input: Stored, outer: Option<Cancellation>) -> Self {
        let bag = Bag::with_steps(plan.leaves.len());
        Self { plan, input, bag, id: OnceLock::new(), outer, stop: Flag::default() }
    }

    pub(crate) fn named(plan: Arc<Plan>, input: Stored, name: RunName) -> Self {
        let run = Self::new(plan, input, None);
        Self { id: OnceLock::from(name), ..run }
    }

    pub(crate) fn name(&self) -> &RunName {
        self.id.get_or_init(|| RunName { namespace: String::new(), id: uuid::Uuid::new_v4().to_string() })
    }

    /// Whether no further step should begin.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_raised() || self.outer.as_ref().is_some_and(Cancellation::is_cancelled)
    }

    pub(crate) async fn stopped(&self) {
        match &self.outer {
            None => self.stop.raised().await,
            Some(outer) => tokio::select! {
                () = self.stop.raised() => {}
                () = outer.cancelled() => {}
            },
        }
    }

    pub(crate) fn value<T: Send + Sync + 'static>(&self, name: &str, part: Part) -> Option<Arc<T>> {
        self.bag.get(self.plan.index_of(name)?, part)?.downcast().ok()
    }
}

impl<I> StepContext<I> {
    pub(crate) const fn new(raw: RawContext) -> Self {
        Self { raw, input: PhantomData }
    }

    /// The value of a step's job; `None` where it has none (yet), for another definition's key too.
    #[must_use]
    pub fn get<T: Value, P>(&self, key: StepKey<T, P>) -> Option<Arc<T>> {
        self.raw.run.value(key.name(), Part::Job)
    }

    /// The value of a step's pre-check; `None` where it has none (yet).
    #[must_use]
    pub fn pre_check<T, P: Value>(&self, key: StepKey<T, P>) -> Option<Arc<P>> {
        self.raw.run.value(key.name(), Part::PreCheck)
    }

    /// Sets the value of a step's job, in place of one that it has.
    ///
    /// A durable run keeps it from the end of the step that sets it; what a failed attempt set may
    /// be gone in the next.
    ///
    /// # Errors
    /// `InvalidInput` where the definition has no step of this name and type.
    pub fn set<T: Value, P: Value>(&self, key: StepKey<T, P>, value: T) -> Result<()> {
        self.put(key, Part::Job, Arc::new(value))
    }

    /// Sets the value of a step's pre-check; otherwise as [`set`](Self::set).
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_pre_check<T: Value, P: Value>(&self, key: StepKey<T, P>, value: P) -> Result<()> {
        self.put(key, Part::PreCheck, Arc::new(value))
    }

    fn put<T: Value, P: Value>(&self, key: StepKey<T, P>, part: Part, value: Stored) -> Result<()> {
        let RawContext { run, step: by, .. } = &self.raw;
        let known = run.plan.index_of(key.name()).filter(|step| run.plan.leaves[*step].has_types::<T, P>());
        let Some(step) = known else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the definition has no step of this name and type",
            )
            .with("definition", format_args!("{:?}", run.plan.name))
            .with("step", format_args!("{:?}", key.name())));
        };
        run.bag.set(*by, step, part, value);
        Ok(())
    }

    /// The name of the step.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.raw.run.plan.leaves[self.raw.step].name
    }

    /// Which attempt at the callback this is, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.raw.attempt
    }

    /// The id of the run; a random one in memory.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.raw.run.name().id
    }

    /// A key to give to other services with what this callback asks of them: 32 hexadecimal
    /// digits, the same in each attempt at this step (and item) of this run, and another for
    /// everything else.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        let RunName { namespace, id } = self.raw.run.name();
        let item = self.raw.item.map(|item| item.to_string());
        let scope = match self.raw.scope {
            Scope::Forward => "job",
            Scope::Compensation => "compensation",
        };
        let mut hash = Sha256::new();
        for part in [namespace, id, self.step(), scope, item.as_deref().unwrap_or_default()] {
            hash.update(part);
            hash.update([0]);
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the run was cancelled, or has failed elsewhere. Never so in a compensation.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.raw.scope == Scope::Forward && self.raw.run.is_stopped()
    }

    /// Completes once the run is cancelled or has failed elsewhere; in a compensation never.
    pub async fn cancelled(&self) {
        match self.raw.scope {
            Scope::Forward => self.raw.run.stopped().await,
            Scope::Compensation => std::future::pending().await,
        }
    }

    /// When this attempt is given up, where there is such an end.
    #[must_use]
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.raw.deadline
    }
}

impl<I: Value> StepContext<I> {
    /// What the run was started with.
    #[must_use]
    pub fn input(&self) -> &I {
        self.raw.run.input.downcast_ref().expect("a run's input is of its definition's type")
    }
}

impl<I> Clone for StepContext<I> {
    fn clone(&self) -> Self {
        Self::new(self.raw.clone())
    }
}

impl<I> fmt::Debug for StepContext<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("step", &self.step())
            .field("attempt", &self.raw.attempt)
            .finish_non_exhaustive()
    }
}
