//! Deliveries of a server: publishers, store, worker and subscribers share this process and talk
//! HTTP over loopback.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use evenkeel::core::{AnyStore, Namespace, Store};
use evenkeel::flare::net::{AddressPolicy, Sender};
use evenkeel::flare::{Change, Flare, NewResource, NewSubscription, Status, Subscription, Template};
use evenkeel_testkit::services::{Postgres, Redis};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use crate::limit::plain_webhooks::{self, Rows};
use crate::measure::{now, percentile, resident_mib};
use crate::report::{Cell, Report};
use crate::server::StoreName;
use crate::wire::Wire;
use crate::{Result, calls};

const SUITE: &str = "flare";

/// How many publish at once.
const PUBLISHERS: usize = 64;

/// How many documents a second are a light load.
const LIGHT: f64 = 50.0;

/// For how many times as long publishing is measured beside a backlog: what a store does now and then with
/// all it keeps, as when Redis writes its file anew, is to count with the share of the time that it takes.
const STRETCHES: u32 = 4;

/// What is measured, besides how long.
pub(crate) struct Plan<'a> {
    pub(crate) duration: Duration,
    pub(crate) only: &'a str,
    /// How many deliveries wait when the backlog is measured.
    pub(crate) backlog: usize,
}

/// Runs the cases on a store that keeps everything through a crash of the machine.
pub(crate) async fn run(store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let disk = Disk::new(store)?;
    for (case, subscriptions) in
        [("1 subscription", 1), ("10 subscriptions", 10), ("1,000 subscriptions", 1000)]
    {
        if case.contains(plan.only) {
            let world = World::new(&disk, &Handle::current()).await?;
            world.subscribe(subscriptions).await?;
            let rate = world.publish_to_sink(plan.duration, subscriptions).await?;
            row(report, store, format!("{case}, delivered"), PUBLISHERS, "per s", rate);
        }
    }
    if "light load".contains(plan.only) {
        light_load(&disk, store, plan, report).await?;
    }
    if "half load".contains(plan.only) {
        half_load(&disk, store, plan, report).await?;
    }
    if "backlog".contains(plan.only) {
        backlog(&World::new(&disk, &Handle::current()).await?, store, plan, report).await?;
    }
    Ok(())
}

/// How long a publication takes, and its delivery after that, where the machine has next to nothing to do;
/// beside the same by hand.
async fn light_load(disk: &Disk, store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let load = Load { a_second: LIGHT, publishers: 1, duration: plan.duration.max(Duration::from_secs(5)) };
    let outside = Outside::new()?;
    let plain = match disk.rows().await? {
        Some(rows) => {
            let plain = Plain::new(rows, &outside).await?;
            Some(outside.run(load.run(plain.api.clone(), Arc::clone(&plain.sink))).await?)
        }
        None => None,
    };
    let world = World::new(disk, outside.handle()).await?;
    world.subscribe(1).await?;
    let own = outside.run(load.run(world.api.clone(), Arc::clone(&world.sink))).await?;
    report_latencies(report, store, ("light load", load), &own, plain.as_ref());
    Ok(())
}

/// The same at half of what one subscription can be told a second.
async fn half_load(disk: &Disk, store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let world = World::new(disk, &Handle::current()).await?;
    world.subscribe(1).await?;
    let most = world.publish_to_sink(plan.duration, 1).await?;
    drop(world);

    let load = Load { a_second: most / 2.0, publishers: PUBLISHERS, duration: plan.duration };
    let outside = Outside::new()?;
    let world = World::new(disk, outside.handle()).await?;
    world.subscribe(1).await?;
    let own = outside.run(load.run(world.api.clone(), Arc::clone(&world.sink))).await?;
    row(report, store, "half load, published".into(), PUBLISHERS, "per s", load.a_second);
    report_latencies(report, store, ("half load", load), &own, None);
    Ok(())
}

