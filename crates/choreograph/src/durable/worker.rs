use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Lease, LeasedJob, Partition, Signal, Signals, Store, StoreExt, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::choreographer::{Choreographer, Engine};
use super::intake::{Backlog, Intake};
use super::journal::Journal;
use super::{hold, places};

/// The waits between looks at a queue without a hint that there is something: the first, and the
/// longest after nothing was found again and again. Where two thirds of a lease are less than that, but
/// not less than the first, they are the longest: a look tells when the leases of others run out.
const POLLS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// The least time between two looks of which the first found less than it asked for, however many
/// hints there are, where every place but one is taken. The fewer are taken, the sooner is the next
/// look: a worker with nothing to do looks at once, and a busy one takes what gathered meanwhile.
const BREATH: Duration = Duration::from_millis(5);

/// As [`BREATH`], where new runs were taken in since the last look, which left nothing that was due:
/// a hint is likely to be about those.
const LONG_BREATH: Duration = Duration::from_millis(50);

/// The most jobs that are taken at a time.
const MOST_JOBS: usize = 64;

/// How many tasks are under way at once, beside the runs.
const TASKS_AT_ONCE: usize = 16;

/// What makes the runs of a store go on.
///
/// Any number of workers, in any number of processes, share the work without knowing of each other.
#[derive(Debug)]
pub struct Worker {
    engine: Arc<Engine>,
    concurrency: usize,
}

impl<S: Store + Clone> Choreographer<S> {
    /// A worker for the definitions that are registered here. It does nothing before it is
    /// [run](Worker::run).
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker { engine: Arc::clone(&self.engine), concurrency: 64 }
    }
}

impl Worker {
    /// How many runs are under way at once; 64 unless set, at least 1. Runs that wait take no
    /// place.
    #[must_use]
    pub fn concurrency(self, runs: usize) -> Self {
        Self { concurrency: runs.max(1), ..self }
    }

    /// Works until `shutdown` completes; then lets the callbacks under way come to their end, at
    /// most one lease, and puts their runs back.
    ///
    /// Dropping the future stops at once; what was under way is interrupted, and taken over when
    /// its lease has run out.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { engine, concurrency } = self;
        let clock = Arc::clone(&engine.settings.clock);
        let partitions = engine.store.partitions();
        let node = Arc::new(Node {
            closing: watch::Sender::new(false),
            runs: Places::new(concurrency, partitions.len()),
            tasks: Places::new(TASKS_AT_ONCE, partitions.len()),
            queues: partitions.iter().map(|at| (at.clone(), Queues::default())).collect(),
            engine: Arc::clone(&engine),
        });
        let intake = engine.intakes.open(node.intake());
        let mut work = JoinSet::new();
        // Subscribed before the first look, so that nothing falls between.
        let signals = node.engine.store.signals();
        work.spawn(Arc::clone(&node).listen(signals));
        for at in partitions {
            work.spawn(Arc::clone(&node).look_for_runs(at.clone()));
            work.spawn(Arc::clone(&node).look_for_tasks(at));
        }
        shutdown.await;
        node.closing.send_replace(true);
        let mut taken_in = intake.close();
        let drained = async {
            while work.join_next().await.is_some() {}
            while taken_in.join_next().await.is_some() {}
        };
        let _ = clock.timeout_at(clock.now() + node.engine.settings.lease, drained).await;
    }
}

struct Node {
    engine: Arc<Engine>,
    closing: watch::Sender<bool>,
    runs: Places,
    tasks: Places,
    queues: HashMap<Partition, Queues>,
}

/// Room for what is under way at once, in all partitions together.
struct Places {
    free: Arc<Semaphore>,
    all: usize,
    /// The most that one look takes, so that those at other partitions need not wait for it.
    share: usize,
}

impl Places {
    fn new(all: usize, partitions: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), all, share: (all / partitions).clamp(1, MOST_JOBS) }
    }

    /// One place, once there is one, and of the others what is free; where nothing waited last time,
    /// half of that, so that new runs need not wait for what the look finds.
    async fn take(&self, backlog: &Backlog) -> OwnedSemaphorePermit {
        let mut taken = Arc::clone(&self.free).acquire_owned().await.expect("nobody closes the semaphore");
        let free = self.free.available_permits();
        let more = if backlog.is_cleared() { free / 2 } else { free }.min(self.share - 1);
        let more = u32::try_from(more).expect("a share is small");
        if more > 0
            && let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(more)
        {
            taken.merge(more);
        }
        taken
    }

    fn breath(&self, backlog: &Backlog) -> Duration {
        let taken = self.all - self.free.available_permits();
        let longest = if backlog.took_runs_in() && backlog.is_cleared() { LONG_BREATH } else { BREATH };
        longest.mul_f64(taken as f64 / self.all as f64)
    }
}

