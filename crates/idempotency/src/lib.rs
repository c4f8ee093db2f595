//! Requests run once; their retries get the stored answer.
//!
//! # Guarantees
//! - Of simultaneous claims in any number of processes, exactly one owns the operation.
//! - A finished operation replays until its record expires; a failed one may run again at once.
//! - An owner that lost its lease cannot finish, and its writes through door 2 roll back with it.
//! - In [`run_tx`](Idempotency::run_tx) the user's writes and the stored answer are one commit.
//! - A repetition that asks for something else is a mismatch, whatever became of the first.
//!
//! # Example
//! ```
//! use evenkeel_core::{Expect, Key, MemoryStore};
//! use evenkeel_idempotency::{Idempotency, Operation, Scope};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idempotency = Idempotency::new(MemoryStore::new());
//! for replayed in [false, true] {
//!     let charge = Operation::new(Scope::Principal("tenant-a".into()), "charge", "key-1").payload("100 EUR");
//!     let outcome = idempotency
//!         .run_tx(charge, async |mut tx| {
//!             tx.batch().put(Key::new("shop.charge", "all", "17"), "100 EUR", Expect::Absent);
//!             Ok::<_, evenkeel_core::Error>(17)
//!         })
//!         .await?;
//!     assert_eq!((outcome.value, outcome.replayed), (17, replayed));
//! }
//! # Ok(()) }
//! ```
#![doc = include_str!("../docs/reference.md")]

mod admin; // what an operator can see and do
mod claim; // who may run
mod decision; // what becomes of an arrival
mod detached; // what outlives its caller
mod ending; // how an attempt ends
mod engine; // the handle and its settings
mod error; // what can go wrong
mod fingerprint; // what a request asks for
mod guard; // the right to run
mod keeper; // renewal of leases
mod maintenance; // housekeeping
mod observe; // what an operator sees of it
mod offload; // answers in a second store
mod operation; // what is being run
mod ownership; // an attempt of this process
mod record; // what is written and read back
mod run; // closures that run once
mod send; // commits that are sure
mod state; // what is stored
mod waiters; // those who wait in this process

pub use admin::RunningPage;
pub use claim::Claim;
pub use engine::Idempotency;
pub use error::{Error, ErrorKind, Result, RunError};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use guard::{Guard, Lapse};
pub use maintenance::{Maintained, Maintenance, OnExpired};
pub use operation::{Identity, OnInterrupted, OnRunning, Operation, Scope};
pub use run::Outcome;
pub use state::{Answer, Content, Ending, Status, Tracked};
