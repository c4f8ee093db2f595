//! What an operator sees; the table of it is in the crate's documentation.

use std::borrow::Cow;

use evenkeel_core::Store;

use crate::Claim;
use crate::error::Result;

/// Counts what a claim came to.
pub(crate) fn claimed<S: Store + Clone>(result: &Result<Claim<S>>) {
    let outcome: Cow<'static, str> = match result {
        Ok(Claim::Run(_)) => "run".into(),
        Ok(Claim::Replay(_)) => "replay".into(),
        Err(error) => error.kind().to_string().into(),
    };
    tracing::Span::current().record("outcome", &*outcome);
    metrics::counter!("evenkeel_idempotency_claims_total", "outcome" => outcome).increment(1);
}

/// Counts how an attempt ended: as `wanted`, or with an error.
pub(crate) fn ended<T>(wanted: &'static str, result: Result<T>) -> Result<T> {
    let outcome: Cow<'static, str> = match &result {
        Ok(_) => wanted.into(),
        Err(error) => error.kind().to_string().into(),
    };
    metrics::counter!("evenkeel_idempotency_attempts_total", "outcome" => outcome).increment(1);
    result
}
