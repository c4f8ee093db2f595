use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use evenkeel_core::{
    Clock, ErrorKind, ExpectStream, Filter, Partition, Result, Store, StoreExt, SystemClock, Transactional,
    Tx,
};
use evenkeel_projections::{Event, EventStore, Projection};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::accounts::Mode;
use super::notebook::{Notebook, Noting, noted, numbers, page};
use crate::process::Process;
use crate::until::until;

const LEASE: Duration = Duration::from_secs(1);
const STREAMS: u32 = 12;

/// How many appends a process is told to make at a time.
const APPENDS: u64 = 40;

/// A store, in a story of several processes.
pub trait Cast: Send + Sync + 'static {
    /// The store.
    type Store: Transactional + Clone;
    /// A read model on it.
    type Notes: Notebook<<Self::Store as Transactional>::Conn>;

    /// Opens the store, with several partitions.
    fn open(url: &str) -> impl Future<Output = Result<Self::Store>> + Send;
}

/// What a process does.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    /// Projects for as long as it lives.
    Project { url: String },
    /// Appends as it is told.
    Append { url: String, name: String },
    /// Keeps a transaction open.
    Hold { url: String, name: String },
}

#[derive(Debug, Serialize, Deserialize)]
enum Happened {
    Said,
    /// In a commit with a note of `by`.
    Ordered {
        by: String,
        nth: u64,
    },
}
impl Event for Happened {}

/// Plays the part of a process of the [story](every_event_is_applied_once_whoever_is_killed), where this
/// is one; the first thing in `main`.
#[must_use]
pub fn play_projections<C: Cast>() -> Option<ExitCode> {
    let part = Process::part::<Part>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a process may have a runtime").block_on(async {
        match part {
            Part::Project { url } => project::<C>(&url).await,
            Part::Append { url, name } => append::<C>(&url, &name).await,
            Part::Hold { url, name } => hold::<C>(&url, &name).await,
        }
    });
    Some(ExitCode::SUCCESS)
}

/// Three processes project, two append; they are killed at random while transactions stay open, are
/// committed, rolled back or die, and new versions are built. Then each read model is a fold over the
/// log, and what else was written in the transactions is there where their events are.
pub async fn every_event_is_applied_once_whoever_is_killed<C: Cast>(url: &str) {
    let mut stage = Stage::<C>::begin(url).await;
    stage.kills(2).await;
    let mut to_commit = stage.store.begin(stage.store.partition_of("stream-0"), now()).await.unwrap();
    order::<C>(&stage.events, &mut to_commit, "stream-0", "patient", 1).await.unwrap();
    let mut to_roll_back = stage.store.begin(stage.store.partition_of("stream-1"), now()).await.unwrap();
    order::<C>(&stage.events, &mut to_roll_back, "stream-1", "doubtful", 1).await.unwrap();
    let mut holder = Process::spawn(&Part::Hold { url: url.to_owned(), name: "dying".to_owned() });
    assert_eq!(block_in_place(|| holder.hear()), "open");

    stage.kills(2).await;
    for (_, projection) in &stage.projections {
        assert_eq!(projection.operations().start_rebuild().await.unwrap(), 2);
    }
    stage.kills(2).await;
    stage.store.finish(to_commit).await.unwrap();
    stage.store.rollback(to_roll_back).await;
    holder.kill();
    stage.kills(2).await;
    let orders = stage.end().await;
    let of = |by: &str| orders.get(by).map(String::as_str);
    assert_eq!((of("patient"), of("doubtful"), of("dying")), (Some("1 "), None, None));
}

fn now() -> evenkeel_core::Timestamp {
    SystemClock.now()
}

type Noted<C> = (Noting<<C as Cast>::Notes>, Projection<Noting<<C as Cast>::Notes>, <C as Cast>::Store>);

/// A projection of each mode.
fn projections<C: Cast>(events: &EventStore<C::Store>) -> [Noted<C>; 2] {
    let notings = [Noting::new("in-order", Mode::Stream), Noting::new("by-stream", Mode::Keyed)];
    notings.map(|noting| {
        // Small commits, so that many are under way when a process is killed.
        let projection = noting.on(events.clone()).lease(LEASE).most_events(7);
        (noting, projection)
    })
}

