use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_choreograph::{Choreographer, Definition, Run, RunState, StepContext, StepKey, Value};
use evenkeel_core::{
    Clock, Error, ErrorKind, ManualClock, NewEvent, Read, Store, StoreExt, Timestamp, Transactional, Tx,
};
use tokio::sync::Semaphore;

use crate::chaos::{Chaos, ChaosStore};
use crate::harness::Running;

pub(crate) const ONE: StepKey<u32> = StepKey::new("one");
pub(crate) const TWO: StepKey<u32> = StepKey::new("two");
pub(crate) const THREE: StepKey<u32> = StepKey::new("three");

/// For how long a run is safe from other workers.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

pub(crate) type Ctx = StepContext<u32>;
pub(crate) type Fallible<T> = Result<T, String>;

/// A store in a clean namespace, a time that stands still, and callbacks that remember.
#[derive(Clone, Debug)]
pub(crate) struct Bench<S> {
    /// Makes no trouble, but knows what is under way.
    pub(crate) store: ChaosStore<S>,
    pub(crate) clock: ManualClock,
    pub(crate) seen: Seen,
}

/// A process as a case sees it: it shares nothing with others but the store, and may have trouble of
/// its own.
pub(crate) type Process<S> = Choreographer<ChaosStore<ChaosStore<S>>>;

impl<S: Transactional + Clone> Bench<S> {
    pub(crate) fn new(store: S) -> Self {
        let store = store.layer(Chaos::new(0));
        Self { store, clock: ManualClock::default(), seen: Seen::default() }
    }

    /// A process that has these definitions.
    pub(crate) fn process<I: Value, const N: usize>(&self, definitions: [&Definition<I>; N]) -> Process<S> {
        let process = self.stranger();
        for definition in definitions {
            process.register(definition.clone()).unwrap();
        }
        process
    }

    /// A process with a definition that writes with the store's own connection.
    pub(crate) fn process_tx<I: Value>(&self, definition: &Definition<I, S::Conn>) -> Process<S> {
        let process = self.stranger();
        process.register_tx(definition.clone()).unwrap();
        process
    }

    /// A process that knows no definition.
    pub(crate) fn stranger(&self) -> Process<S> {
        self.troubled(Chaos::new(0))
    }

    /// A process that knows no definition, and has this trouble.
    pub(crate) fn troubled(&self, trouble: Chaos) -> Process<S> {
        let store = self.store.clone().layer(trouble);
        Choreographer::with_store(store).clock(self.clock.shared()).lease(LEASE)
    }

    /// Lets a process die at each of its calls in turn, and another one end the run that it was to
    /// work on, until one lives to see that end.
    pub(crate) async fn dying_at_every_call(
        &self,
        register: impl Fn(&Process<S>),
        definition: &str,
        check: impl AsyncFn(&Process<S>, &str),
    ) {
        for call in 1..=200 {
            let run = format!("run-{call}");
            let calm = self.stranger();
            register(&calm);
            calm.start(definition, &run, &20).await.unwrap();
            let dying = self.troubled(Chaos::new(call).crash_at(call));
            register(&dying);
            let worker = work(&dying);
            let lives = tokio::select! {
                biased;
                () = dying.store().crashed() => false,
                _ = self.outcome(&calm, &run) => true,
            };
            drop(worker);
            if !lives {
                self.lapse().await;
            }
            let worker = work(&calm);
            assert!(self.outcome(&calm, &run).await.state.is_final(), "{run}");
            check(&calm, &run).await;
            self.rest(worker).await;
            if lives {
                return;
            }
        }
        panic!("a run comes to its end within so many calls");
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets everything that can happen at this instant happen.
    pub(crate) async fn settle(&self) {
        self.settle_for(64).await;
    }

    /// Lets much of what can happen at this instant happen.
    pub(crate) async fn settle_somewhat(&self) {
        self.settle_for(12).await;
    }

    async fn settle_for(&self, turns: u32) {
        loop {
            self.store.settle(turns).await;
            if self.seen.busy.load(Ordering::SeqCst) == 0 {
                return;
            }
        }
    }

    /// Lets time pass at once, as if nobody had been there to see it.
    pub(crate) async fn jump(&self, time: Duration) {
        self.settle().await;
        self.clock.advance(time);
        self.settle().await;
    }

    /// Lets time pass, in steps that a worker keeps up with.
    pub(crate) async fn pass(&self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.settle().await;
            self.clock.advance(Duration::from_secs(1).min(end.since(self.now())));
        }
        self.settle().await;
    }

    /// Lets the leases of those who died run out.
    pub(crate) async fn lapse(&self) {
        self.jump(LEASE + Duration::from_secs(1)).await;
    }

