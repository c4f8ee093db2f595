use std::time::{Duration, Instant};

use evenkeel::core::layer::{Around, Call, Method};
use evenkeel::core::{self, ExpectStream, StoreExt, Transactional};
use evenkeel::projections::{EventStore, Projection, Projector};
use tokio::sync::mpsc;

use super::catch_up::STREAMS;
use super::models::{Balances, Deposited};
use super::plain::Plain;
use super::stores::Native;
use super::{Cell, Plan, row};
use crate::Result;
use crate::measure::{now, percentile};
use crate::report::Report;
use crate::server::{Server, StoreName};

const CASE: &str = "append to projected";

/// How many events a second are appended.
const EVENTS: u32 = 100;

/// How long after an append has returned its event is committed in the read model, while the projection
/// runs in other threads. What tells the caller so is not measured.
pub(super) async fn run(
    store: StoreName,
    server: &Server,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<()> {
    if !CASE.contains(plan.only) {
        return Ok(());
    }
    let native = Native::open(server).await?;
    let waits = match &native {
        Native::Sqlite { store, .. } => waits(store.clone(), plan.duration).await?,
        Native::Pg(store) => waits(store.clone(), plan.duration).await?,
        _ => waits(native.any(), plan.duration).await?,
    };
    let plain = match Plain::open(server, 1).await? {
        Some(plain) => Some(plain.waits(plan.duration).await?),
        None => None,
    };
    for percent in [50, 99] {
        let (case, value) = (format!("{CASE}, p{percent}"), percentile(&waits, percent));
        let limit = plain.as_ref().map(|waits| percentile(waits, percent));
        row(report, Cell { case, store, callers: 1, unit: "us", value, limit });
    }
    Ok(())
}

/// Says when each transaction is committed, without a hop to another thread in between.
#[derive(Clone, Debug)]
struct Commits(mpsc::UnboundedSender<Instant>);

impl Around for Commits {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        made: impl Future<Output = core::Result<T>> + Send,
    ) -> core::Result<T> {
        let outcome = made.await;
        if call.method == Method::Finish {
            // Nobody listens any more when the measurement is over.
            let _ = self.0.send(now());
        }
        outcome
    }
}

async fn waits<S>(store: S, duration: Duration) -> Result<Vec<f64>>
where
    Balances: Projector<S::Conn>,
    S: Transactional + Clone,
{
    let (sender, mut commits) = mpsc::unbounded_channel();
    let store = store.layer(Commits(sender));
    let events = EventStore::new(store.clone());
    let projection = Projection::stream(events.clone(), "balances", Balances);
    let running = tokio::spawn({
        let projection = projection.clone();
        async move { projection.run(std::future::pending()).await }
    });
    let waits = paced(duration, async |n| {
        let stream = format!("account-{}", n % STREAMS);
        let appended = events.append(&stream, ExpectStream::Any, &[Deposited { cents: 5 }]).await?;
        let returned = now();
        loop {
            let committed = commits.recv().await.ok_or("the projection has ended")?;
            if projection.position(&store.partition_of(&stream)).await? >= appended.position {
                return Ok(committed.saturating_duration_since(returned));
            }
        }
    })
    .await;
    running.abort();
    waits
}

/// Calls so many times a second as events are appended; each call says how long its wait was. Returns
/// them in microseconds, sorted.
pub(super) async fn paced(
    duration: Duration,
    mut call: impl AsyncFnMut(usize) -> Result<Duration>,
) -> Result<Vec<f64>> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS);
    let (began, mut waits) = (now(), Vec::new());
    for n in 0.. {
        ticks.tick().await;
        let wait = call(n).await?;
        // The first ones wait for the node to take its partitions.
        if now().duration_since(began) > Duration::from_secs(1) {
            waits.push(wait.as_secs_f64() * 1e6);
        }
        if now().duration_since(began) > duration + Duration::from_secs(2) {
            break;
        }
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}