async fn project<C: Cast>(url: &str) {
    let mut told = Process::told();
    let [(_, one), (_, two)] = projections::<C>(&EventStore::new(C::open(url).await.unwrap()));
    let for_ever = std::future::pending;
    let run = async { tokio::try_join!(one.run(for_ever()), two.run(for_ever())) };
    tokio::select! {
        ended = run => drop(ended.unwrap()),
        _ = told.recv() => {}
    }
}

/// Appends in every way there is, so many times as it is told in each line.
async fn append<C: Cast>(url: &str, name: &str) {
    let mut told = Process::told();
    let store = C::open(url).await.unwrap();
    let events = EventStore::new(store.clone());
    let [_, (_, by_stream)] = projections::<C>(&events);
    let mut nth = 0;
    while let Some(line) = told.recv().await {
        for _ in 0..line.parse::<u64>().unwrap() {
            let stream = format!("stream-{}", fastrand::u32(..STREAMS));
            let some = [Happened::Said, Happened::Said, Happened::Said];
            let some = &some[..fastrand::usize(1..=3)];
            match fastrand::u8(..10) {
                0..4 => drop(events.append(&stream, ExpectStream::Any, some).await.unwrap()),
                4..6 => match by_stream.append(&stream, ExpectStream::Any, some).await {
                    // Others were faster, again and again.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                    Ok(appended) => assert_eq!(appended.count, some.len() as u64),
                },
                way => {
                    let mut tx = store.begin(store.partition_of(&stream), now()).await.unwrap();
                    order::<C>(&events, &mut tx, &stream, name, nth + 1).await.unwrap();
                    if way == 9 {
                        store.rollback(tx).await;
                    } else {
                        store.finish(tx).await.unwrap();
                        nth += 1;
                    }
                }
            }
        }
    }
}

/// Holds a transaction open that has written already.
async fn hold<C: Cast>(url: &str, name: &str) {
    let mut told = Process::told();
    let store = C::open(url).await.unwrap();
    let mut tx = store.begin(store.partition_of("stream-2"), now()).await.unwrap();
    order::<C>(&EventStore::new(store.clone()), &mut tx, "stream-2", name, 1).await.unwrap();
    println!("open");
    told.recv().await;
}

/// Writes a note of one's own and an event into a transaction.
async fn order<C: Cast>(
    events: &EventStore<C::Store>,
    tx: &mut Tx<<C::Store as Transactional>::Conn>,
    stream: &str,
    by: &str,
    nth: u64,
) -> Result<(), evenkeel_core::BoxError> {
    let name = page(tx.partition(), &format!("orders/{by}"));
    C::Notes::note(tx.conn().await?, &name, &format!("{nth} ")).await?;
    let event = Happened::Ordered { by: by.to_owned(), nth };
    Ok(events.append_in(tx.batch(), stream, ExpectStream::Any, &[event])?)
}

/// The processes, and what they are seen to do.
struct Stage<C: Cast> {
    url: String,
    store: C::Store,
    events: EventStore<C::Store>,
    projections: [Noted<C>; 2],
    projectors: Vec<Process>,
    appenders: Vec<Process>,
    /// The names of all who ever appended.
    names: Vec<String>,
}

impl<C: Cast> Stage<C> {
    async fn begin(url: &str) -> Self {
        let store = C::open(url).await.unwrap();
        let events = EventStore::new(store.clone());
        let projections = projections::<C>(&events);
        // Makes what notes are kept in.
        for (_, projection) in &projections {
            projection.catch_up().await.unwrap();
        }
        let names = ["patient", "doubtful", "dying"].map(str::to_owned).to_vec();
        let (projectors, appenders) = Default::default();
        let mut stage =
            Self { url: url.to_owned(), store, events, projections, projectors, appenders, names };
        stage.projectors = (0..3).map(|_| stage.projector()).collect();
        stage.appenders = (0..2).map(|_| stage.appender()).collect();
        stage
    }

