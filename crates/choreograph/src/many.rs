use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use evenkeel_core::Clock;
use futures_util::{FutureExt, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::key::Value;
use crate::memory;
use crate::outcome::Outcome;
use crate::plan::Plan;

/// The outcomes of runs in memory, one for each input, in the order in which they end.
///
/// Nothing runs before the stream is polled, inside a tokio runtime. Whoever reads slowly slows the
/// runs down: never more than 300 outcomes a worker wait. Runs that never wait hand over up to 64 at
/// once, so an iterator that blocks holds some back. Dropping the stream stops everything where it
/// stands.
///
/// # Panics
/// Where the iterator of the inputs panics, so does the stream.
#[must_use = "streams do nothing unless polled"]
pub struct RunMany<I> {
    state: State<I>,
    workers: NonZeroUsize,
}

/// How many outcomes of runs that never waited are handed over at once: waking the reader for each
/// would cost more than the run.
const AT_ONCE: usize = 64;

/// How many times that a worker hands over before it waits for the reader.
const AHEAD: usize = 2;

type Inputs<I> = Box<dyn Iterator<Item = I> + Send>;

enum State<I> {
    Ready {
        plan: Arc<Plan>,
        clock: Arc<dyn Clock>,
        inputs: Inputs<I>,
    },
    Running {
        ready: std::vec::IntoIter<Outcome<I>>,
        outcomes: mpsc::Receiver<Vec<Outcome<I>>>,
        workers: JoinSet<()>,
    },
    Ended(PhantomData<I>),
}

impl<I: Value> RunMany<I> {
    pub(crate) fn new(
        plan: Arc<Plan>,
        clock: Arc<dyn Clock>,
        inputs: impl Iterator<Item = I> + Send + 'static,
    ) -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { state: State::Ready { plan, clock, inputs: Box::new(inputs) }, workers }
    }

    /// How many run at once; as many as there are CPUs unless set, at least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
        self
    }
}

fn begin<I: Value>(plan: &Arc<Plan>, clock: &Arc<dyn Clock>, inputs: Inputs<I>, workers: usize) -> State<I> {
    let (sender, outcomes) = mpsc::channel(workers.saturating_mul(AHEAD));
    let inputs = Arc::new(Mutex::new(inputs));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (plan, clock, inputs) = (Arc::clone(plan), Arc::clone(clock), Arc::clone(&inputs));
        let sender = sender.clone();
        tasks.spawn(async move {
            let mut ended = Vec::new();
            while let Some(input) = next(&inputs) {
                let run = memory::run(Arc::clone(&plan), Arc::clone(&clock), Arc::new(input), None);
                tokio::pin!(run);
                let outcome = match run.as_mut().now_or_never() {
                    Some(outcome) => outcome,
                    None => {
                        // What has ended does not wait for what has not.
                        if !hand_over(&sender, &mut ended).await {
                            return;
                        }
                        run.await
                    }
                };
                ended.push(outcome);
                if ended.len() == AT_ONCE && !hand_over(&sender, &mut ended).await {
                    return;
                }
            }
            hand_over(&sender, &mut ended).await;
        });
    }
    State::Running { ready: Vec::new().into_iter(), outcomes, workers: tasks }
}

/// Whether the reader is still there.
async fn hand_over<I>(sender: &mpsc::Sender<Vec<Outcome<I>>>, ended: &mut Vec<Outcome<I>>) -> bool {
    ended.is_empty() || sender.send(std::mem::replace(ended, Vec::with_capacity(AT_ONCE))).await.is_ok()
}

fn next<I>(inputs: &Mutex<Inputs<I>>) -> Option<I> {
    // After a panic in the iterator the other workers end, and the stream hands the panic on.
    inputs.lock().ok()?.next()
}

impl<I: Value> Stream for RunMany<I> {
    type Item = Outcome<I>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome<I>>> {
        let workers = self.workers.get();
        if let State::Ready { .. } = self.state
            && let State::Ready { plan, clock, inputs } =
                std::mem::replace(&mut self.state, State::Ended(PhantomData))
        {
            self.state = begin(&plan, &clock, inputs, workers);
        }
        let State::Running { ready, outcomes, workers } = &mut self.state else { return Poll::Ready(None) };
        loop {
            if let Some(outcome) = ready.next() {
                return Poll::Ready(Some(outcome));
            }
            match ready!(outcomes.poll_recv(context)) {
                Some(ended) => *ready = ended.into_iter(),
                None => break,
            }
        }
        while let Some(ended) = ready!(workers.poll_join_next(context)) {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        self.state = State::Ended(PhantomData);
        Poll::Ready(None)
    }
}

impl<I> Unpin for RunMany<I> {}

impl<I> fmt::Debug for RunMany<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunMany").field("workers", &self.workers).finish_non_exhaustive()
    }
}
