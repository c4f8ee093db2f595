use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use evenkeel_idempotency::Error;
use http::request::Parts;

use crate::Problem;
use crate::problem::Kind;

/// The transaction that is committed with the handler's answer: an axum extractor.
///
/// `C` is the store's connection: `sqlx::SqliteConnection` for SQLite, `evenkeel_core::Draft` for
/// the memory store and any erased one. The transaction begins where a handler asks for it, its
/// connection is taken at the first `conn()`. The handler drops it, or lets it go out of scope,
/// before it answers.
///
/// ```
/// use evenkeel_core::{Draft, NewEvent};
/// use evenkeel_web_axum::Tx;
///
/// async fn charge(Tx(mut tx): Tx<Draft>) -> &'static str {
///     let now = tx.batch().now();
///     tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
///     "charged"
/// }
/// ```
#[derive(Debug)]
pub struct Tx<C: 'static>(pub evenkeel_core::Tx<C>);

impl<C: Send + 'static, S: Send + Sync> FromRequestParts<S> for Tx<C> {
    type Rejection = TxRejection;

    /// # Errors
    /// See [`TxRejection`]; its response is a problem with status 500, but for 503 where the store
    /// failed.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TxRejection> {
        match (parts.extensions.get::<Offer<C>>(), parts.extensions.get::<Passage>()) {
            (Some(Offer(offer)), _) => Arc::clone(offer).begin().await.map(Self),
            (None, Some(Passage::Protected)) => {
                Err(TxRejection::OtherConnection { wanted: std::any::type_name::<C>() })
            }
            (None, Some(Passage::Unprotected)) => Err(TxRejection::Unprotected),
            (None, None) => Err(TxRejection::NoLayer),
        }
    }
}

/// Why a handler cannot have its [`Tx`].
#[derive(Debug)]
#[non_exhaustive]
pub enum TxRejection {
    /// No [`IdempotencyLayer`](crate::IdempotencyLayer) is in front of the handler.
    NoLayer,
    /// The layer let the request through without protecting it.
    Unprotected,
    /// The layer's store has another type of connection.
    OtherConnection {
        /// The type asked for.
        wanted: &'static str,
    },
    /// It was extracted before.
    Taken,
    /// The request was answered already.
    Over,
    /// The store failed.
    Failed(Error),
}

impl fmt::Display for TxRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLayer => f.write_str("no idempotency layer is in front of the handler"),
            Self::Unprotected => {
                f.write_str("the request is not protected: its method is not, or it has no key")
            }
            Self::OtherConnection { wanted } => {
                write!(f, "the idempotency layer's store has no connection of type {wanted}")
            }
            Self::Taken => f.write_str("the transaction was extracted before"),
            Self::Over => f.write_str("the request was answered already"),
            Self::Failed(error) => write!(f, "the store failed: {error}"),
        }
    }
}

impl std::error::Error for TxRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::NoLayer | Self::Unprotected | Self::OtherConnection { .. } | Self::Taken | Self::Over => {
                None
            }
        }
    }
}

impl IntoResponse for TxRejection {
    fn into_response(self) -> Response {
        match &self {
            Self::Failed(error) => Problem::from(error).into_response(),
            _ => Problem::new(Kind::TransactionRefused, self.to_string()).into_response(),
        }
    }
}

/// A transaction to be had, for whoever finds it among a request's extensions.
pub(crate) struct Offer<C>(pub(crate) Arc<dyn Begin<C>>);

impl<C> Clone for Offer<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[async_trait]
pub(crate) trait Begin<C>: Send + Sync {
    async fn begin(&self) -> Result<evenkeel_core::Tx<C>, TxRejection>;
}

/// What became of a request at the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Protected,
    Unprotected,
}
