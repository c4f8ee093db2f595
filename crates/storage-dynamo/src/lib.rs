//! evenkeel's store contract on DynamoDB: where a team has its data there already, or wants its
//! scale without servers.
//!
//! # Guarantees
//! - A commit that returned is on several machines, an
//!   [unsynced](evenkeel_core::Batch::set_unsynced) one too; it is one transaction, or one item.
//! - It costs one round trip where what it expects is so, and also where one expectation is not:
//!   to claim, or to see who has it.
//! - Nothing is decided on what a cache or the index says, which names candidates for leases and sweeps.
//! - A commit whose answer is lost is sent again where it would be recognised, for nine minutes at
//!   most; where its outcome stays unknown, the error says so.
//! - Through door 2 the user's own items join the commit ([`DynamoWrites`]).
//!
//! Global tables are not supported. More, and the costs: `docs/design.md`.
//!
//! # Example
//! ```no_run
//! use evenkeel_core::{Batch, Clock, Expect, Key, Store, StoreExt, SystemClock};
//! use evenkeel_storage_dynamo::{DynamoConfig, TableOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let config = DynamoConfig::new("dynamo://shop?region=eu-central-1")?;
//! config.create_table(&TableOptions::new()).await?;
//! let store = config.open().await?;
//! let mut batch = Batch::new(store.partition_of("order-17"), SystemClock.now());
//! batch.put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent);
//! store.commit(batch).await?;
//! # Ok(())
//! # }
//! ```

mod apart; // payloads with items of their own
mod bases; // how items are taken to stand
mod client; // requests, as this store makes them
mod commit; // assume, judge, write, learn, repeat
mod config; // what can be set
mod decorate; // what the user adds to requests
mod error; // DynamoDB's errors as evenkeel's
mod hints; // what is worth a guess
mod identity; // what a table says that it is
mod keys; // where things are kept
mod knowledge; // what is known and what is assumed
mod pages; // events as items
mod queue; // leasing
mod read; // consistent reads
mod rows; // items as values of the contract
mod store; // the contract
mod sweep; // reclaiming
mod table; // creating and deleting it
mod tx; // door 2
mod working_set; // the items that a fold judges and changes
mod write; // one item or several, each under its guard

pub use config::{DynamoConfig, Expiry};
pub use decorate::Decorate;
pub use store::DynamoStore;
pub use table::TableOptions;
pub use tx::{DynamoWrites, UserItemFailed};
