use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, Lease, LeasedJob, Partition, Result, Store, Timestamp, Version,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};

use crate::catalog::Subscriber;
use crate::delivery::{Delivery, Ended};
use crate::express::{Express, Handed};
use crate::health::{Health, Turn};
use crate::pace::Pace;
use crate::task::Task;
use crate::worker::{BREATH, Node};
use crate::{Notice, NoticeKind, Status, places};

/// How long a pump without work stays, so that one that is needed often is there already.
const LINGER: Duration = Duration::from_secs(1);

/// How long everything must have failed for what waits to be tried at once when something succeeds: a
/// subscriber that refuses some and takes others is not back, it never was away.
const OUTAGE: Duration = Duration::from_secs(300);

/// For how long a pump whose subscription has no plan stays, so that it is not begun with every
/// publication; then another process, which may be able to make one, has its chance.
const STUCK: Duration = Duration::from_secs(60);

/// How many deliveries have their answers and wait to be recorded, at most.
const MOST_UNRECORDED: usize = 256;

/// Makes the deliveries of one subscription, as long as there are any.
///
/// ```text
///   lease deliveries ── read what was told, and the documents ── decide ── send ── record
///        ^                                                                          │
///        └── room, and perhaps more due <── breaker, rate, concurrency <────────────┘
/// ```
pub(crate) struct Pump {
    node: Arc<Node>,
    at: Partition,
    job: LeasedJob,
    subscriber: Arc<Subscriber>,
    health: Health,
    health_version: Option<Version>,
    pace: Pace,
    /// Tasks of their own, since a delivery that is not attended to may hold what this waits for.
    under_way: JoinSet<(Ended, Option<Seat>)>,
    seats: Arc<Seats>,
    express: Arc<Express>,
    /// The version of the sign that it takes deliveries past the queue.
    sign: Option<Version>,
    handed: mpsc::UnboundedReceiver<Handed>,
    /// Whether there may be deliveries that are due.
    hungry: bool,
    /// When something was handed over last, and when to look whether that was all.
    handed_at: Timestamp,
    look_at: Option<Timestamp>,
    next_due: Option<Timestamp>,
    idle_since: Timestamp,
    stuck_since: Option<Timestamp>,
}

/// How many seats are taken among the deliveries that may be under way.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: AtomicUsize,
    /// Told when one is free again.
    freed: Notify,
}

/// A seat among the deliveries that may be under way, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>);

/// Why a pump ends.
enum End {
    /// There is nothing to do for now.
    Idle,
    /// The subscription is not to be delivered to.
    Inactive,
    /// No message can be made here.
    Stuck,
    /// The worker closes.
    Closing,
    /// Somebody else has the pump.
    Lost,
    /// Something failed that may not fail the next time.
    Troubled,
}

