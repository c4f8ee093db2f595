//! Runs that outlive their process.

mod advance; // what a run does next
mod born; // new runs in the hands of a worker
mod child; // runs that are started by runs
mod choreographer; // the handle and its settings
mod commit; // what a driver writes
mod control; // what somebody outside can do to a run
mod door; // transactions of any store
mod driver; // a run in the hands of a worker
mod finish; // beginning work, and what becomes of it
mod forget; // runs that ended long ago
mod history; // what happened
mod hold; // a run from its lease to its rest
mod inspect; // a run as it stands
mod intake; // new runs that begin where they are started
mod journal; // everything that is kept of a run
mod list; // runs by state
mod places; // where everything is kept
mod reach; // what becomes of a step
mod records; // what is kept
mod restore; // going on from what is kept
mod start; // new runs
mod tasks; // what one commit cannot hold
mod waiters; // those who wait in this process
mod worker; // what makes runs go on

pub use child::ChildOutcome;
pub use choreographer::{Choreographer, Registration};
pub(crate) use driver::What;
pub use history::{Entry, Event};
pub use inspect::Run;
pub use list::{RunFilter, RunPage, RunSummary};
pub use start::Started;
pub use worker::Worker;
