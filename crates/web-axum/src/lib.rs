//! Idempotent requests for axum, hyper and any other tower stack.
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
//!
//! # Defaults
//! | setting | default |
//! |---|---|
//! | key | `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07) or `X-Idempotency-Key`; required |
//! | methods | POST and PATCH |
//! | target | `[METHOD]/path` |
//! | fingerprint | method, target with query, and the body byte for byte |
//! | reference time | `X-Idempotency-Reference-Time` (RFC 3339), or the arrival |
//! | timeout, expiration | `X-Idempotency-Timeout`, `X-Idempotency-Expiration` (`10s`, `1h30m`), or those of [`Idempotency`](evenkeel_idempotency::Idempotency) |
//! | request body | at most 1 MiB, else 413 |
//! | answer | at most 1 MiB or what the store takes, else passed on and not stored |
//! | final answers | those of [`Finality::of`] |
//! | replayed headers | all but those of the connection, `Date`, `Server`, `Age`, `Set-Cookie`; trailers are not stored |
//! | store unavailable | 503 |

mod answer; // how answers are kept
mod body; // bodies read in part
mod carry; // what outlives its caller
mod duration; // durations in headers
mod engine; // any store, erased
mod headers; // keys and times in headers
mod layer; // the layer and its configuration
pub mod payload;
mod problem; // errors as responses
mod service; // from request to answer
mod settings; // what can be configured
mod tx; // the handler's transaction

pub use body::Body;
pub use layer::IdempotencyLayer;
pub use problem::Problem;
pub use service::IdempotencyService;
pub use settings::{Cookies, Finality, KeySyntax, MissingKey, OnUnavailable, value};
pub use tx::{Tx, TxRejection};