fn report_latencies(
    report: &mut Report,
    store: StoreName,
    (case, load): (&str, Load),
    own: &Latencies,
    limit: Option<&Latencies>,
) {
    for percent in [50, 99] {
        let of = |latencies: &[f64]| percentile(latencies, percent);
        let publish = (of(&own.publish), limit.map(|limit| of(&limit.publish)));
        let deliver = (of(&own.deliver), limit.map(|limit| of(&limit.deliver)));
        for (what, (value, limit)) in [("publish", publish), ("delivery after it", deliver)] {
            let case = format!("{case}, {what} p{percent}");
            report.add(SUITE, Cell { case, store, callers: load.publishers, unit: "us", value, limit });
        }
    }
}

/// A thread for those who publish and who are told: in life they are other processes, and wait for no
/// executor of the server's.
struct Outside(Option<Runtime>);

impl Outside {
    fn new() -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.handle().spawn(work).await?
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // A runtime that is dropped would wait for its thread.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a million deliveries that wait cost, and how fast they go once they may.
async fn backlog(world: &World, store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let subscription = world.subscribe(1).await?.remove(0);
    world.flare.set_status(&subscription.id, Status::Paused).await?;
    let before = world.publish_for(plan.duration).await?;
    let resident = resident_mib()?;
    while world.published.load(Ordering::Relaxed) < plan.backlog as u64 {
        world.publish_for(Duration::from_secs(5)).await?;
        eprintln!("{} of {} wait", world.published.load(Ordering::Relaxed), plan.backlog);
    }
    row(report, store, "backlog, memory more".into(), PUBLISHERS, "MiB", resident_mib()? - resident);
    let mut after = Vec::new();
    for _ in 0..STRETCHES {
        after.push(world.publish_for(plan.duration).await?);
    }
    let mean = after.iter().sum::<f64>() / f64::from(STRETCHES);
    let least = after.into_iter().fold(f64::INFINITY, f64::min);
    row(report, store, "backlog, published before".into(), PUBLISHERS, "per s", before);
    row(report, store, "backlog, published after".into(), PUBLISHERS, "per s", mean);
    row(report, store, "backlog, published after, least".into(), PUBLISHERS, "per s", least);
    world.flare.set_status(&subscription.id, Status::Active).await?;
    let began = now();
    let all = world.published.load(Ordering::Relaxed);
    tokio::time::timeout(plan.duration.max(Duration::from_secs(10)), world.sink.until(all)).await.ok();
    let drained = world.sink.count() as f64 / began.elapsed().as_secs_f64();
    row(report, store, "backlog, drained".into(), PUBLISHERS, "per s", drained);
    Ok(())
}

fn row(report: &mut Report, store: StoreName, case: String, callers: usize, unit: &'static str, value: f64) {
    report.add(SUITE, Cell { case, store, callers, unit, value, limit: None });
}

/// Where a store keeps its data.
enum Disk {
    Memory,
    Sqlite(tempfile::TempDir),
    Pg(Postgres),
    Redis(Redis),
}

impl Disk {
    fn new(store: StoreName) -> Result<Self> {
        Ok(match store {
            StoreName::Memory => Self::Memory,
            StoreName::Sqlite => Self::Sqlite(tempfile::tempdir()?),
            StoreName::Pg => Self::Pg(Postgres::start()?),
            StoreName::Redis => {
                Self::Redis(Redis::start(&["--appendonly", "yes", "--appendfsync", "always"])?)
            }
            StoreName::Dynamo => return Err("an emulator says nothing about deliveries on DynamoDB".into()),
        })
    }

    /// Plain tables on it, where it has such.
    async fn rows(&self) -> Result<Option<Rows>> {
        Ok(match self {
            Self::Sqlite(folder) => {
                Some(Rows::sqlite(&format!("sqlite://{}", folder.path().join("plain.db").display())).await?)
            }
            Self::Pg(postgres) => Some(Rows::pg(&postgres.url()).await?),
            Self::Memory | Self::Redis(_) => None,
        })
    }

