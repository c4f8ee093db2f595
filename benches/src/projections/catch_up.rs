use evenkeel::core::{ExpectStream, StoreExt, Transactional};
use evenkeel::projections::{EventStore, Projection, Projector};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::models::{Balances, Count, Deposited};
use super::plain::Plain;
use super::stores::Native;
use super::{Cell, Plan, row};
use crate::Result;
use crate::measure::{beside, now, resident_mib};
use crate::report::Report;
use crate::server::{Server, StoreName};

/// How many streams the events are of.
pub(super) const STREAMS: usize = 1_000;

/// How many events an append has.
const APPENDED: usize = 10;

/// What a read model is written with.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Model {
    Count,
    Records,
    Rows,
}

#[derive(Clone, Copy)]
enum Mode {
    Stream,
    /// A new version of the same, while the first is there.
    StreamAgain,
    Keyed,
}

const CASES: [(&str, Model, Mode); 8] = [
    ("catch up, count", Model::Count, Mode::Stream),
    ("catch up keyed, count", Model::Count, Mode::Keyed),
    ("catch up, records", Model::Records, Mode::Stream),
    ("catch up keyed, records", Model::Records, Mode::Keyed),
    ("catch up, SQL", Model::Rows, Mode::Stream),
    ("catch up keyed, SQL", Model::Rows, Mode::Keyed),
    ("rebuild, records", Model::Records, Mode::StreamAgain),
    ("rebuild, SQL", Model::Rows, Mode::StreamAgain),
];

/// Events a second that a projection applies which has them all before it.
pub(super) async fn run(
    store: StoreName,
    server: &Server,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<()> {
    if !CASES.iter().any(|(case, ..)| case.contains(plan.only)) {
        return Ok(());
    }
    let native = Native::open(server).await?;
    let events = fill(&native, plan.events, APPENDED).await?;
    let plain = Plain::open(server, events).await?;
    for (case, model, mode) in CASES {
        let has_rows = matches!(native, Native::Sqlite { .. } | Native::Pg(_));
        if !case.contains(plan.only) || (model == Model::Rows && !has_rows) {
            continue;
        }
        let mut round = 0;
        let cell = || {
            round += 1;
            rate(&native, format!("{case} {round}"), model, mode, events)
        };
        let limit = async || match (&plain, model) {
            (None, _) | (_, Model::Records) => Ok(None),
            (Some(plain), Model::Count | Model::Rows) => plain.rate(model).await.map(Some),
        };
        let before = resident_mib()?;
        let (value, limit) = beside(cell, limit).await?;
        let grown = resident_mib()? - before;
        row(report, Cell { case: case.to_owned(), store, callers: 1, unit: "events/s", value, limit });
        let case = format!("{case}, memory");
        row(report, Cell { case, store, callers: 1, unit: "MiB more", value: grown, limit: None });
    }
    Ok(())
}

/// Appends events to all streams in turn, so many at a time; returns how many.
pub(super) async fn fill(native: &Native, events: usize, at_a_time: usize) -> Result<usize> {
    let store = EventStore::new(native.any());
    let appends = events.div_ceil(at_a_time);
    stream::iter(0..appends)
        .map(|append| {
            let store = store.clone();
            async move {
                let stream = format!("account-{}", append % STREAMS);
                let deposits = vec![Deposited { cents: 5 }; at_a_time];
                store.append(&stream, ExpectStream::Any, &deposits).await.map(drop)
            }
        })
        .buffer_unordered(64)
        .try_collect::<()>()
        .await?;
    Ok(appends * at_a_time)
}

async fn rate(native: &Native, name: String, model: Model, mode: Mode, events: usize) -> Result<f64> {
    match (native, model) {
        (Native::Memory(store), Model::Count) => timed(store.clone(), name, Count, mode, events).await,
        (Native::Sqlite { store, .. }, Model::Count) => timed(store.clone(), name, Count, mode, events).await,
        (Native::Pg(store), Model::Count) => timed(store.clone(), name, Count, mode, events).await,
        (Native::Sqlite { store, .. }, Model::Rows) => {
            timed(store.clone(), name, Balances, mode, events).await
        }
        (Native::Pg(store), Model::Rows) => timed(store.clone(), name, Balances, mode, events).await,
        (_, Model::Count) => timed(native.any(), name, Count, mode, events).await,
        (_, Model::Records | Model::Rows) => timed(native.any(), name, Balances, mode, events).await,
    }
}

async fn timed<P, S>(store: S, name: String, projector: P, mode: Mode, events: usize) -> Result<f64>
where
    P: Projector<S::Conn>,
    S: Transactional + Clone,
{
    let events_of = EventStore::new(store.clone());
    let projection = match mode {
        Mode::Stream | Mode::StreamAgain => Projection::stream(events_of, name, projector),
        Mode::Keyed => Projection::keyed(events_of, name, projector),
    };
    let took = match mode {
        Mode::Stream | Mode::Keyed => {
            let began = now();
            projection.catch_up().await?;
            began.elapsed()
        }
        Mode::StreamAgain => {
            projection.catch_up().await?;
            let began = now();
            projection.rebuild().await?;
            began.elapsed()
        }
    };
    let mut applied = 0;
    for at in store.partitions() {
        applied += projection.position(&at).await?;
    }
    assert_eq!(applied, u64::try_from(events)?, "all events are applied");
    Ok(events as f64 / took.as_secs_f64())
}
