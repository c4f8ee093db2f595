//! Idempotent requests for axum, hyper and any other tower stack; as features `flare`,
//! `choreograph` and `projections`, their HTTP APIs.
//!
//! # Guarantees
//! - A protected request runs once; its retries get status, headers and body as they were.
//! - What a handler writes through its [`Tx`] is committed with the answer, or not at all.
//! - A client that goes away undoes nothing. A handler that panics is recorded, and may run again.
//! - Bad input is a [`Problem`] (RFC 9457), never a panic, and never silently unprotected.
//!
//! # Example
//! ```
//! use axum::{Router, routing::post};
//! use evenkeel_core::{Draft, MemoryStore, NewEvent};
//! use evenkeel_idempotency::{Idempotency, Scope};
//! use evenkeel_web_axum::{IdempotencyLayer, Tx, value};
//!
//! async fn charge(Tx(mut tx): Tx<Draft>, amount: String) -> String {
//!     let now = tx.batch().now();
//!     tx.batch().append_any("charges", [NewEvent::new("Charged", amount.clone(), now)]);
//!     format!("charged {amount}")
//! }
//!
//! let once = IdempotencyLayer::new(Idempotency::new(MemoryStore::new()), value(Scope::Global));
//! let app: Router = Router::new().route("/charges", post(charge).layer(once));
//! ```
#![doc = include_str!("../docs/defaults.md")]

#[cfg(feature = "api")]
pub mod access; // who may call what
mod answer; // how answers are kept
#[cfg(feature = "choreograph")]
mod as_run; // requests that are runs
mod body; // bodies read in part
mod carry; // what outlives its caller
#[cfg(feature = "choreograph")]
pub mod choreograph; // runs over HTTP
mod duration; // durations in headers
mod engine; // any store, erased
#[cfg(feature = "flare")]
pub mod flare; // documents, resources and subscriptions over HTTP
mod headers; // keys and times in headers
mod layer; // the layer and its configuration
#[cfg(feature = "api")]
pub mod openapi; // the routes, described
#[cfg(feature = "api")]
pub mod operations; // what an operator sees and does
#[cfg(feature = "api")]
mod page; // parts of lists
pub mod payload;
mod problem; // errors as responses
#[cfg(feature = "projections")]
pub mod projections; // events and read models over HTTP
#[cfg(feature = "api")]
mod request; // what handlers take of a request
#[cfg(feature = "api")]
mod routes; // tables of routes, described and guarded
mod service; // from request to answer
mod settings; // what can be configured
mod tx; // the handler's transaction

#[cfg(feature = "choreograph")]
pub use as_run::AsRun;
pub use body::Body;
pub use layer::IdempotencyLayer;
pub use problem::Problem;
pub use service::IdempotencyService;
pub use settings::{Cookies, Finality, KeySyntax, MissingKey, OnUnavailable, value};
pub use tx::{Tx, TxRejection};