    /// The store, empty.
    async fn open(&self) -> Result<AnyStore> {
        let store = match self {
            Self::Memory => evenkeel::open("memory:").await?,
            Self::Sqlite(folder) => {
                evenkeel::open(&format!("sqlite://{}", folder.path().join("bench.db").display())).await?
            }
            Self::Pg(postgres) => evenkeel::open(&postgres.url()).await?,
            Self::Redis(redis) => evenkeel::open(&redis.url()).await?,
        };
        Ok(store.namespace(Namespace::new(calls::fresh_key())?))
    }
}

/// A server at work, with its subscriber and publishers.
struct World {
    flare: Flare,
    sink: Arc<Sink>,
    sink_url: String,
    api: String,
    resource: String,
    published: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    /// A server with a subscriber that runs on `outside`.
    async fn new(disk: &Disk, outside: &Handle) -> Result<Self> {
        let flare = Flare::new(disk.open().await?);
        let endpoint = Template::parse("https://api.example.com/orders/{order}")?;
        let resource =
            flare.create_resource(NewResource { endpoint, change: Change::new("v", "")? }).await?.id;
        let sink = Arc::new(Sink::default());
        let (sink_address, sink_task) = outside.spawn(Arc::clone(&sink).serve()).await??;
        let sink_url = format!("http://{sink_address}");
        let (api, api_task) = serve(evenkeel::axum::flare::router(flare.clone())).await?;
        let worker = flare.worker(loopback()?);
        let worker = tokio::spawn(worker.run(std::future::pending()));
        let published = Arc::new(AtomicU64::new(0));
        let tasks = vec![sink_task, api_task, worker];
        Ok(Self { flare, sink, sink_url, api, resource, published, tasks })
    }

    async fn subscribe(&self, count: usize) -> Result<Vec<Subscription>> {
        let mut subscriptions = Vec::new();
        for subscription in 0..count {
            let url = format!("{}/{subscription}/{{order}}", self.sink_url);
            let new: NewSubscription = serde_json::from_value(json!({
                "endpoint": { "url": url, "method": "POST" },
                "delivery": { "success": [200], "concurrency": 128 },
            }))?;
            subscriptions.push(self.flare.subscribe(&self.resource, new).await?.0);
        }
        Ok(subscriptions)
    }

    /// A publisher's connection.
    async fn connect(&self) -> Result<Wire> {
        Wire::new(TcpStream::connect(&self.api).await?)
    }

    /// Deliveries a second from the first publication to the last delivery.
    async fn publish_to_sink(&self, duration: Duration, subscriptions: usize) -> Result<f64> {
        let began = now();
        // So many deliveries a document are waited for, not published ahead of.
        let duration = if subscriptions > 100 { duration / 4 } else { duration };
        self.publish_for(duration).await?;
        let due = self.published.load(Ordering::Relaxed) * subscriptions as u64;
        self.sink.until(due).await;
        Ok(due as f64 / began.elapsed().as_secs_f64())
    }