impl Seats {
    pub(crate) fn take(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

impl Pump {
    /// Runs until there is nothing to do for a while, the worker closes, or the lease is lost.
    pub(crate) async fn run(node: &Arc<Node>, at: Partition, job: LeasedJob) {
        let (subscription, seats) = (job.id.clone(), Arc::<Seats>::default());
        let (express, handed) = Express::new(node.lease, Arc::clone(&seats));
        // Before the first look, so that no hint falls between.
        let _running = node.shared().pumps.running(&subscription, &express);
        if let Err(error) = Self::run_inner(node, at, job, (seats, &express, handed)).await {
            // The lease runs out, and the pump starts again.
            tracing::warn!(%error, %subscription, "a pump of flare stopped");
        }
    }

    async fn run_inner(
        node: &Arc<Node>,
        at: Partition,
        job: LeasedJob,
        (seats, express, handed): (Arc<Seats>, &Arc<Express>, mpsc::UnboundedReceiver<Handed>),
    ) -> Result<()> {
        let shared = node.shared();
        let mut snapshot = shared.catalog().await?;
        if snapshot.subscriber(&job.id).is_none() {
            snapshot = shared.catalog_now().await?;
        }
        let Some(subscriber) = snapshot.subscriber(&job.id).cloned() else {
            // Its subscription was deleted while a delivery was pushed.
            let mut batch = Batch::new(at, shared.now());
            batch.ack(places::PUMPS, &job.id, job.token);
            Task::Forget { subscription: job.id, page: 0 }.push(&mut batch, b"");
            return shared.store.commit(batch).await.map(drop);
        };
        let keys = [places::health(&job.id), places::sign(&job.id)];
        let mut found = shared.store.get(&at, shared.now(), &keys).await?.into_iter();
        let (health, health_version) = Health::decode(found.next().flatten().as_ref())?;
        if found.next().flatten().is_some() {
            // Of one that vanished. Nothing is leased by its sign after the first look.
            let mut batch = Batch::new(at.clone(), shared.now());
            batch.delete(places::sign(&job.id), Expect::Any);
            shared.store.commit(batch).await?;
        }
        let pump = Self {
            pace: Pace::new(subscriber.subscription.delivery.rate),
            node: Arc::clone(node),
            at,
            job,
            subscriber,
            health,
            health_version,
            under_way: JoinSet::new(),
            seats,
            express: Arc::clone(express),
            sign: None,
            handed,
            hungry: true,
            handed_at: Timestamp::MIN,
            look_at: None,
            next_due: None,
            idle_since: shared.now(),
            stuck_since: None,
        };
        pump.work().await
    }

    async fn work(mut self) -> Result<()> {
        let (end, mut trouble) = match self.until_end().await {
            Ok(end) => (end, None),
            Err(error) => (End::Troubled, Some(error)),
        };
        while !self.express.close() {
            tokio::select! {
                Some(handed) = self.handed.recv() => self.begin_handed(handed),
                () = self.express.wake.notified() => {}
            }
        }
        while let Ok(handed) = self.handed.try_recv() {
            self.begin_handed(handed);
        }
        // What is under way ends as it would have: cut off, it would be sent twice.
        while let Some(ended) = self.under_way.join_next().await {
            trouble = trouble.or(self.take_note(ended_of(ended).0).await.err());
        }
        self.leave(&end).await?;
        trouble.map_or(Ok(()), Err)
    }

    async fn until_end(&mut self) -> Result<End> {
        loop {
            if let Some(end) = self.turn().await? {
                return Ok(end);
            }
            self.wait().await?;
        }
    }

    /// Leases and starts what there is room for; says when it is time to end.
    async fn turn(&mut self) -> Result<Option<End>> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let now = shared.now();
        if *self.node.closing.borrow() {
            return Ok(Some(End::Closing));
        }
        if now + self.node.lease / 2 >= self.job.until && !self.renew(now).await? {
            return Ok(Some(End::Lost));
        }
        let is_active = |found: Option<&Arc<Subscriber>>| {
            found.is_some_and(|found| found.subscription.status == Status::Active)
        };
        let mut snapshot = shared.catalog().await?;
        if !is_active(snapshot.subscriber(&self.job.id)) {
            // What is remembered may be from before it was resumed, and to leave is for good.
            snapshot = shared.catalog_now().await?;
        }
        match snapshot.subscriber(&self.job.id) {
            Some(subscriber) if !is_active(Some(subscriber)) => return Ok(Some(End::Inactive)),
            Some(subscriber) if Arc::ptr_eq(subscriber, &self.subscriber) => {}
            Some(subscriber) => {
                self.subscriber = Arc::clone(subscriber);
                self.pace = Pace::new(subscriber.subscription.delivery.rate);
            }
            None => return Ok(Some(End::Inactive)),
        }
        self.hungry |= self.next_due.is_some_and(|at| at <= now);
        if self.look_at.is_some_and(|at| at <= now) {
            // Once: where there is no room now, the room is what is waited for.
            self.look_at = None;
            self.hungry = true;
        }
        if let Err(error) = Arc::clone(&self.subscriber).plan() {
            self.express.close();
            return self.is_stuck(&error, now).await;
        }
        self.stuck_since = None;
        // Nobody takes a seat while they are counted.
        self.express.close();
        let (free, room) = (self.free(now), self.room(now));
        // A few at a time rather than each by itself: a lease costs a commit.
        if self.hungry && room > 0 && (self.under_way.is_empty() || free * 4 >= self.concurrency()) {
            self.start(room, now).await?;
        }
        if !self.hungry && self.sign.is_none() && self.express.is_wanted() && !self.put_up_sign(now).await? {
            return Ok(Some(End::Lost));
        }
        // What waits in the queue is older than what is published now.
        let room = if self.hungry { 0 } else { self.room(now) };
        self.express.open(room, self.sign);
        let is_idle = self.under_way.is_empty() && !self.hungry && self.look_at.is_none();
        let is_over = is_idle && now >= self.idle_since + LINGER && self.express.close();
        Ok((is_over && self.handed.is_empty()).then_some(End::Idle))
    }

    /// Says that this pump takes deliveries past the queue, if it is still the one.
    async fn put_up_sign(&mut self, now: Timestamp) -> Result<bool> {
        let mut batch = Batch::new(self.at.clone(), now);
        batch.put(places::sign(&self.job.id), "", Expect::Any);
        self.sign = self.extend_with(batch).await?;
        Ok(self.sign.is_some())
    }

    /// Waits for a plan; what waits for the subscriber stays.
    async fn is_stuck(&mut self, error: &Error, now: Timestamp) -> Result<Option<End>> {
        if self.stuck_since.is_none() {
            tracing::warn!(%error, "a subscription cannot be delivered to");
            if !self.health.is_broken {
                (self.health.is_broken, self.health.is_noticed) = (true, true);
                self.keep_health(Some((NoticeKind::Broken, &error.to_string()))).await?;
            }
        }
        self.hungry = true;
        let since = *self.stuck_since.get_or_insert(now);
        Ok((now >= since + STUCK).then_some(End::Stuck))
    }

    /// How many more deliveries may be begun. One that was taken gives its seat to the next before that
    /// is recorded, one that failed once it is noted.
    fn free(&self, now: Timestamp) -> usize {
        let most = self.concurrency();
        let taken = self.seats.taken.load(Ordering::Relaxed);
        let unrecorded = (most + MOST_UNRECORDED).saturating_sub(self.under_way.len());
        self.health.breaker.room(now, most).saturating_sub(taken).min(unrecorded)
    }

    /// How many of these the pace allows; a place that is reserved is as good as begun.
    fn room(&self, now: Timestamp) -> usize {
        let reserved = self.express.reserved();
        self.pace.room(now, self.free(now) + reserved).saturating_sub(reserved)
    }

    fn concurrency(&self) -> usize {
        self.subscriber.subscription.delivery.concurrency.map_or(self.node.concurrency, usize::from)
    }

    async fn start(&mut self, room: usize, now: Timestamp) -> Result<()> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let queue = self.subscriber.queue.clone();
        let want = Lease { queue, max: room, hold_for: self.node.lease, now };
        let leased = shared.store.lease(&self.at, want).await?;
        self.hungry = leased.jobs.len() == room;
        self.look_at = None;
        self.next_due = leased.next_due;
        self.pace.take(now, leased.jobs.len());
        for delivery in shared.deliveries(&self.subscriber, leased.jobs).await? {
            self.begin(delivery, Arc::clone(&self.subscriber), self.seats.take());
        }
        Ok(())
    }

