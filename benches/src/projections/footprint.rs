use evenkeel::core::{StoreExt, Transactional};
use evenkeel::projections::{EventStore, Projection, Projector};

use super::catch_up::fill;
use super::models::Balances;
use super::stores::Native;
use super::{Cell, Plan, row};
use crate::Result;
use crate::measure::{now, resident_mib};
use crate::report::Report;
use crate::server::{Server, StoreName};

const CASE: &str = "memory while projecting";

/// As many as an append may have on every store.
const APPENDED: usize = 500;

/// The memory of this process before all events are projected, when half of them are, and after.
pub(super) async fn run(
    store: StoreName,
    server: &Server,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<()> {
    if !CASE.contains(plan.only) {
        return Ok(());
    }
    let (native, began) = (Native::open(server).await?, now());
    let events = fill(&native, plan.events, APPENDED).await?;
    eprintln!("{events} events appended in {:.1} s", began.elapsed().as_secs_f64());
    let found = match &native {
        Native::Sqlite { store, .. } => watch(store.clone(), events).await?,
        Native::Pg(store) => watch(store.clone(), events).await?,
        Native::Memory(_) | Native::Other(_) => watch(native.any(), events).await?,
    };
    for (when, value) in ["start", "middle", "end"].into_iter().zip(found) {
        let case = format!("{CASE}, {when}");
        row(report, Cell { case, store, callers: 1, unit: "MiB", value, limit: None });
    }
    Ok(())
}

async fn watch<S>(store: S, events: usize) -> Result<[f64; 3]>
where
    Balances: Projector<S::Conn>,
    S: Transactional + Clone,
{
    let projection = Projection::stream(EventStore::new(store.clone()), "long", Balances);
    let (start, half) = (resident_mib()?, u64::try_from(events / 2)?);
    let in_the_middle = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let mut applied = 0;
            for at in store.partitions() {
                applied += projection.position(&at).await?;
            }
            if applied >= half {
                return resident_mib();
            }
        }
    };
    let all = async { Ok(projection.catch_up().await?) };
    let ((), middle) = tokio::try_join!(all, in_the_middle)?;
    Ok([start, middle, resident_mib()?])
}
