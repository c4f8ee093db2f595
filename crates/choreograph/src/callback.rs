//! What a user hands in, and how it is kept once the types are no longer known.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Arc;

use evenkeel_core::{BoxError, Timestamp, Tx};
use futures_util::future::BoxFuture;

use crate::context::{RawContext, StepContext};
use crate::key::{Stored, Value};

/// The future of a callback whose value is a `T`.
///
/// Implemented for every `Future<Output = Result<T, E>>` whose error is one, or a string.
#[diagnostic::on_unimplemented(
    message = "the callback's future does not give a `Result<{T}, _>`",
    label = "this callback does not give what its step is for",
    note = "a job gives the type that its `StepKey` names first, a probe an `Option` of it, a compensation `()`",
    note = "its error type converts into `Box<dyn Error + Send + Sync>`"
)]
pub trait Work<T>: Send {
    /// The value, with the error in a box.
    fn done(self) -> impl Future<Output = Result<T, BoxError>> + Send;
}

impl<F, T, E> Work<T> for F
where
    F: Future<Output = Result<T, E>> + Send,
    E: Into<BoxError>,
{
    async fn done(self) -> Result<T, BoxError> {
        self.await.map_err(Into::into)
    }
}

/// The future of a pre-check whose value is a `P`.
///
/// Implemented for every `Future<Output = Result<P, E>>` whose error is a [`Skip`], an error or a string.
#[diagnostic::on_unimplemented(
    message = "the pre-check's future does not give a `Result<{P}, _>`",
    label = "this pre-check does not give what its step is for",
    note = "a pre-check gives the type that its `StepKey` names second, `()` where it names one only",
    note = "its error is a `Skip`, or converts into `Box<dyn Error + Send + Sync>`"
)]
pub trait Check<P>: Send {
    /// The value, or why the job is not to run.
    fn checked(self) -> impl Future<Output = Result<P, Skip<P>>> + Send;
}

impl<F, P, E> Check<P> for F
where
    F: Future<Output = Result<P, E>> + Send,
    E: Into<Skip<P>>,
{
    async fn checked(self) -> Result<P, Skip<P>> {
        self.await.map_err(Into::into)
    }
}

/// Why a pre-check does not let its job run. Every error is one: `?` makes it.
#[derive(Debug)]
pub struct Skip<P = ()> {
    value: Option<P>,
    error: BoxError,
    what: Skipped,
}

/// What a pre-check keeps from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    Job,
    Run,
}

impl<P> Skip<P> {
    /// Skips the job: it is done already, or not needed. The error is listed, and the run goes on.
    pub fn because(error: impl Into<BoxError>) -> Self {
        Self { value: None, error: error.into(), what: Skipped::Job }
    }

    /// Stops the run.
    pub fn cancel(error: impl Into<BoxError>) -> Self {
        Self { what: Skipped::Run, ..Self::because(error) }
    }

    /// Hands on what was found all the same, as the pre-check's value.
    #[must_use]
    pub fn with(self, value: P) -> Self {
        Self { value: Some(value), ..self }
    }
}

impl<P, E: Into<BoxError>> From<E> for Skip<P> {
    fn from(error: E) -> Self {
        Self::because(error)
    }
}

/// A [`Skip`] of any pre-check.
pub(crate) struct RawSkip {
    pub(crate) value: Option<Stored>,
    pub(crate) error: BoxError,
    pub(crate) what: Skipped,
}

type Fallible<T> = BoxFuture<'static, Result<T, BoxError>>;

pub(crate) type RawJob = Box<dyn Fn(RawContext) -> Fallible<Stored> + Send + Sync>;
pub(crate) type RawCheck =
    Box<dyn Fn(RawContext) -> BoxFuture<'static, Result<Stored, RawSkip>> + Send + Sync>;
