//! An event store, and read models that are exactly right after any crash.
//!
//! # Guarantees
//! - A read model's writes, its state, its position and its dead letters are one commit: every event
//!   is applied exactly once and in order, whatever crashes and however many nodes run it.
//! - Those commits do not wait for the disk, unless they append or push, or the projection is
//!   [`synced`](Projection::synced): the read model is derived from a log that did. A crash of the
//!   machine may take it back to what it was a moment before, position and all, and what is missing is
//!   applied again. [Waiting](Projection::wait_until) is for what is applied, not for the disk.
//! - Positions move by compare-and-set. Leases only spare nodes from doing the same work.
//! - An append that was answered is there once, also where its answer was lost on the way.
//! - A new version of a read model is built beside the old one, and takes its place by one
//!   compare-and-set.
//!
//! # Example
//! ```
//! use evenkeel_core::{BoxError, Draft, ExpectStream, Key, MemoryStore};
//! use evenkeel_projections::{Context, Event, EventStore, Projection, Projector, Recorded};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! enum AccountEvent { Deposited { cents: i64 } }
//! impl Event for AccountEvent {}
//!
//! struct Balances;
//! impl Projector<Draft> for Balances {
//!     type State = i64;
//!     async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
//!         let Some(AccountEvent::Deposited { cents }) = event.decode()? else { return Ok(()) };
//!         *context.state += cents;
//!         let balance = context.state.to_string();
//!         context.conn().await?.put(Key::new("bank.balance", "all", &event.stream), balance);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let events = EventStore::new(MemoryStore::new());
//! events.append("account-7", ExpectStream::NoStream, &[AccountEvent::Deposited { cents: 5 }]).await?;
//! Projection::keyed(events, "balances", Balances).catch_up().await?;
//! # Ok(())
//! # }
//! ```
#![doc = include_str!("metrics.md")]

mod aggregate; // what decides by its own history
mod control; // what is to run
mod event; // what happened, as types
mod event_store; // events in streams
mod observe; // what an operator counts
mod operations; // a projection as an operator sees it
mod places; // where everything is kept
mod policy; // what becomes of an event that fails
mod projection; // projectors, run over the log
mod projector; // what keeps a read model
mod reading; // pages and streams of events
mod recorded; // an event as it stands
mod repository; // aggregates, loaded and executed
mod resource_versions; // read models that carry their version
mod settle; // commits until their outcome is known
mod snapshot; // states kept beside the events
mod streams; // existence, truncation, deletion
pub mod testing; // given, when, then
mod upcast; // payloads of earlier versions

pub use aggregate::Aggregate;
pub use event::Event;
pub use event_store::EventStore;
pub use operations::{Letter, Operations, PartitionStatus, Status};
pub use policy::{Failure, OnFailure, Policy};
pub use projection::Projection;
pub use projector::{Compacted, Context, Projector};
pub use reading::EventPage;
pub use recorded::{Recorded, metadata};
pub use repository::{CommandError, Executed, Loaded, Repository};
pub use resource_versions::{Advance, Reset, ResourceVersions};
