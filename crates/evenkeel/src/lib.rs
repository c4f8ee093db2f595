//! A service keeps its promises through retries, crashes and lag, on the database the team already
//! runs.
//!
//! This crate names the others, each behind a feature.
//!
//! | module | feature | what it is |
//! |---|---|---|
//! | [`core`] | | the store contract, clocks, layers, and a store in memory |
//! | `idempotency` | `idempotency` (default) | requests run once; their retries get the stored answer |
//! | `choreograph` | `choreograph` | named steps, in memory or durable, that carry on after a crash |
//! | `projections` | `projections` | read models that are exactly right after any crash |
//! | `flare` | `flare` | documents are published, and subscribers told when theirs changed |
//! | `memory` | `memory` | keeps everything in the process, for tests |
//! | `sqlite` | `sqlite` | keeps everything in an embedded SQLite file |
//! | `pg` | `pg` | keeps everything in PostgreSQL |
//! | `dynamo` | `dynamo` | keeps everything in a DynamoDB table |
//! | `redis` | `redis` | keeps everything in Redis or Valkey, alone or in a cluster |
//! | `axum` | `axum` | a tower layer and axum extractors |
//!
//! [`open`] takes any of the stores by its URL, so that one environment variable moves an
//! application from one to another.

mod open; // any store by its URL

#[cfg(feature = "axum")]
pub use evenkeel_web_axum as axum;

#[cfg(feature = "choreograph")]
pub use evenkeel_choreograph as choreograph;
pub use evenkeel_core as core;
#[cfg(feature = "flare")]
pub use evenkeel_flare as flare;
#[cfg(feature = "idempotency")]
pub use evenkeel_idempotency as idempotency;
#[cfg(feature = "projections")]
pub use evenkeel_projections as projections;
#[cfg(feature = "dynamo")]
pub use evenkeel_storage_dynamo as dynamo;
#[cfg(feature = "pg")]
pub use evenkeel_storage_pg as pg;
#[cfg(feature = "redis")]
pub use evenkeel_storage_redis as redis;
#[cfg(feature = "sqlite")]
pub use evenkeel_storage_sqlite as sqlite;
pub use open::open;

/// Keeps everything in the process: gone with the last handle, and for tests.
#[cfg(feature = "memory")]
pub mod memory {
    pub use evenkeel_core::MemoryStore;
}

/// The examples of the README, compiled.
#[cfg(all(doctest, feature = "axum", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
