//! evenkeel's store contract on SQLite: the embedded default.
//!
//! # Guarantees
//! - A commit that returned survives a crash of the machine (`synchronous=FULL` in WAL mode) unless
//!   [`SqliteConfig::synchronous`] trades that away, or the batch
//!   ([`set_unsynced`](evenkeel_core::Batch::set_unsynced)): such a commit is on disk with the next one
//!   that is not. Where several share a transaction, all of them must be so. In
//!   [`commit_with`](SqliteStore::commit_with) it is as the user's own connection is set.
//! - Commits that wait at the same moment share one transaction, each with its own verdict.
//! - Any number of processes may use one file. Nothing about what is stored is kept in memory.
//! - Through door 2 the user's own SQL joins the commit: on a live [`sqlx::SqliteConnection`], or in
//!   a transaction that the user owns ([`SqliteStore::commit_with`]).
//!
//! # Example
//! ```
//! use evenkeel_core::{Batch, Clock, Expect, Key, Store, StoreExt, SystemClock, Transactional};
//! use evenkeel_storage_sqlite::SqliteStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = SqliteStore::open("sqlite::memory:").await?; // or "sqlite://shop.db"
//! let mut tx = store.begin(store.partition_of("order-17"), SystemClock.now()).await?;
//! sqlx::query("CREATE TABLE orders (id TEXT)").execute(&mut *tx.conn().await?).await?;
//! tx.batch().put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent);
//! store.finish(tx).await?; // the table and the record, or neither
//! # Ok(())
//! # }
//! ```

mod config; // what can be set
mod error; // SQLite's errors as evenkeel's
mod hold; // the writing connection in a user's hands
mod migrate; // the schema
mod queue; // leasing
mod read; // queries
mod readers; // the threads that run them
mod rows; // rows as values of the contract
mod sql; // SQL on either kind of connection
mod store; // the contract
mod sweep; // reclaiming
mod tx; // door 2
mod working_set; // the rows that a fold judges and changes
mod writer; // the one thread that writes, and folds

pub use config::{SqliteConfig, Synchronous};
pub use store::SqliteStore;
