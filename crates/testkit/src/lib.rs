//! Proves that a store keeps evenkeel's contract, and makes trouble on purpose.
//!
//! - [`conformance!`] runs one case per sentence of the contract on a store, through both doors. A
//!   store cannot leave a case out; where its server is missing, the cases are ignored, or fail if
//!   `EVENKEEL_TEST_REQUIRE` is `all` or names the store, but never pass.
//! - [`idempotency_suite!`] runs one case per promise of `evenkeel-idempotency` on a store.
//! - [`choreograph_suite!`] does so for `evenkeel-choreograph`, [`projections_suite!`] for
//!   `evenkeel-projections`, [`flare_suite!`] for `evenkeel-flare`.
//! - [`Process`] is a process that a test may kill.
//! - [`server_tests!`] runs a store's own tests under the same rule; [`services`] has the servers.
//! - [`Chaos`] is a layer that fails calls, loses acknowledgements and kills the process at a
//!   chosen call, all from a seed.
//!
//! # Example
//! A test target with `harness = false`:
//! ```no_run
//! use std::time::Duration;
//!
//! use evenkeel_core::{MemoryStore, Result};
//! use evenkeel_testkit::Fixture;
//!
//! struct Memory;
//!
//! impl Fixture for Memory {
//!     type Store = MemoryStore;
//!
//!     fn name(&self) -> &'static str {
//!         "memory"
//!     }
//!
//!     async fn open(&self, partitions: u32, max_skew: Duration) -> Result<MemoryStore> {
//!         Ok(MemoryStore::with_partitions(partitions)?.max_skew(max_skew))
//!     }
//! }
//!
//! evenkeel_testkit::conformance!(Memory);
//! ```

mod capability; // what the suites of the capabilities share
mod cases; // what every store must do
mod chaos; // trouble from a seed
mod choreograph; // what the capability does on every store
mod door; // the ways into a store
mod fixture; // how a store takes part
mod flare; // what the capability does on every store
mod harness; // running the cases
mod idempotency; // what the capability does on every store
mod memory; // the memory store as a fixture
mod process; // a test's other processes
pub mod projections; // what the capability does on every store
pub mod services; // the servers that stores are tested on
mod tested; // the store as a case sees it
mod until; // waiting for other processes

pub use chaos::{Chaos, ChaosStore};
pub use door::{PassThrough, PassThroughStore, ViaTx};
pub use fixture::{Fixture, Hints, Latency};
pub use harness::Suite;
pub use memory::{Layered, Memory};
pub use process::Process;
pub use until::until;
