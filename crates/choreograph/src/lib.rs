//! Named steps with a pre-check and a job, in memory or durable, resumed after a crash.
//!
//! # Guarantees
//! - In a durable run a finished step never runs again: its value and the decision to go on are one
//!   commit. One that was cut off is probed, run again or parked, as it says.
//! - A worker that lost its lease records nothing. Retries, sleeps and waits survive a restart.
//! - A transactional step's own writes, the events among them, are one commit with its record.
//! - What finished is taken back in reverse order where the run fails or is cancelled.
//! - In memory the same definition runs as it is: no store, and nothing is serialised.
//!
//! # Example
//! ```
//! use evenkeel_choreograph::{Choreographer, Definition, RunState, StepKey};
//! use evenkeel_core::MemoryStore;
//!
//! const RESERVE: StepKey<u32, String> = StepKey::new("reserve");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let checkout = Definition::<u32>::builder("checkout")
//!     .step(RESERVE, async |ctx| Ok::<_, std::io::Error>(ctx.input() + 1))
//!     .pre_check(async |_| Ok::<_, std::io::Error>("in stock".to_owned()))
//!     .compensate(async |_| Ok::<_, std::io::Error>(()))
//!     .retry(5)
//!     .build()?;
//! assert_eq!(*checkout.run(16).await.get(RESERVE).unwrap(), 17);
//!
//! let choreographer = Choreographer::new(MemoryStore::new());
//! choreographer.register(checkout)?;
//! choreographer.start("checkout", "order-17", &16).await?;
//! tokio::spawn(choreographer.worker().run(std::future::pending()));
//! assert_eq!(choreographer.outcome("order-17").await?.state, RunState::Completed);
//! # Ok(()) }
//! ```
#![doc = include_str!("../docs/reference.md")]

mod attempt; // one try at a callback
mod bag; // what the steps found and made
mod builder; // putting a definition together
mod callback; // what a user hands in
mod cancellation; // being asked to stop
mod context; // what a callback is given
mod definition; // named steps
mod durable; // runs that outlive their process
mod error; // why a step has no value
mod key; // names with types
mod many; // many inputs at once
mod memory; // runs in memory
mod mermaid; // a picture of a definition
mod observe; // what an operator sees of it
mod outcome; // what came of a run
mod plan; // a definition without its types
mod policy; // when to try again, and what to do when in doubt
mod timeline; // a picture of a run

pub use builder::{Builder, Items, Pause, Start, Step};
pub use callback::{Check, Skip, Work};
pub use cancellation::Cancellation;
pub use context::StepContext;
pub use definition::{Definition, Portable};
pub use durable::{
    ChildOutcome, Choreographer, Entry, Event, Registration, Run, RunFilter, RunPage, RunSummary, Started,
    Worker,
};
pub use error::{Phase, StepError, StepErrorKind};
pub use key::{StepKey, Value};
pub use many::RunMany;
pub use outcome::{Outcome, RunState};
pub use policy::{Join, OnInterrupted, RetryPolicy, VersionPolicy};
pub use timeline::timeline_svg;
