use evenkeel::core::ExpectStream;
use evenkeel::projections::EventStore;

use super::models::Deposited;
use super::{Cell, Plan, row};
use crate::Result;
use crate::measure::{self, Load, beside};
use crate::report::Report;
use crate::server::{Server, StoreName};
use crate::work::{STREAMS, Work};

/// How many events an append has.
const SIZES: [usize; 3] = [1, 10, 100];

/// Events a second that are appended, beside plain inserts.
pub(super) async fn run(
    store: StoreName,
    server: &Server,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<()> {
    for events in SIZES {
        let case = format!("append {events}");
        if !case.contains(plan.only) {
            continue;
        }
        for &callers in plan.callers {
            let load = Load { callers, duration: plan.duration };
            let limit = || server.limit(Work::Append(events), load);
            let (appends, limit) = beside(|| rate(server, events, load), limit).await?;
            let value = appends * events as f64;
            let limit = limit.map(|limit| limit * events as f64);
            row(report, Cell { case: case.clone(), store, callers, unit: "events/s", value, limit });
        }
    }
    Ok(())
}

async fn rate(server: &Server, events: usize, load: Load) -> Result<f64> {
    let empty = server.empty().await?;
    let store = EventStore::new(empty.store.clone());
    measure::rate(load, move |turn| {
        let store = store.clone();
        async move {
            let stream = format!("account-{}", turn.nth % STREAMS);
            store.append(&stream, ExpectStream::Any, &vec![Deposited { cents: 5 }; events]).await?;
            Ok(())
        }
    })
    .await
}