pub(crate) type RawUndo = Box<dyn Fn(RawContext) -> Fallible<()> + Send + Sync>;
pub(crate) type RawProbe = Box<dyn Fn(RawContext) -> Fallible<Option<Stored>> + Send + Sync>;
pub(crate) type RawTxJob = Box<dyn Fn(RawContext, Box<dyn Any + Send>) -> Fallible<Stored> + Send + Sync>;
pub(crate) type RawItemJob = Box<dyn Fn(RawContext, Stored) -> Fallible<Stored> + Send + Sync>;
pub(crate) type RawItems = Box<dyn Fn(RawContext) -> Vec<Stored> + Send + Sync>;
pub(crate) type RawCondition = Box<dyn Fn(RawContext) -> bool + Send + Sync>;
pub(crate) type RawInstant = Box<dyn Fn(RawContext, Timestamp) -> Timestamp + Send + Sync>;
pub(crate) type RawInput = Box<dyn Fn(RawContext) -> serde_json::Result<String> + Send + Sync>;
pub(crate) type Classifier = Box<dyn Fn(&(dyn StdError + 'static)) -> bool + Send + Sync>;

fn stored<T: Send + Sync + 'static>(value: T) -> Stored {
    Arc::new(value)
}

pub(crate) fn raw_job<I, T, F, W>(job: F) -> RawJob
where
    T: Value,
    F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
    W: Work<T> + 'static,
{
    Box::new(move |raw| {
        let work = job(StepContext::new(raw));
        Box::pin(async move { work.done().await.map(stored) })
    })
}

pub(crate) fn raw_check<I, P, F, W>(check: F) -> RawCheck
where
    P: Value,
    F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
    W: Check<P> + 'static,
{
    Box::new(move |raw| {
        let check = check(StepContext::new(raw));
        Box::pin(async move {
            let skip =
                |Skip { value, error, what }: Skip<P>| RawSkip { value: value.map(stored), error, what };
            check.checked().await.map(stored).map_err(skip)
        })
    })
}

pub(crate) fn raw_undo<I, F, W>(undo: F) -> RawUndo
where
    F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
    W: Work<()> + 'static,
{
    Box::new(move |raw| {
        let work = undo(StepContext::new(raw));
        Box::pin(work.done())
    })
}

pub(crate) fn raw_probe<I, T, F, W>(probe: F) -> RawProbe
where
    T: Value,
    F: Fn(StepContext<I>) -> W + Send + Sync + 'static,
    W: Work<Option<T>> + 'static,
{
    Box::new(move |raw| {
        let work = probe(StepContext::new(raw));
        Box::pin(async move { Ok(work.done().await?.map(stored)) })
    })
}

pub(crate) fn raw_tx_job<I, C, T, F, W>(job: F) -> RawTxJob
where
    C: 'static,
    T: Value,
    F: Fn(StepContext<I>, Tx<C>) -> W + Send + Sync + 'static,
    W: Work<T> + 'static,
{
    Box::new(move |raw, tx| {
        let tx = tx.downcast::<Tx<C>>().expect("a definition is registered with a store of its connection");
        let work = job(StepContext::new(raw), *tx);
        Box::pin(async move { work.done().await.map(stored) })
    })
}

pub(crate) fn raw_item_job<I, Item, T, F, W>(job: F) -> RawItemJob
where
    Item: Value,
    T: Value,
    F: Fn(StepContext<I>, Arc<Item>) -> W + Send + Sync + 'static,
    W: Work<T> + 'static,
{
    Box::new(move |raw, item| {
        let item = item.downcast::<Item>().expect("an item is of its list's type");
        let work = job(StepContext::new(raw), item);
        Box::pin(async move { work.done().await.map(stored) })
    })
}

pub(crate) fn raw_items<I, Item, F>(items: F) -> RawItems
where
    Item: Value,
    F: Fn(StepContext<I>) -> Vec<Item> + Send + Sync + 'static,
{
    Box::new(move |raw| items(StepContext::new(raw)).into_iter().map(stored).collect())
}

/// The values of a list's items as one.
pub(crate) fn collect<T: Value>(items: Vec<Stored>) -> Stored {
    let own = |item: Stored| {
        let item = item.downcast::<T>().expect("the value of an item is of its list's type");
        Arc::into_inner(item).expect("nobody else has seen the value of an item")
    };
    stored(items.into_iter().map(own).collect::<Vec<T>>())
}
