use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Lease, LeasedJob, Partition, Signal, Store, StoreExt, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::flare::Shared;
use crate::net::Transport;
use crate::pump::Pump;
use crate::{Flare, places};

/// The waits between looks at a queue without a hint that there is something: the first, and the
/// longest after nothing was found again and again. Where two thirds of a lease are less than that, but
/// not less than the first, they are the longest: a look tells when the leases of others run out.
const POLLS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// The least time between two looks that find nothing, however many hints there are.
pub(crate) const BREATH: Duration = Duration::from_millis(10);

/// How many jobs are taken at a time.
const MOST_JOBS: usize = 16;

/// How many tasks are under way at once. Pumps live long, and are as many as there are subscriptions
/// with deliveries.
const MOST_TASKS: usize = 2 * MOST_JOBS;

/// How often what nobody can see any more is reclaimed, and how many of it at a time.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_AT_ONCE: usize = 500;

/// What makes the deliveries of a store.
///
/// Any number of workers, in any number of processes, share the work without knowing of each other.
#[derive(Debug)]
pub struct Worker {
    flare: Flare,
    transport: Arc<dyn Transport>,
    lease: Duration,
    concurrency: usize,
}

impl Flare {
    /// A worker that sends through `transport`. It does nothing before it is [run](Worker::run).
    #[must_use]
    pub fn worker(&self, transport: impl Transport) -> Worker {
        Worker {
            flare: self.clone(),
            transport: Arc::new(transport),
            lease: Duration::from_secs(30),
            concurrency: 32,
        }
    }
}

impl Worker {
    /// For how long what this worker took is safe from other workers after this one was last heard
    /// of; 30 seconds unless set, at least 1. An answer that takes longer counts as none.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How many deliveries to a subscription that does not say so itself wait for an answer at once; 32
    /// unless set.
    #[must_use]
    pub fn concurrency(mut self, deliveries: usize) -> Self {
        self.concurrency = deliveries.max(1);
        self
    }

    /// Works until `shutdown` completes, and then until what is under way has ended, at most one
    /// lease.
    ///
    /// Dropping the future stops at once; what was under way is done again by whoever leases it
    /// next.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let lease = self.lease;
        let clock = Arc::clone(&self.flare.shared.settings.clock);
        let node = Arc::new(Node::new(self));
        let mut work = JoinSet::new();
        // Subscribed before the first look, so that nothing falls between.
        let signals = node.flare.shared.store.signals();
        work.spawn(Arc::clone(&node).listen(signals));
        for at in node.flare.shared.store.partitions() {
            work.spawn(Arc::clone(&node).look_for_tasks(at.clone()));
            work.spawn(Arc::clone(&node).look_for_pumps(at.clone()));
            work.spawn(Arc::clone(&node).sweep(at));
        }
        shutdown.await;
        node.closing.send_replace(true);
        let drained = async { while work.join_next().await.is_some() {} };
        let _ = clock.timeout_at(clock.now() + lease, drained).await;
    }
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) flare: Flare,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) lease: Duration,
    pub(crate) concurrency: usize,
    pub(crate) closing: watch::Sender<bool>,
    hints: HashMap<Partition, Hints>,
}

#[derive(Debug, Default)]
struct Hints {
    tasks: Notify,
    pumps: Notify,
}

impl Node {
    fn new(worker: Worker) -> Self {
        let Worker { flare, transport, lease, concurrency } = worker;
        let hints = flare.shared.store.partitions().into_iter().map(|at| (at, Hints::default())).collect();
        Self { flare, transport, lease, concurrency, closing: watch::Sender::new(false), hints }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.flare.shared
    }

    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        closing.wait_for(|closing| *closing).await.expect("the node keeps the sender");
    }

    /// Passes the store's hints on to whom they concern.
    async fn listen(self: Arc<Self>, mut signals: evenkeel_core::Signals) {
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = self.closed() => return,
            };
            match signal {
                Signal::Queue { at, queue } => self.hint(&at, &queue),
                Signal::Log { .. } => {}
                Signal::Missed => {
                    self.hints.values().for_each(|hints| {
                        hints.tasks.notify_one();
                        hints.pumps.notify_one();
                    });
                    self.shared().pumps.wake_all();
                }
            }
        }
    }

    fn hint(&self, at: &Partition, queue: &str) {
        let Some(hints) = self.hints.get(at) else { return };
        if queue == places::PUMPS {
            hints.pumps.notify_one();
        } else if queue == places::TASKS {
            hints.tasks.notify_one();
        } else if let Some(subscription) = places::subscription_of(queue)
            && let Some(pump) = self.shared().pumps.get(subscription)
        {
            pump.wake.notify_one();
        }
    }

    async fn look_for_tasks(self: Arc<Self>, at: Partition) {
        let hint = &self.hints[&at].tasks;
        self.look(&at, places::TASKS, MOST_TASKS, hint, |job| {
            let (flare, at) = (self.flare.clone(), at.clone());
            async move { flare.work_on(&at, job).await }
        })
        .await;
    }

    async fn look_for_pumps(self: Arc<Self>, at: Partition) {
        let hint = &self.hints[&at].pumps;
        self.look(&at, places::PUMPS, usize::MAX, hint, |job| {
            let (node, at) = (Arc::clone(&self), at.clone());
            async move { Pump::run(&node, at, job).await }
        })
        .await;
    }

    /// Takes the due jobs of a queue and starts what `begin` makes of each, `most` at a time, until the worker closes;
    /// then waits for what it started.
    async fn look<F>(
        &self,
        at: &Partition,
        queue: &str,
        most: usize,
        hint: &Notify,
        begin: impl Fn(LeasedJob) -> F + Send,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (store, clock) = (&self.shared().store, &self.shared().settings.clock);
        let mut started = JoinSet::new();
        let longest_poll = POLLS.1.min(self.lease * 2 / 3).max(POLLS.0);
        let mut poll = POLLS.0;
        while !*self.closing.borrow() {
            // What is leased and not begun would run out of its lease.
            while started.len() >= most && started.join_next().await.is_some() {}
            let (queue, now) = (queue.to_owned(), clock.now());
            let want = Lease { queue, max: MOST_JOBS, hold_for: self.lease, now };
            let leased = store.lease(at, want).await.unwrap_or_else(|error| {
                tracing::warn!(%error, %at, "a queue could not be looked at");
                evenkeel_core::Leased::default()
            });
            let found = leased.jobs.len();
            for job in leased.jobs {
                started.spawn(begin(job));
            }
            while started.try_join_next().is_some() {}
            if found == MOST_JOBS {
                continue;
            }
            poll = if found > 0 { POLLS.0 } else { (poll * 2).min(longest_poll) };
            let next_look = leased.next_due.unwrap_or(Timestamp::MAX).min(now + poll);
            tokio::select! {
                () = hint.notified() => clock.sleep_until(now + BREATH).await,
                () = clock.sleep_until(next_look.max(now + BREATH)) => {}
                () = self.closed() => {}
            }
        }
        while started.join_next().await.is_some() {}
    }

    async fn sweep(self: Arc<Self>, at: Partition) {
        let (store, clock) = (&self.shared().store, &self.shared().settings.clock);
        loop {
            tokio::select! {
                () = clock.sleep(SWEEP_EVERY) => {}
                () = self.closed() => return,
            }
            loop {
                match store.sweep(&at, clock.now(), SWEEP_AT_ONCE).await {
                    Ok(SWEEP_AT_ONCE) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, %at, "a partition could not be swept");
                        break;
                    }
                }
            }
        }
    }
}