    /// Publishes new documents over HTTP; how many a second.
    async fn publish_for(&self, duration: Duration) -> Result<f64> {
        let began = now();
        let before = self.published.load(Ordering::Relaxed);
        let mut publishers = JoinSet::new();
        for _ in 0..PUBLISHERS {
            let mut api = self.connect().await?;
            let published = Arc::clone(&self.published);
            publishers.spawn(async move {
                while now().duration_since(began) < duration {
                    let order = published.fetch_add(1, Ordering::Relaxed);
                    publish(&mut api, order).await?;
                }
                Result::<()>::Ok(())
            });
        }
        while let Some(ended) = publishers.join_next().await {
            ended??;
        }
        let count = self.published.load(Ordering::Relaxed) - before;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// A server written by hand, with its subscriber.
struct Plain {
    sink: Arc<Sink>,
    api: String,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Plain {
    async fn new(rows: Rows, outside: &Outside) -> Result<Self> {
        let sink = Arc::new(Sink::default());
        let (sink_address, sink_task) = outside.run(Arc::clone(&sink).serve()).await?;
        let (api, api_task) = serve(plain_webhooks::router(rows, &sink_address).await?).await?;
        Ok(Self { sink, api, tasks: [sink_task, api_task] })
    }
}

/// In microseconds, sorted.
struct Latencies {
    publish: Vec<f64>,
    /// Of the deliveries, after what they tell of was accepted.
    deliver: Vec<f64>,
}

/// Documents published at a steady rate.
#[derive(Clone, Copy)]
struct Load {
    a_second: f64,
    /// Among whom they are dealt out.
    publishers: usize,
    duration: Duration,
}

impl Load {
    /// Publishes to `api`, of which `sink` is told.
    async fn run(self, api: String, sink: Arc<Sink>) -> Result<Latencies> {
        sink.arrived.lock().expect(CALM).get_or_insert_default();
        let between = Duration::from_secs_f64(self.publishers as f64 / self.a_second);
        let began = tokio::time::Instant::from_std(now());
        let end = began + self.duration;
        let mut publishers = JoinSet::new();
        for publisher in 0..self.publishers {
            let mut api = Wire::new(TcpStream::connect(&api).await?)?;
            let first = began + between * u32::try_from(publisher)? / u32::try_from(self.publishers)?;
            publishers.spawn(async move {
                let mut ticks = tokio::time::interval_at(first, between);
                let mut published = Vec::new();
                for nth in 0.. {
                    if ticks.tick().await >= end {
                        break;
                    }
                    let (order, began) = ((nth * self.publishers + publisher) as u64, now());
                    publish(&mut api, order).await?;
                    published.push((order, began, now()));
                }
                Result::<Vec<_>>::Ok(published)
            });
        }
        let mut published = Vec::new();
        while let Some(ended) = publishers.join_next().await {
            published.extend(ended??);
        }
        sink.until(published.len() as u64).await;

        let arrived = sink.arrived.lock().expect(CALM).take().unwrap_or_default();
        let (mut publish, mut deliver) = (Vec::new(), Vec::new());
        for (order, began, accepted) in published {
            let arrived = arrived[&order.to_string()];
            publish.push(accepted.duration_since(began).as_secs_f64() * 1e6);
            deliver.push(arrived.saturating_duration_since(accepted).as_secs_f64() * 1e6);
        }
        publish.sort_by(f64::total_cmp);
        deliver.sort_by(f64::total_cmp);
        Ok(Latencies { publish, deliver })
    }
}

async fn publish(api: &mut Wire, order: u64) -> Result<()> {
    let body = format!(r#"{{"v": 1, "order": "{order}", "state": "open", "total": 4711}}"#);
    let request = format!(
        "PUT /documents/https://api.example.com/orders/{order} HTTP/1.1\r\nhost: bench\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    api.write(request.as_bytes()).await?;
    let answer = api.line().await?.ok_or("the server closed the connection")?;
    if answer.starts_with("HTTP/1.1 202 ") {
        Ok(())
    } else {
        Err(format!("publishing was answered {answer:?}").into())
    }
}

fn loopback() -> Result<Sender> {
    let policy = AddressPolicy { allow: vec!["127.0.0.0/8".parse()?] };
    Ok(Sender::builder().policy(policy).build()?)
}

async fn serve(router: Router) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let task = tokio::spawn(async move {
        axum::serve(listener, router).await.expect("a listener on loopback accepts");
    });
    Ok((address, task))
}

/// What is sent to, and when it arrived first.
#[derive(Default)]
struct Sink {
    count: AtomicU64,
    wanted: AtomicU64,
    complete: Notify,
    /// By order; kept only while latencies are measured.
    arrived: Mutex<Option<HashMap<String, Instant>>>,
}

const CALM: &str = "who holds the lock does not panic";

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

impl Sink {
    /// Takes whatever is sent to it; its address.
    async fn serve(self: Arc<Self>) -> Result<(String, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            let mut peers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let sink = Arc::clone(&self);
                peers.spawn(async move {
                    let mut wire = Wire::new(stream)?;
                    while let Some(line) = wire.line().await? {
                        sink.receive(&line);
                        wire.write(TAKEN).await?;
                    }
                    Result::<()>::Ok(())
                });
            }
        });
        Ok((address, task))
    }

    fn receive(&self, line: &str) {
        if let Some(arrived) = &mut *self.arrived.lock().expect(CALM)
            && let Some((_, order)) = line.split(' ').nth(1).and_then(|path| path.rsplit_once('/'))
        {
            arrived.entry(order.to_owned()).or_insert_with(now);
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count >= self.wanted.load(Ordering::SeqCst) {
            self.complete.notify_one();
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    async fn until(&self, count: u64) {
        self.wanted.store(count, Ordering::SeqCst);
        while self.count() < count {
            self.complete.notified().await;
        }
    }
}
