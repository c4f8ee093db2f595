//! Change notification: publish documents, and subscribers are told when theirs changed.
//!
//! # Guarantees
//! - A document and the duty to tell its subscribers are one commit. What is told is the newest
//!   revision at the time of telling, so what waits for a subscriber never exceeds one delivery a
//!   document, however long it is down.
//! - Every subscriber is told of the newest revision of every document, at least once, and of none
//!   after a newer one.
//! - An attempt, what was told and the next try are one commit. After a crash between the answer and
//!   that commit the same message is sent again, with the same `webhook-id` and the same bytes.
//! - A subscriber that is dead or slow delays no other: each has a queue, a rate, a concurrency and a
//!   circuit breaker of its own.
//!
//! # Example
//! ```
//! use evenkeel_core::MemoryStore;
//! use evenkeel_flare::{Change, DocumentUrl, Flare, NewResource, Precondition, Published, Template};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let flare = Flare::new(MemoryStore::new());
//! let endpoint = Template::parse("https://api.example.com/orders/{order}")?;
//! flare.create_resource(NewResource { endpoint, change: Change::new("version", "")? }).await?;
//!
//! let order = DocumentUrl::parse("https://api.example.com/orders/17")?;
//! let published = flare.publish(&order, r#"{"version": 1}"#.into(), &Precondition::None).await?;
//! assert!(matches!(published, Published::Created(_)));
//! # Ok(())
//! # }
//! ```
//! Subscribe with [`Flare::subscribe`], and [run](Worker::run) a [`Worker`] that sends through a
//! [`net::Sender`]; consumers check messages with [`signing::verify`].

mod absolute; // what document URLs and templates have in common
mod attempt; // one try at telling a subscriber
mod catalog; // resources and subscriptions, remembered
mod decision; // what is told, as a table
mod delivery; // telling a subscriber, and recording it
mod document; // what is published
mod document_url; // where a document lives
mod envelope; // the body that is sent
mod express; // deliveries past the queue, where their pump runs here
mod field_path; // where a value is in a document
mod filter; // which documents a subscription is about
mod flare; // the handle and its settings
mod health; // how a subscription fares
mod inspect; // looking at deliveries and attempts, and replaying
mod interpolate; // wildcards in URLs, headers and data
mod joint; // committing as one what waits at the same moment
mod message; // what is sent
pub mod net; // sending, and where it is allowed to
mod pace; // so many a second
mod ping; // a test message
mod places; // where everything is kept
mod plan; // a subscription, read once
mod publish; // keeping a document, and the duty to tell of it
mod pull; // messages that are fetched
mod pump; // the deliveries of one subscription
mod recent; // what was published last
mod reseal; // secrets under the newest key
mod resource; // kinds of documents
mod resources; // creating and deleting them
mod retry_policy; // when what failed is tried again
mod revision; // which of two documents is newer
mod routes; // which resource a document belongs to
pub mod signing; // who sent it
mod subscription; // who wants to hear, and how
mod subscriptions; // creating, changing and ending them
mod task; // work that one commit cannot hold
mod tasks; // doing it a page at a time
mod template; // the documents' URLs
mod time_layout; // revisions that are times
mod told; // what a subscriber knows
mod wildcard; // names in braces
mod worker; // what makes the deliveries

pub use attempt::{Attempt, Failure, Outcome};
pub use document::Document;
pub use document_url::DocumentUrl;
pub use envelope::{Action, DataScalar, DataValue};
pub use filter::Filter;
pub use flare::Flare;
pub use health::{Health, Notice, NoticeKind, Status};
pub use inspect::{AttemptFilter, Counts, DeliveryState, Page, Waiting};
pub use ping::Ping;
pub use publish::{Precondition, Published};
pub use pull::{Pulled, Receipt};
pub use reseal::{Resealed, Unsealable};
pub use resource::{NewResource, Resource};
pub use retry_policy::{Progression, RetryPolicy};
pub use revision::{Change, Revision};
pub use subscription::{
    ActionEndpoint, Actions, Backfill, Content, DeliveryPolicy, Endpoint, Mode, NewSubscription, Subscription,
};
pub use subscriptions::GRACE;
pub use template::{Captures, Template};
pub use told::{Failing, Last, Told};
pub use worker::Worker;
