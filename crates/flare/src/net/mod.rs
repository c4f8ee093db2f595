//! Sending, and where it is allowed to.
//!
//! # Guarantees
//! - What is connected to is an address that [`AddressPolicy`] judged, whether the URL named it or
//!   a DNS server did; nothing is looked up a second time.
//! - An answer is final: redirects are reported, never followed.
//! - A request ends, one way or another, within the [`Sender`]'s time limit, and costs bounded
//!   memory whatever the peer sends.
//! - Nothing that may have reached the peer is sent a second time: sending again is the caller's
//!   decision.
//!
//! # Example
//! ```
//! use evenkeel_flare::net::{Outgoing, Sender, Transport, target};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> evenkeel_core::Result<()> {
//! let sender = Sender::builder().build()?;
//! let hook = Outgoing {
//!     method: http::Method::POST,
//!     uri: target("http://169.254.169.254/latest/meta-data")?,
//!     headers: http::HeaderMap::new(),
//!     body: "{}".into(),
//! };
//! let error = sender.send(hook).await.unwrap_err();
//! assert_eq!(error.to_string(), "address 169.254.169.254 is refused: link-local");
//! # Ok(())
//! # }
//! ```

mod address; // where requests may go
mod connector; // connections to judged addresses
mod error; // why there was no answer
mod headers; // what subscriptions may set
mod message; // what is sent and answered
mod resolve; // names and their addresses
mod sender; // requests over HTTP

#[cfg(test)]
mod tests; // the sender against peers that misbehave

use std::fmt::Debug;

use async_trait::async_trait;

pub use address::{AddressPolicy, Refused};
pub use error::{SendError, Waiting};
pub use headers::{check_header_name, check_header_value};
pub use message::{Outgoing, Reply, target};
pub use resolve::{Resolve, SystemResolver};
pub use sender::{Sender, SenderBuilder};

/// Takes a request to its target: a [`Sender`], or a script in tests.
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// Sends one request and waits for its answer.
    ///
    /// # Behavior
    /// - Any status is a [`Reply`]; an error means that there was no complete answer, and says
    ///   nothing about whether the target acted on the request.
    /// - Dropping the future abandons the request.
    ///
    /// # Errors
    /// Why there was no answer.
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError>;
}