    fn projector(&self) -> Process {
        Process::spawn(&Part::Project { url: self.url.clone() })
    }

    fn appender(&mut self) -> Process {
        let name = format!("appender-{}", self.names.len());
        self.names.push(name.clone());
        Process::spawn(&Part::Append { url: self.url.clone(), name })
    }

    /// Kills one who projects and one who appends in the middle of their work, so many times.
    async fn kills(&mut self, times: usize) {
        for _ in 0..times {
            let (head, position) = (self.head().await, self.position().await);
            for appender in &mut self.appenders {
                appender.tell(&APPENDS.to_string());
            }
            let more = fastrand::u64(1..APPENDS);
            until("more is projected", async || self.position().await >= position + more).await;
            let victim = fastrand::usize(..self.projectors.len());
            self.projectors[victim] = self.projector();
            until("more is appended", async || self.head().await >= head + more).await;
            let victim = fastrand::usize(..self.appenders.len());
            self.appenders[victim] = self.appender();
        }
    }

    /// How many events there are.
    async fn head(&self) -> u64 {
        let mut heads = 0;
        for at in self.store.partitions() {
            heads += self.store.read(&at, evenkeel_core::Read::partition(0, 1)).await.unwrap().head;
        }
        heads
    }

    /// How many events are applied by that projection which has applied fewer.
    async fn position(&self) -> u64 {
        let mut positions = [0; 2];
        for (position, (_, projection)) in positions.iter_mut().zip(&self.projections) {
            *position = projection.operations().status().await.unwrap().progress().0;
        }
        positions[0].min(positions[1])
    }

    /// Lets the projectors come to the end, and compares; returns the orders by who made them.
    async fn end(mut self) -> BTreeMap<String, String> {
        self.appenders.clear();
        for (_, projection) in &self.projections {
            let operations = projection.operations();
            until("the new version is the active one", async || {
                let status = operations.status().await.unwrap();
                (status.active, status.building, status.lag()) == (2, None, 0)
            })
            .await;
        }
        self.projectors.clear();
        let mut orders = BTreeMap::<String, String>::new();
        for at in self.store.partitions() {
            for (by, noted) in self.compare(&at).await {
                orders.entry(by).or_default().push_str(&noted);
            }
        }
        orders
    }

    /// Compares what is noted in a partition with its log; returns the orders by who made them.
    async fn compare(&self, at: &Partition) -> BTreeMap<String, String> {
        let log: Vec<_> = self.events.log(at.clone(), 0, Filter::all()).try_collect().await.unwrap();
        let (mut versions, mut orders) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        for (event, position) in log.iter().zip(1..) {
            assert_eq!(event.position, position);
            let version = versions.entry(event.stream.clone()).or_insert(0);
            *version += 1;
            assert_eq!(event.version, *version);
            if let Some(Happened::Ordered { by, nth }) = event.decode().unwrap() {
                write!(orders.entry(by).or_default(), "{nth} ").unwrap();
            }
        }
        for (noting, _) in &self.projections {
            for (stream, last) in &versions {
                let of = Some(stream.as_str());
                assert_eq!(self.noted(at, &noting.name(at, 2, of)).await, numbers(*last), "{stream}");
                let before = self.noted(at, &noting.name(at, 1, of)).await;
                assert!(numbers(*last).starts_with(&before), "{stream}: {before}");
            }
        }
        let (in_order, _) = &self.projections[0];
        assert_eq!(self.noted(at, &in_order.name(at, 2, None)).await, numbers(log.len() as u64));
        for by in &self.names {
            let noted = self.noted(at, &page(at, &format!("orders/{by}"))).await;
            assert_eq!(noted, orders.get(by).map_or("", String::as_str), "{by}");
        }
        orders
    }

    async fn noted(&self, at: &Partition, name: &str) -> String {
        noted::<C::Notes, _>(&self.store, at, now(), name).await
    }
}
