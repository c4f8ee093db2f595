//! The store contract under evenkeel: one narrow trait that every capability is built on and every
//! database implements.
//!
//! # Guarantees
//! - A [`Batch`] commits all or nothing, serialisably, within one [`Partition`].
//! - An event's position is gap-free and in commit order, so a reader never misses one.
//! - A job is leased to one holder at a time and vanishes only when acknowledged or cancelled.
//! - [`ErrorKind::Unavailable`] means that nothing was written; sending a fenced batch again after
//!   [`ErrorKind::OutcomeUnknown`] does not apply it twice.
//!
//! # Example
//! ```
//! use evenkeel_core::{Batch, Clock, Expect, Key, Merge, MemoryStore, NewEvent, Store, StoreExt, SystemClock};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let (store, now) = (MemoryStore::new(), SystemClock.now());
//! let mut batch = Batch::new(store.partition_of("order-17"), now);
//! batch
//!     .put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent)
//!     .append_any("order-17", [NewEvent::new("OrderPlaced", "{}", now)])
//!     .push("shop.mail", "17", now, "thanks", Merge::Keep);
//! let committed = store.commit(batch).await?;
//! assert_eq!(committed.appended[0].position, 1);
//! # Ok(())
//! # }
//! ```

mod any; // any store, erased
mod batch; // what one commit does
mod clock; // where time comes from
mod draft; // door 2 without a native connection
mod error; // what can go wrong
mod ext; // comforts on every store
pub mod fold; // committing together what waits together
mod index; // listing by state
pub mod judge; // what a batch means
pub mod layer; // wrappers around any store
mod log; // events in streams
mod memory; // the executable specification
mod partition; // the unit of consistency
mod queue; // jobs that fall due
mod record; // keyed values
mod signal; // hints that something happened
pub mod skew; // clocks that are apart
mod store; // the contract: door 1
mod time; // points in time
mod tx; // the contract: door 2

pub use any::AnyStore;
pub use batch::{Appended, Batch, Committed, Limits, Op};
pub use clock::{Clock, ManualClock, SystemClock};
pub use draft::{Draft, begin_draft, finish_draft};
pub use error::{BoxError, Conflict, Error, ErrorKind, Found, Result, RetryHint};
pub use ext::{MergedRecord, StoreExt};
pub use index::StateIndex;
pub use log::{Comparison, Event, ExpectStream, Filter, Metadata, NewEvent, Read, Scalar, Slice, Source};
pub use memory::MemoryStore;
pub use partition::{Namespace, Partition, partition_index};
pub use queue::{Hold, Job, JobPage, Jobs, Lease, Leased, LeasedJob, Merge, Pending, Token};
pub use record::{Expect, Key, Order, Record, RecordPage, Scan, Version};
pub use signal::{Signal, SignalHub, Signals};
pub use store::{Durability, Store, StoreInfo, Writers};
pub use time::Timestamp;
pub use tx::{Loan, Session, Transactional, Tx};
