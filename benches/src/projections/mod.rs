//! Events appended and projected, beside plain SQL doing the same.

mod append; // events into streams
mod catch_up; // a log into a read model
mod footprint; // what a long log takes up
mod latency; // from an append to the read model
mod models; // what is projected
mod plain; // the same by hand
mod stores; // stores with their own connections

use std::time::Duration;

use crate::Result;
use crate::report::{Cell, Report};
use crate::server::{Server, StoreName};

/// What is measured.
pub(crate) struct Plan<'a> {
    pub(crate) duration: Duration,
    pub(crate) callers: &'a [usize],
    pub(crate) only: &'a str,
    /// How many events there are to catch up with.
    pub(crate) events: usize,
}

/// Runs the cases on a store.
pub(crate) async fn run(store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let server = Server::start(store).await?;
    eprintln!("{store}: {}", server.conditions());
    append::run(store, &server, plan, report).await?;
    catch_up::run(store, &server, plan, report).await?;
    latency::run(store, &server, plan, report).await?;
    footprint::run(store, &server, plan, report).await
}

fn row(report: &mut Report, cell: Cell) {
    report.add("projections", cell);
}
