//! evenkeel's store contract on PostgreSQL 14 and later.
//!
//! # Guarantees
//! - A batch costs one round trip: one call of a function that locks, judges and writes. Commits that
//!   wait at the same moment in a process share a call, each with its own verdict.
//! - Positions have no gaps and become visible in their order, whatever other transactions stay open
//!   in the server and for how long.
//! - Any number of processes may use and open one store. Nothing about what is stored is kept in
//!   memory.
//! - A commit that returned survives a crash of the server where its `fsync` and `synchronous_commit`
//!   are on; [`StoreInfo::durability`](evenkeel_core::StoreInfo) says whether they are.
//! - [Unsynced](evenkeel_core::Batch::set_unsynced) batches are committed with `synchronous_commit` off
//!   where no synced one shares their call; through door 2 that goes for the user's rows too. A
//!   transaction that the user owns is synced as the user has set it.
//! - Through door 2 the user's own SQL joins the commit: on a live [`sqlx::PgConnection`], or in a
//!   transaction that the user owns ([`PgStore::commit_with`]).
//!
//! # Example
//! ```no_run
//! use evenkeel_core::{Batch, Clock, Expect, Key, Store, StoreExt, SystemClock, Transactional};
//! use evenkeel_storage_pg::PgStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PgStore::open("pg://shop@localhost/shop").await?;
//! let mut tx = store.begin(store.partition_of("order-17"), SystemClock.now()).await?;
//! sqlx::query("INSERT INTO orders (id) VALUES ('17')").execute(&mut *tx.conn().await?).await?;
//! tx.batch().put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent);
//! store.finish(tx).await?; // the row and the record, or neither
//! # Ok(())
//! # }
//! ```

mod call; // the arguments of the commit function
mod commit; // folds, and what became of them
mod config; // what can be set
mod connections; // connections, used again at once
mod database; // sending statements
mod error; // PostgreSQL's errors as evenkeel's
mod migrate; // the schema
mod queue; // leasing
mod read; // queries
mod rows; // rows as values of the contract
mod signals; // hints between processes
mod statement; // prepared, or spelled out
mod store; // the contract
mod sweep; // reclaiming
mod tx; // door 2

pub use config::PgConfig;
pub use store::PgStore;