    /// The output of `future`, while time passes. A case that waits in vain hangs, and fails for that.
    pub(crate) async fn passing<F: Future>(&self, future: F) -> F::Output {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.settle() => {}
            }
            self.clock.advance(Duration::from_millis(250));
        }
    }

    /// Lets time pass until `condition` holds, and none from then on: a wait may be drawn as short as
    /// nothing, and is not to be over before anybody looked.
    pub(crate) async fn until(&self, mut condition: impl AsyncFnMut() -> bool) {
        loop {
            self.settle().await;
            if condition().await {
                return;
            }
            self.clock.advance(Duration::from_millis(250));
        }
    }

    /// Lets time pass until callbacks have noted this.
    pub(crate) async fn until_seen(&self, note: &str) {
        self.until(async || self.seen.count(note) > 0).await;
    }

    /// Waits for a run's end, or its parking.
    pub(crate) async fn outcome(&self, process: &Process<S>, run: &str) -> Run {
        self.passing(process.outcome(run)).await.unwrap()
    }

    /// Starts a run, works on it with a worker of its own, and waits for its end.
    pub(crate) async fn run(&self, process: &Process<S>, definition: &str, run: &str) -> Run {
        process.start(definition, run, &0).await.unwrap();
        let worker = work(process);
        let outcome = self.outcome(process, run).await;
        self.rest(worker).await;
        outcome
    }

    /// Ends a worker that has nothing to do. One that died looking for work would take the next run
    /// with it.
    pub(crate) async fn rest(&self, worker: Running) {
        self.settle().await;
        drop(worker);
    }

    /// A run as it stands.
    pub(crate) async fn inspect(&self, process: &Process<S>, run: &str) -> Run {
        process.inspect(run).await.unwrap().expect("the run is known")
    }

    pub(crate) async fn state(&self, process: &Process<S>, run: &str) -> RunState {
        self.inspect(process, run).await.state
    }

    /// How many events a stream has, over all partitions.
    pub(crate) async fn effects(&self, stream: &str) -> u64 {
        let mut count = 0;
        for at in self.store.partitions() {
            count += self.store.read(&at, Read::stream(stream, 0, 1)).await.unwrap().head;
        }
        count
    }
}

/// A worker that runs until it is dropped, as if its process were killed.
pub(crate) fn work<S: Store + Clone>(process: &Choreographer<S>) -> Running {
    Running::spawn(process.worker().run(std::future::pending()))
}

/// What callbacks did, and what lets them go on.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    notes: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
    /// How many callbacks wait for the store.
    busy: Arc<AtomicUsize>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { notes: Arc::default(), gate: Arc::new(Semaphore::new(0)), busy: Arc::default() }
    }
}

/// A callback waits for the store until this is dropped.
pub(crate) struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seen {
    pub(crate) fn add(&self, note: impl Into<String>) {
        self.notes.lock().unwrap().push(note.into());
    }

    /// What was noted since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap())
    }

    pub(crate) fn count(&self, note: &str) -> usize {
        self.notes.lock().unwrap().iter().filter(|seen| *seen == note).count()
    }

    /// Waits until somebody is let go on.
    pub(crate) async fn wait(&self) {
        self.gate.acquire().await.unwrap().forget();
    }

    /// Lets the next so many who wait go on.
    pub(crate) fn let_go(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Time stands still until this is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(&self.busy))
    }

    /// A callback that is handed this.
    pub(crate) fn with<I, W, F>(
        &self,
        callback: F,
    ) -> impl Fn(StepContext<I>) -> W + Send + Sync + use<I, W, F>
    where
        I: 'static,
        F: Fn(Self, StepContext<I>) -> W + Send + Sync,
    {
        let seen = self.clone();
        move |ctx| callback(seen.clone(), ctx)
    }

    /// A callback that notes its step, and gives `value`.
    pub(crate) fn gives<I: 'static, T: Clone + Send + Sync + 'static>(
        &self,
        value: T,
    ) -> impl Fn(StepContext<I>) -> std::future::Ready<Fallible<T>> + Send + Sync + use<I, T> {
        let seen = self.clone();
        move |ctx| {
            seen.add(ctx.step());
            std::future::ready(Ok(value.clone()))
        }
    }

    /// A job that notes its step, and fails.
    pub(crate) fn fails<I: 'static>(
        &self,
    ) -> impl Fn(StepContext<I>) -> std::future::Ready<Fallible<u32>> + Send + Sync + use<I> {
        let seen = self.clone();
        move |ctx| {
            seen.add(ctx.step());
            std::future::ready(Err(format!("{} failed", ctx.step())))
        }
    }

    /// A compensation that notes which step it takes back.
    pub(crate) fn takes_back<I: 'static>(
        &self,
    ) -> impl Fn(StepContext<I>) -> std::future::Ready<Fallible<()>> + Send + Sync + use<I> {
        let seen = self.clone();
        move |ctx| {
            seen.add(format!("undo {}", ctx.step()));
            std::future::ready(Ok(()))
        }
    }

    /// A job that notes its step and attempt, and whose first attempt never ends; the value is the
    /// number of the attempt.
    pub(crate) fn hangs_once(
        &self,
    ) -> impl Fn(Ctx) -> futures_util::future::BoxFuture<'static, Fallible<u32>> + Send + Sync + use<> {
        let seen = self.clone();
        move |ctx| {
            seen.add(format!("{} {}", ctx.step(), ctx.attempt()));
            Box::pin(async move {
                if ctx.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(ctx.attempt())
            })
        }
    }
}

/// Appends an event to a stream, over the live connection's head.
pub(crate) async fn take_effect<C: Send + 'static>(
    seen: &Seen,
    tx: &mut Tx<C>,
    stream: &str,
) -> evenkeel_core::Result<()> {
    {
        let _busy = seen.busy();
        tx.conn().await?;
    }
    let now = tx.batch().now();
    tx.batch().append_any(stream, [NewEvent::new("Happened", "{}", now)]);
    Ok(())
}

/// The kind of a failure; the call was not to succeed.
#[track_caller]
pub(crate) fn kind<T: Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("the call was to fail").kind()
}
