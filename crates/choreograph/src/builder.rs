use std::borrow::Cow;
use std::collections::HashSet;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Result, Timestamp, Tx};

use crate::callback::{
    Check, Work, collect, raw_check, raw_item_job, raw_items, raw_job, raw_probe, raw_tx_job, raw_undo,
};
use crate::context::StepContext;
use crate::definition::{Definition, Portable};
use crate::durable::ChildOutcome;
use crate::key::{Codec, StepKey, Value};
use crate::plan::{ForEach, Leaf, LeafKind, Node, Plan};
use crate::policy::{Join, OnInterrupted, RetryPolicy, VersionPolicy};

/// The longest name of a definition or a step, in bytes.
const LONGEST_NAME: usize = 200;

/// Puts a [`Definition`] together, step by step.
///
/// What is said of a step follows it: `L` remembers what the last one is, so that a pre-check of
/// another type, or a probe of a pause, does not compile.
#[must_use = "a definition is built by `build`"]
pub struct Builder<I, C = Portable, L = Start> {
    draft: Draft,
    types: Types<I, C, L>,
}

type Types<I, C, L> = PhantomData<fn() -> (I, C, L)>;

struct Draft {
    name: &'static str,
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    deadline: Option<Duration>,
    version_policy: VersionPolicy,
}

/// Nothing to say more of.
#[derive(Debug)]
pub enum Start {}
/// After a step whose job gives a `T` and whose pre-check gives a `P`.
#[derive(Debug)]
pub struct Step<T, P>(PhantomData<fn() -> (T, P)>);
/// After a [`for_each`](Builder::for_each).
#[derive(Debug)]
pub enum Items {}
/// After a sleep, a wait for a signal or a child run.
#[derive(Debug)]
pub enum Pause {}

mod sealed {
    use super::{Items, Pause, Step};

    /// What may be made conditional and taken back.
    pub trait AfterStep {}
    impl<T, P> AfterStep for Step<T, P> {}
    impl AfterStep for Items {}
    impl AfterStep for Pause {}

    /// What is attempted.
    pub trait AfterJob {}
    impl<T, P> AfterJob for Step<T, P> {}
    impl AfterJob for Items {}
}
use sealed::{AfterJob, AfterStep};

impl<I: Value, C: 'static> Builder<I, C> {
    pub(crate) fn named(name: &'static str) -> Self {
        let (leaves, nodes) = (Vec::new(), Vec::new());
        let draft = Draft { name, leaves, nodes, deadline: None, version_policy: VersionPolicy::default() };
        Self { draft, types: PhantomData }
    }
}

