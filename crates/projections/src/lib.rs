//! Read models that are exactly right after any crash.
//!
//! # Guarantees
//! - A read model's writes and the version they bring it to are one commit: both, or neither.
//! - Of simultaneous updates from the same version, in any number of processes, exactly one
//!   succeeds.
//!
//! # Example
//! ```
//! use evenkeel_core::{Expect, Key, MemoryStore};
//! use evenkeel_projections::ResourceVersions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let balances = ResourceVersions::new(MemoryStore::new(), "balances");
//! let seen = balances.version("account-7").await?;
//! let write = balances.update_with("account-7", &seen, b"1", async |mut tx| {
//!     tx.batch().put(Key::new("bank.balance", "all", "7"), "100 EUR", Expect::Any);
//!     Ok::<_, evenkeel_core::Error>(())
//! });
//! assert!(write.await?);
//! assert!(!balances.update("account-7", &seen, b"2").await?, "it is at version 1 by now");
//! # Ok(())
//! # }
//! ```

mod resource_versions; // read models that carry their version

pub use resource_versions::ResourceVersions;
