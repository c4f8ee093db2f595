//! What handlers take of a request. Each refuses with a [`Problem`].

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Problem;
use crate::problem::Kind;

/// The body as it is.
pub(crate) struct Payload(pub(crate) Bytes);

/// The body as JSON, whatever its media type.
pub(crate) struct Json<T>(pub(crate) T);

/// The body as JSON, or the default where there is none or `null`.
#[cfg(any(feature = "choreograph", feature = "flare"))]
pub(crate) struct JsonOrDefault<T>(pub(crate) T);

/// The query's parameters.
pub(crate) struct Query<T>(pub(crate) T);

/// That the query has no parameters.
pub(crate) struct NoQuery;

/// The path's parameters, decoded.
#[cfg(any(feature = "choreograph", feature = "flare", feature = "projections"))]
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) => {
                let (status, detail) = (rejection.status(), rejection.body_text());
                match status {
                    StatusCode::PAYLOAD_TOO_LARGE => Err(Problem::new(
                        Kind::BodyTooLarge,
                        "the body is larger than this service takes, and was not processed",
                    )),
                    _ => Err(Problem::new(Kind::BodyUnreadable, detail)),
                }
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let Payload(body) = Payload::from_request(request, state).await?;
        read_json(&body).map(Self)
    }
}

#[cfg(any(feature = "choreograph", feature = "flare"))]
impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for JsonOrDefault<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let Payload(body) = Payload::from_request(request, state).await?;
        let read = if body.is_empty() { None } else { read_json(&body)? };
        Ok(Self(read.unwrap_or_default()))
    }
}

/// Reads JSON that has nothing but what `T` knows.
pub(crate) fn read_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| Problem::bad_request(format!("the json cannot be read at {error}")))?;
    reader.end().map_err(|error| Problem::bad_request(format!("the json cannot be read: {error}")))?;
    Ok(value)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
                Err(Problem::bad_request(format!("the query cannot be read: {reason}")))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}

        let Query(Nothing {}) = Query::from_request_parts(parts, state).await?;
        Ok(Self)
    }
}

#[cfg(any(feature = "choreograph", feature = "flare", feature = "projections"))]
impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => {
                let status = rejection.status();
                Err(if status.is_server_error() {
                    Problem::new(Kind::Failed, Kind::Failed.advice())
                } else {
                    Problem::bad_request("the path is not UTF-8 once it is decoded")
                })
            }
        }
    }
}