    fn begin(&mut self, delivery: Delivery, subscriber: Arc<Subscriber>, seat: Seat) {
        let node = Arc::clone(&self.node);
        self.under_way.spawn(async move {
            let mut seat = Some(seat);
            let ended = delivery.make(node.shared(), &subscriber, &*node.transport, &mut seat).await;
            (ended, seat)
        });
    }

    fn begin_handed(&mut self, Handed { delivery, subscriber, seat }: Handed) {
        let now = self.node.shared().now();
        self.handed_at = now;
        self.pace.take(now, 1);
        self.begin(delivery, subscriber, seat);
    }

    /// There may be something to lease. Where that is likely to be what was handed over, or recorded of
    /// it, there is no hurry.
    fn hinted(&mut self, now: Timestamp) {
        if self.express.reserved() > 0 || now < self.handed_at + BREATH {
            self.look_at.get_or_insert(now + BREATH);
        } else {
            self.hungry = true;
        }
    }

    /// Waits until something changes.
    async fn wait(&mut self) -> Result<()> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let alarm = self.alarm(shared.now());
        let ended = tokio::select! {
            biased;
            Some(handed) = self.handed.recv() => {
                self.begin_handed(handed);
                return Ok(());
            }
            Some(ended) = self.under_way.join_next() => ended_of(ended),
            () = self.express.wake.notified() => {
                self.hinted(shared.now());
                return Ok(());
            }
            () = self.seats.freed.notified() => return Ok(()),
            () = shared.settings.clock.sleep_until(alarm) => return Ok(()),
            () = self.node.closed() => return Ok(()),
        };
        let (ended, _seat) = ended;
        self.take_note(ended).await?;
        // Those that ended meanwhile make room together.
        while let Some(ended) = self.under_way.try_join_next() {
            let (ended, _seat) = ended_of(ended);
            self.take_note(ended).await?;
        }
        Ok(())
    }

    /// When to look again although nothing happened.
    fn alarm(&self, now: Timestamp) -> Timestamp {
        let renewal = self.job.until - self.node.lease / 2;
        let breaker = self.health.breaker.closed_off_until(now);
        let due = match (self.hungry, breaker) {
            // A delivery that ends makes room, too.
            (true, None) => self.pace.next(now),
            (_, Some(until)) => Some(until),
            (false, None) => self.next_due.map(|next_due| next_due.max(now + BREATH)),
        };
        // Whoever has a place says so when he leaves it.
        let is_idle = self.under_way.is_empty() && !self.hungry && self.express.reserved() == 0;
        let idle = is_idle.then_some(self.idle_since + LINGER);
        [due, idle, self.look_at].into_iter().flatten().fold(renewal, Timestamp::min)
    }

    async fn renew(&mut self, now: Timestamp) -> Result<bool> {
        let batch = Batch::new(self.at.clone(), now);
        Ok(self.extend_with(batch).await?.is_some())
    }

    /// Commits what `batch` says, and a lease that begins anew; `None` where somebody else has the pump.
    async fn extend_with(&mut self, mut batch: Batch) -> Result<Option<Version>> {
        let until = batch.now() + self.node.lease;
        batch.extend(places::PUMPS, &self.job.id, self.job.token, until);
        match self.node.shared().store.commit(batch).await {
            Ok(committed) => {
                self.job.until = until;
                Ok(Some(committed.version))
            }
            Err(error) if error.kind() == ErrorKind::LeaseLost => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the pump back: for good where nothing waits, else until the next delivery is due.
    async fn leave(&mut self, end: &End) -> Result<()> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let mut batch = Batch::new(self.at.clone(), shared.now());
        let (id, token) = (&self.job.id, self.job.token);
        // What is over may still be committed late, and the next pump looks once more.
        let next_due = [self.next_due, self.express.unsure_until()].into_iter().flatten().min();
        match (end, next_due) {
            (End::Lost, _) => return Ok(()),
            (End::Closing, _) => batch.retry(places::PUMPS, id, token, shared.now()),
            (End::Troubled | End::Stuck, _) => batch.retry(places::PUMPS, id, token, shared.now() + LINGER),
            (End::Idle, Some(next_due)) => batch.retry(places::PUMPS, id, token, next_due),
            (End::Idle, None) | (End::Inactive, _) => batch.ack(places::PUMPS, id, token),
        };
        if self.sign.is_some() {
            batch.delete(places::sign(id), Expect::Any);
        }
        match shared.store.commit(batch).await {
            Err(error) if error.kind() == ErrorKind::LeaseLost => Ok(()),
            result => result.map(drop),
        }
    }

    /// Keeps the subscription's health, and what it decides.
    async fn take_note(&mut self, ended: Ended) -> Result<()> {
        let now = self.node.shared().now();
        self.idle_since = now;
        match ended {
            Ended::Settled => Ok(()),
            Ended::Lost | Ended::Unsent => {
                self.hungry = true;
                Ok(())
            }
            Ended::Succeeded if self.health == Health::default() => Ok(()),
            Ended::Succeeded => {
                let has_recovered = self.health.is_noticed;
                let was_down = self.health.failing_since.is_some_and(|since| now.since(since) >= OUTAGE);
                self.health = Health::default();
                self.keep_health(has_recovered.then_some((NoticeKind::Recovered, "a delivery succeeded")))
                    .await?;
                if has_recovered && was_down { self.rearm().await } else { Ok(()) }
            }
            Ended::Failed => {
                // When it is due again only a look says.
                self.hungry = true;
                self.take_note_of_failure(now).await
            }
            Ended::Gone { resumed_at } => {
                self.hungry = true;
                self.disable("the subscriber answered 410 Gone", resumed_at).await
            }
        }
    }

    async fn take_note_of_failure(&mut self, now: Timestamp) -> Result<()> {
        let resumed_at = self.subscriber.subscription.resumed_at;
        if self.health.failing_since.is_some_and(|since| resumed_at.is_some_and(|at| since < at)) {
            // The time in which nothing was to be sent does not count.
            self.health = Health::default();
        }
        let before = self.health.clone();
        let since = *self.health.failing_since.get_or_insert(now);
        let notice = match self.health.breaker.failed(now) {
            Turn::Opened => Some((NoticeKind::Failing, "its deliveries fail one after the other")),
            Turn::None => None,
        };
        self.health.is_noticed |= notice.is_some();
        if now.since(since) >= self.node.shared().settings.disable_after {
            return self.disable("everything failed for too long", resumed_at).await;
        }
        // The breaker's count alone is not worth a commit.
        let is_worth_keeping = before.failing_since.is_none()
            || before.breaker.closed_off_until(now) != self.health.breaker.closed_off_until(now);
        if is_worth_keeping { self.keep_health(notice).await } else { Ok(()) }
    }

    /// Disables the subscription, unless it was made active again since `resumed_at`: what came of an attempt
    /// that began before says nothing of the subscriber as it is now.
    async fn disable(&mut self, reason: &'static str, resumed_at: Option<Timestamp>) -> Result<()> {
        let subscriber = self.node.shared().subscriber_of(&self.job.id).await?;
        let found = &subscriber.subscription;
        if found.status != Status::Active || found.resumed_at != resumed_at {
            return Ok(());
        }
        self.health = Health::default();
        self.keep_health(Some((NoticeKind::Disabled, reason))).await?;
        self.node.flare.disable_since(&self.job.id, resumed_at).await
    }

    async fn keep_health(&mut self, notice: Option<(NoticeKind, &str)>) -> Result<()> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let now = shared.now();
        let mut batch = Batch::new(self.at.clone(), now);
        let key = places::health(&self.job.id);
        let expect = self.health_version.map_or(Expect::Absent, Expect::Version);
        batch.put(key, self.health.encode(), expect);
        if let Some((kind, message)) = notice {
            let subscription = self.job.id.clone();
            let notice = Notice { subscription, kind, at: now, message: message.to_owned() };
            batch.put_until(
                notice.key("health"),
                notice.encode(),
                Expect::Any,
                now + shared.settings.history,
            );
        }
        self.health_version = Some(shared.store.commit(batch).await?.version);
        Ok(())
    }

    /// A subscriber that is back is told of everything at once, not when the waits are over.
    async fn rearm(&mut self) -> Result<()> {
        let node = Arc::clone(&self.node);
        let shared = node.shared();
        let mut batch = Batch::new(self.at.clone(), shared.now());
        Task::rearm(&self.job.id).push(&mut batch, b"");
        shared.store.commit(batch).await.map(drop)
    }
}

/// A delivery that panicked is made again by whoever leases it next.
fn ended_of(ended: Result<(Ended, Option<Seat>), JoinError>) -> (Ended, Option<Seat>) {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "a delivery panicked");
        (Ended::Lost, None)
    })
}