/// The queues of a partition.
#[derive(Default)]
struct Queues {
    runs: Queue,
    tasks: Queue,
}

#[derive(Default)]
struct Queue {
    hint: Notify,
    backlog: Arc<Backlog>,
}

impl Node {
    fn intake(&self) -> Intake {
        let backlog = |(at, queues): (&Partition, &Queues)| (at.clone(), Arc::clone(&queues.runs.backlog));
        let backlogs = self.queues.iter().map(backlog).collect();
        Intake::new(Arc::clone(&self.runs.free), self.closing.subscribe(), backlogs)
    }

    async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        closing.wait_for(|closing| *closing).await.expect("the node keeps the sender");
    }

    /// Passes the store's hints on to whom they concern.
    async fn listen(self: Arc<Self>, mut signals: Signals) {
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                () = self.closed() => return,
            };
            match signal {
                Signal::Queue { at, queue } => {
                    let Some(queues) = self.queues.get(&at) else { continue };
                    match &*queue {
                        places::RUNS => queues.runs.hint.notify_one(),
                        places::TASKS => queues.tasks.hint.notify_one(),
                        _ => {}
                    }
                }
                Signal::Log { .. } => {}
                Signal::Missed => self.queues.values().for_each(|queues| {
                    queues.runs.hint.notify_one();
                    queues.tasks.hint.notify_one();
                }),
            }
        }
    }

    async fn look_for_runs(self: Arc<Self>, at: Partition) {
        let queue = &self.queues[&at].runs;
        self.look(&at, places::RUNS, &self.runs, queue, |job| {
            let (engine, at, closing) = (Arc::clone(&self.engine), at.clone(), self.closing.subscribe());
            async move {
                let known = Journal::of_job(&job);
                hold::drive(&engine, &at, job, known, closing).await;
            }
        })
        .await;
    }

    async fn look_for_tasks(self: Arc<Self>, at: Partition) {
        let queue = &self.queues[&at].tasks;
        self.look(&at, places::TASKS, &self.tasks, queue, |job| {
            let (engine, at) = (Arc::clone(&self.engine), at.clone());
            async move { engine.work_on(&at, job).await }
        })
        .await;
    }

    /// Takes the due jobs of a queue and starts what `begin` makes of each, as long as there are
    /// places, until the worker closes; then waits for what it started.
    async fn look<F>(
        &self,
        at: &Partition,
        name: &str,
        places: &Places,
        queue: &Queue,
        begin: impl Fn(LeasedJob) -> F + Send,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Engine { store, settings, .. } = &*self.engine;
        let clock = &settings.clock;
        let Queue { hint, backlog } = queue;
        let mut started = JoinSet::new();
        let longest_poll = POLLS.1.min(settings.lease * 2 / 3).max(POLLS.0);
        let mut poll = POLLS.0;
        loop {
            // What is leased and not begun would run out of its lease.
            let mut room = tokio::select! {
                room = places.take(backlog) => room,
                () = self.closed() => break,
            };
            let (now, max) = (clock.now(), room.num_permits());
            let want = Lease { queue: name.to_owned(), max, hold_for: settings.lease, now };
            backlog.look();
            let leased = store.lease(at, want).await;
            backlog.looked(leased.as_ref().ok(), now);
            let leased = leased.unwrap_or_else(|error| {
                tracing::warn!(%error, %at, queue = name, "a queue could not be looked at");
                evenkeel_core::Leased::default()
            });
            let found = leased.jobs.len();
            for job in leased.jobs {
                let (work, place) = (begin(job), room.split(1));
                started.spawn(async move {
                    work.await;
                    drop(place);
                });
            }
            drop(room);
            while started.try_join_next().is_some() {}
            if *self.closing.borrow() {
                break;
            }
            if found == max {
                continue;
            }
            poll = if found > 0 { POLLS.0 } else { (poll * 2).min(longest_poll) };
            let next_look = leased.next_due.unwrap_or(Timestamp::MAX).min(now + poll);
            tokio::select! {
                () = hint.notified() => {
                    // A timer makes a millisecond even of nothing.
                    let rest = (now + places.breath(backlog)).since(clock.now());
                    if rest >= Duration::from_millis(1) {
                        clock.sleep(rest).await;
                    }
                }
                () = clock.sleep_until(next_look.max(now + BREATH)) => {}
                () = self.closed() => {}
            }
        }
        while started.join_next().await.is_some() {}
    }
}
