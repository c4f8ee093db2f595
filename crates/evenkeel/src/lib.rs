//! A service keeps its promises through retries, crashes and lag, on the database the team already
//! runs.
//!
//! This crate has no logic: it names the others, each behind a feature.
//!
//! | module | feature | what it is |
//! |---|---|---|
//! | [`core`] | | the store contract, clocks, layers, and a store in memory |
//! | `idempotency` | `idempotency` (default) | requests run once; their retries get the stored answer |
//! | `sqlite` | `sqlite` | keeps everything in an embedded SQLite file |
//! | `axum` | `axum` | a tower layer and axum extractors |

#[cfg(feature = "axum")]
pub use evenkeel_web_axum as axum;

pub use evenkeel_core as core;
#[cfg(feature = "idempotency")]
pub use evenkeel_idempotency as idempotency;
#[cfg(feature = "sqlite")]
pub use evenkeel_storage_sqlite as sqlite;

/// The examples of the README, compiled.
#[cfg(all(doctest, feature = "axum", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
