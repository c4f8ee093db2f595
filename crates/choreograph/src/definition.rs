use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use evenkeel_core::{Clock, SystemClock};

use crate::builder::Builder;
use crate::cancellation::Cancellation;
use crate::key::Value;
use crate::many::RunMany;
use crate::memory;
use crate::outcome::Outcome;
use crate::plan::Plan;

/// Named steps, for inputs of type `I`. What is checked of it is checked when it is built.
///
/// `C` is the connection that its transactional steps write with; a [`Portable`] definition has
/// none and runs on any store. Clones are cheap.
///
/// # Example
/// ```
/// use evenkeel_choreograph::{Definition, StepContext, StepKey};
///
/// const DOUBLE: StepKey<u32> = StepKey::new("double");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> evenkeel_core::Result<()> {
/// let definition = Definition::<u32>::builder("sums")
///     .step(DOUBLE, async |ctx| Ok::<_, std::io::Error>(ctx.input() * 2))
///     .build()?;
/// assert_eq!(*definition.run(21).await.get(DOUBLE).unwrap(), 42);
/// # Ok(())
/// # }
/// ```
pub struct Definition<I, C = Portable> {
    pub(crate) plan: Arc<Plan>,
    clock: Arc<dyn Clock>,
    types: PhantomData<fn() -> (I, C)>,
}

/// No connection: nobody can make one.
#[derive(Debug)]
pub enum Portable {}

impl<I: Value, C: 'static> Definition<I, C> {
    /// Begins a definition. Its name is what runs are started by.
    pub fn builder(name: &'static str) -> Builder<I, C> {
        Builder::named(name)
    }

    pub(crate) fn of(plan: Plan) -> Self {
        Self { plan: Arc::new(plan), clock: SystemClock::shared(), types: PhantomData }
    }

    /// Takes the time of runs in memory from this clock.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.plan.name
    }

    /// What identifies this version: a hash of the names, order and structure of its steps.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.plan.hash
    }

    /// Runs the steps in memory.
    ///
    /// Steps that need a store (signals, children, transactions) end it before it begins, with a
    /// [`NeedsDurableRun`](crate::StepErrorKind::NeedsDurableRun). Dropping the future drops the
    /// callback under way and takes nothing back.
    pub fn run(&self, input: I) -> impl Future<Output = Outcome<I>> + Send + 'static {
        memory::run(Arc::clone(&self.plan), Arc::clone(&self.clock), Arc::new(input), None)
    }

    /// As [`run`](Self::run), to be cancelled: seen between steps, and by the callback under way.
    pub fn run_cancellable(
        &self,
        input: I,
        cancellation: Cancellation,
    ) -> impl Future<Output = Outcome<I>> + Send + 'static {
        memory::run(Arc::clone(&self.plan), Arc::clone(&self.clock), Arc::new(input), Some(cancellation))
    }

    /// Runs the steps in memory for each input, several at a time.
    pub fn run_many<N>(&self, inputs: N) -> RunMany<I>
    where
        N: IntoIterator<Item = I>,
        N::IntoIter: Send + 'static,
    {
        RunMany::new(Arc::clone(&self.plan), Arc::clone(&self.clock), inputs.into_iter())
    }
}

impl<I: Value> Definition<I> {
    /// The same definition, for a store with connections of type `C`.
    #[must_use]
    pub fn lift<C>(self) -> Definition<I, C> {
        Definition { plan: self.plan, clock: self.clock, types: PhantomData }
    }
}

impl<I, C> Clone for Definition<I, C> {
    fn clone(&self) -> Self {
        let (plan, clock) = (Arc::clone(&self.plan), Arc::clone(&self.clock));
        Self { plan, clock, types: PhantomData }
    }
}

impl<I, C> fmt::Debug for Definition<I, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.plan.name)
            .field("version", &self.plan.hash)
            .finish_non_exhaustive()
    }
}
