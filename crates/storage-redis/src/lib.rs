//! evenkeel's store contract on Redis 7 and Valkey: one server, or a cluster.
//!
//! # Guarantees
//! - A commit is one call of one script: all of it or nothing, whoever else writes. Commits that wait
//!   at the same moment share the call, each with its own verdict.
//! - A command whose answer was lost is never sent again by itself: a commit is then `OutcomeUnknown`.
//! - Every key of a partition is in one hash tag, so a cluster serves each partition from one server.
//! - Through door 2 the user's own commands join the commit ([`RedisWrites`]).
//! - What an acknowledged commit outlives is up to the server's settings, for an
//!   [unsynced](evenkeel_core::Batch::set_unsynced) batch as for any:
//!
//! | `appendonly`, `appendfsync` | the server's process | its machine | fail-over to a replica |
//! |---|---|---|---|
//! | `yes`, `always` | outlives | outlives | [may lose the latest](RedisConfig::wait_replicas) |
//! | `yes`, `everysec` (as it comes) | outlives | may lose a second | may lose the latest |
//! | `yes`, `no` | outlives | may lose half a minute | may lose the latest |
//! | `no` | loses all since the last snapshot | loses the same | may lose the latest |
//!
//! With `wait_replicas(n, ..)` a commit is acknowledged once `n` replicas have it in memory, with
//! `wait_aof(n, ..)` once they and the server have it on disk. A fail-over may still choose a replica
//! that was not among them.
//!
//! # Example
//! ```no_run
//! use evenkeel_core::{Clock, Expect, Key, StoreExt, SystemClock, Transactional};
//! use evenkeel_storage_redis::RedisStore;
//!
//! # #[tokio::main]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let store = RedisStore::open("redis://localhost").await?; // or "redis+cluster://a:6379,b:6379"
//! let mut tx = store.begin(store.partition_of("order-17"), SystemClock.now()).await?;
//! tx.conn().await?.incr_by("stock:17", -1);
//! tx.batch().put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent);
//! store.finish(tx).await?; // the stock and the record, or neither
//! # Ok(())
//! # }
//! ```

mod commit; // a fold of commits as one call of a script
mod config; // what can be set
mod error; // redis' errors as evenkeel's
mod format; // what the store is, and whether the servers can keep it
mod keys; // the keys of a partition
mod queue; // leasing
mod read; // looking at what is stored
mod rows; // values of the contract as bytes
mod script; // the scripts in lua/, and calls of them
mod server; // one server and the connection to it
mod servers; // which server keeps which partition
mod signals; // hints from other processes
mod store; // the contract
mod sweep; // reclaiming
mod tx; // door 2
mod writes; // the user's own commands

pub use config::RedisConfig;
pub use store::RedisStore;
pub use writes::RedisWrites;