impl<I: Value, C: 'static, L> Builder<I, C, L> {
    /// Adds a step with its job.
    pub fn step<T, P, F, W>(self, key: StepKey<T, P>, job: F) -> Builder<I, C, Step<T, P>>
    where
        T: Value,
        P: Value,
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Work<T> + 'static,
    {
        self.leaf(Leaf::new::<T, P>(key.name().into(), LeafKind::Job(raw_job(job))))
    }

    /// Adds a step whose name is `#` and its index, counted from 0 over all steps.
    pub fn unnamed<F, W>(self, job: F) -> Builder<I, C, Step<(), ()>>
    where
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Work<()> + 'static,
    {
        let name = self.next_name();
        self.leaf(Leaf::new::<(), ()>(name, LeafKind::Job(raw_job(job))))
    }

    /// Adds a step whose own writes are committed with its record: both or neither, exactly once.
    ///
    /// The job gets the transaction by value and lets go of it by its end. It can only run durably.
    pub fn tx_step<T, P, F, W>(self, key: StepKey<T, P>, job: F) -> Builder<I, C, Step<T, P>>
    where
        T: Value,
        P: Value,
        F: Fn(StepContext<I>, Tx<C>) -> W + Send + Sync + 'static,
        W: Work<T> + 'static,
    {
        self.leaf(Leaf::new::<T, P>(key.name().into(), LeafKind::TxJob(raw_tx_job(job))))
    }

    /// Adds a step that does a job for each item of a list, at most `at_once` at a time; its value
    /// is theirs, in the order of the list.
    ///
    /// A durable run keeps the list, and each item's value as soon as it is there. Attempts are
    /// counted for each item; the first that fails for good fails the step.
    pub fn for_each<Item, T, G, F, W>(
        self,
        key: StepKey<Vec<T>>,
        at_once: usize,
        items: G,
        job: F,
    ) -> Builder<I, C, Items>
    where
        Item: Value,
        T: Value,
        G: Fn(StepContext<I>) -> Vec<Item> + Send + Sync + 'static,
        F: Fn(StepContext<I>, Arc<Item>) -> W + Send + Sync + 'static,
        W: Work<T> + 'static,
    {
        let kind = LeafKind::ForEach(ForEach {
            items: raw_items(items),
            item: Codec::of::<Item>(),
            job: raw_item_job(job),
            item_value: Codec::of::<T>(),
            collect: collect::<T>,
            at_once: at_once.max(1),
        });
        self.leaf(Leaf::new::<Vec<T>, ()>(key.name().into(), kind))
    }

    /// Waits for so long; a durable run holds no worker meanwhile.
    pub fn sleep(self, duration: Duration) -> Builder<I, C, Pause> {
        let name = self.next_name();
        self.leaf(Leaf::new::<(), ()>(name, LeafKind::Sleep(Box::new(move |_, now| now + duration))))
    }

    /// Waits until the instant that `until` says when the run gets there.
    pub fn sleep_until<F>(self, until: F) -> Builder<I, C, Pause>
    where
        F: Fn(StepContext<I>) -> Timestamp + Send + Sync + 'static,
    {
        let name = self.next_name();
        let until = Box::new(move |raw, _| until(StepContext::new(raw)));
        self.leaf(Leaf::new::<(), ()>(name, LeafKind::Sleep(until)))
    }

    /// Waits for a signal of the key's name; its payload becomes the step's value.
    ///
    /// A signal that came earlier is taken at once; each is taken by one wait. Where none comes
    /// within `timeout`, the step has no value, that is listed with the errors, and the run goes
    /// on. It can only run durably.
    pub fn wait_for_signal<T: Value>(
        self,
        key: StepKey<T>,
        timeout: impl Into<Option<Duration>>,
    ) -> Builder<I, C, Pause> {
        let kind = LeafKind::Signal { timeout: timeout.into() };
        self.leaf(Leaf::new::<T, ()>(key.name().into(), kind))
    }

    /// Starts a run of another definition, and waits for its end. Its id is this run's, a dot and
    /// the step's name. A child that does not complete fails the step. It can only run durably.
    pub fn child<J: Value, F>(
        self,
        key: StepKey<ChildOutcome>,
        definition: &'static str,
        input: F,
    ) -> Builder<I, C, Pause>
    where
        F: Fn(StepContext<I>) -> J + Send + Sync + 'static,
    {
        let input = Box::new(move |raw| serde_json::to_string(&input(StepContext::new(raw))));
        let kind = LeafKind::Child { definition, input };
        self.leaf(Leaf::new::<ChildOutcome, ()>(key.name().into(), kind))
    }

    /// Adds branches that run beside each other: each step, group or [`branch`](Self::branch) that
    /// `group` adds is one.
    ///
    /// The callbacks of one run share a task: they overlap where they wait.
    pub fn parallel<M>(
        mut self,
        join: Join,
        group: impl FnOnce(Builder<I, C>) -> Builder<I, C, M>,
    ) -> Builder<I, C> {
        let branches = self.nested(group);
        self.draft.nodes.push(Node::Parallel { join, branches });
        self.retyped()
    }

    /// Adds steps in sequence, as one branch of a [`parallel`](Self::parallel) group.
    pub fn branch<M>(mut self, steps: impl FnOnce(Builder<I, C>) -> Builder<I, C, M>) -> Builder<I, C> {
        let nodes = self.nested(steps);
        self.draft.nodes.push(Node::Sequence(nodes));
        self.retyped()
    }

    /// When a run that takes longer is stopped, and what it did taken back. Steps in doubt are seen to
    /// as by [`Choreographer::cancel`](crate::Choreographer::cancel).
    pub fn deadline(mut self, after: Duration) -> Self {
        self.draft.deadline = Some(after);
        self
    }

    /// What a worker that has another version of the definition does with a run of this one; see
    /// [`VersionPolicy`].
    pub fn version_policy(mut self, policy: VersionPolicy) -> Self {
        self.draft.version_policy = policy;
        self
    }

    /// The definition.
    ///
    /// # Errors
    /// `InvalidInput` where it has no steps, two of one name, a group without branches, or a name
    /// that is empty, longer than 200 bytes or holds a control character.
    pub fn build(self) -> Result<Definition<I, C>> {
        let Draft { name, leaves, nodes, deadline, version_policy } = self.draft;
        let about = |error: Error| error.with("definition", format_args!("{name:?}"));
        check_name("definition", name)?;
        if leaves.is_empty() || nodes.iter().any(is_empty) {
            return Err(about(Error::new(
                ErrorKind::InvalidInput,
                "a definition, and each of its groups, has steps",
            )));
        }
        let mut names = HashSet::new();
        for leaf in &leaves {
            check_name("step", &leaf.name).map_err(about)?;
            if !names.insert(&leaf.name) {
                return Err(about(Error::new(ErrorKind::InvalidInput, "two steps have the same name"))
                    .with("step", format_args!("{:?}", leaf.name)));
            }
        }
        let hash = Plan::hash(&nodes, &leaves);
        let input = Codec::of::<I>();
        Ok(Definition::of(Plan { name, input, leaves, root: nodes, deadline, version_policy, hash }))
    }

    fn nested<M>(&mut self, inner: impl FnOnce(Builder<I, C>) -> Builder<I, C, M>) -> Vec<Node> {
        let mut builder = Builder::named(self.draft.name);
        builder.draft.leaves = std::mem::take(&mut self.draft.leaves);
        let inner = inner(builder).draft;
        self.draft.leaves = inner.leaves;
        inner.nodes
    }

    fn next_name(&self) -> Cow<'static, str> {
        format!("#{}", self.draft.leaves.len()).into()
    }

    fn leaf<M>(mut self, leaf: Leaf) -> Builder<I, C, M> {
        self.draft.nodes.push(Node::Leaf(self.draft.leaves.len()));
        self.draft.leaves.push(leaf);
        self.retyped()
    }

    fn retyped<M>(self) -> Builder<I, C, M> {
        Builder { draft: self.draft, types: PhantomData }
    }

    fn last(&mut self) -> &mut Leaf {
        self.draft.leaves.last_mut().expect("the builder's type says that a step was added last")
    }
}

