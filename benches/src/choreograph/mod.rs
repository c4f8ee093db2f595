//! Runs of trivial steps: in memory beside a plain loop, and durably beside the store's commits.

mod durable; // on a store
mod memory; // without one
mod steps; // what is run

use std::time::Duration;

use crate::Result;
use crate::report::{Cell, Report};
use crate::server::{Server, StoreName};

/// What is measured.
pub(crate) struct Plan<'a> {
    pub(crate) duration: Duration,
    pub(crate) callers: &'a [usize],
    pub(crate) only: &'a str,
    /// How many inputs are run in memory, one beside the other.
    pub(crate) inputs: u64,
}

/// Runs the cases on a store; those without one go with the store in memory.
pub(crate) async fn run(store: StoreName, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    if store == StoreName::Memory {
        memory::run(plan, report).await?;
    }
    if durable::CASE.contains(plan.only) {
        let server = Server::start(store).await?;
        eprintln!("{store}: {}", server.conditions());
        durable::run(store, &server, plan, report).await?;
    }
    Ok(())
}

fn row(report: &mut Report, cell: Cell) {
    report.add("choreograph", cell);
}
