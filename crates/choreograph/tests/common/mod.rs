//! What the durable tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_choreograph::{Choreographer, Definition, Run, StepContext, Value};
use evenkeel_core::{AnyStore, ManualClock, MemoryStore, Store};
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

pub type Fallible<T> = Result<T, String>;

/// What callbacks did, in order.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| *seen == what).count()
    }

    /// A callback that notes the step's name.
    pub fn note<I: 'static, T: Clone + Send + Sync + 'static>(
        &self,
        value: T,
    ) -> impl Fn(StepContext<I>) -> std::future::Ready<Fallible<T>> + Send + Sync + use<I, T> {
        let seen = self.clone();
        move |ctx| {
            seen.add(ctx.step());
            std::future::ready(Ok(value.clone()))
        }
    }

    /// A callback that notes that it began, and ends when the gate has a permit for it.
    pub fn gated<I: 'static, T: Clone + Send + Sync + 'static>(
        &self,
        gate: &Arc<Semaphore>,
        value: T,
    ) -> impl Fn(StepContext<I>) -> BoxFuture<'static, Fallible<T>> + Send + Sync + use<I, T> {
        let (seen, gate) = (self.clone(), Arc::clone(gate));
        move |_| {
            let (seen, gate, value) = (seen.clone(), Arc::clone(&gate), value.clone());
            Box::pin(async move {
                seen.add("began");
                gate.acquire().await.unwrap().forget();
                Ok(value)
            })
        }
    }
}

/// A store with a clock that stands still, and workers to be started and killed.
pub struct Bench {
    pub clock: ManualClock,
    pub store: MemoryStore,
}

impl Bench {
    pub fn new(partitions: u32) -> Self {
        Self { clock: ManualClock::default(), store: MemoryStore::with_partitions(partitions).unwrap() }
    }

    pub fn choreographer(&self) -> Choreographer<AnyStore> {
        Choreographer::new(self.store.clone()).clock(self.clock.shared()).lease(Duration::from_secs(30))
    }

    /// A process that has this definition.
    pub fn process<I: Value>(&self, definition: Definition<I>) -> Choreographer<AnyStore> {
        let choreographer = self.choreographer();
        choreographer.register(definition).unwrap();
        choreographer
    }

    /// Runs the definition to its end, as run `r` of a process with a worker.
    pub async fn run<I: Value>(&self, definition: Definition<I>, input: &I) -> Run {
        let name = definition.name();
        let choreographer = self.process(definition);
        let _worker = Running::start(&choreographer);
        choreographer.start(name, "r", input).await.unwrap();
        self.outcome(&choreographer, "r").await
    }

    /// Waits for a run's end, moving the clock whenever everybody has come to rest.
    pub async fn outcome<S: Store + Clone>(&self, choreographer: &Choreographer<S>, run: &str) -> Run {
        self.pass(choreographer.outcome(run)).await.unwrap()
    }

    /// Moves the clock seven seconds at a time until the future is ready.
    pub async fn pass<F: Future>(&self, future: F) -> F::Output {
        tokio::pin!(future);
        loop {
            for _ in 0..200 {
                tokio::select! {
                    biased;
                    output = &mut future => return output,
                    () = tokio::task::yield_now() => {}
                }
            }
            self.clock.advance(Duration::from_secs(7));
        }
    }
}

/// A worker in a task.
pub struct Running {
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start<S: Store + Clone>(choreographer: &Choreographer<S>) -> Self {
        let (shutdown, asked) = oneshot::channel();
        let worker = choreographer.worker();
        let task = tokio::spawn(worker.run(async move {
            let _ = asked.await;
        }));
        Self { shutdown: Some(shutdown), task }
    }

    /// Kills the worker where it stands.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Asks the worker to end, and hands back the task.
    pub fn shutdown(mut self) -> JoinHandle<()> {
        drop(self.shutdown.take());
        let (shutdown, _) = oneshot::channel();
        self.shutdown = Some(shutdown);
        std::mem::replace(&mut self.task, tokio::spawn(async {}))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets everybody come to rest without moving the clock.
pub async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}