impl<I: Value, C: 'static, T: Value, P: Value> Builder<I, C, Step<T, P>> {
    /// Looks, ahead of each attempt at the job, whether it is to run.
    ///
    /// Its error skips the job and is listed, and the run goes on; [`Skip::cancel`](crate::Skip::cancel)
    /// stops the run. Its value is kept, also that of a [`Skip::with`](crate::Skip::with).
    pub fn pre_check<F, W>(mut self, check: F) -> Self
    where
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Check<P> + 'static,
    {
        self.last().pre_check = Some(raw_check(check));
        self
    }

    /// Says whether a job that was cut off happened: `Some` records its value and goes on, `None`
    /// runs the job, an error leaves it unknown.
    pub fn probe<F, W>(mut self, probe: F) -> Self
    where
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Work<Option<T>> + 'static,
    {
        self.last().probe = Some(raw_probe(probe));
        self
    }
}

impl<I: Value, C: 'static, L: AfterJob> Builder<I, C, L> {
    /// Tries again what failed: so many attempts in all, or as the policy says. One unless set.
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self {
        self.last().retry = policy.into();
        self
    }

    /// Does not try again after an error for which this holds.
    pub fn non_retryable<F>(mut self, is_final: F) -> Self
    where
        F: Fn(&(dyn StdError + 'static)) -> bool + Send + Sync + 'static,
    {
        self.last().non_retryable = Some(Box::new(is_final));
        self
    }

    /// Gives an attempt up after so long: its future is dropped, and it has failed.
    pub fn timeout(mut self, attempt: Duration) -> Self {
        self.last().timeout = Some(attempt);
        self
    }

    /// What to do where the job was cut off and nobody knows whether it happened.
    pub fn on_interrupted(mut self, policy: OnInterrupted) -> Self {
        self.last().on_interrupted = policy;
        self
    }
}

impl<I: Value, C: 'static, L: AfterStep> Builder<I, C, L> {
    /// Takes the step only where this holds when the run gets there.
    pub fn when<F>(mut self, condition: F) -> Self
    where
        F: Fn(StepContext<I>) -> bool + Send + Sync + 'static,
    {
        self.last().condition = Some(Box::new(move |raw| condition(StepContext::new(raw))));
        self
    }

    /// Takes the step back where the run fails or is cancelled after it: up to 5 attempts.
    pub fn compensate<F, W>(self, undo: F) -> Self
    where
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Work<()> + 'static,
    {
        self.compensate_with(RetryPolicy::attempts(5), undo)
    }

    /// As [`compensate`](Self::compensate), under another policy.
    pub fn compensate_with<F, W>(mut self, retry: impl Into<RetryPolicy>, undo: F) -> Self
    where
        F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
        W: Work<()> + 'static,
    {
        self.last().undo = Some((raw_undo(undo), retry.into()));
        self
    }
}

impl<I, C, L> std::fmt::Debug for Builder<I, C, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("name", &self.draft.name).finish_non_exhaustive()
    }
}

fn is_empty(node: &Node) -> bool {
    match node {
        Node::Leaf(_) => false,
        Node::Sequence(nodes) | Node::Parallel { branches: nodes, .. } => {
            nodes.is_empty() || nodes.iter().any(is_empty)
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST_NAME {
        "is longer than 200 bytes"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("the name of a {what} {problem}"))
        .with("name", format_args!("{name:?}")))
}
