use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use evenkeel_core::{Error, ErrorKind};
use evenkeel_flare::{Document, DocumentUrl, Precondition, Published};
use http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, StatusCode, Uri};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Serialize;
use utoipa::ToSchema;

use super::precondition::{entity_tag, is_known, precondition};
use super::{Service, document_url};
use crate::Problem;
use crate::page::Time;
use crate::problem::Kind;
use crate::request::{NoQuery, Payload};

/// What became of a publication or deletion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    /// The document's URL, normalised.
    url: String,
    /// What is stored now; of a deleted document, what is remembered.
    revision: i64,
    updated_at: Time,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It did not live before.
    Created,
    /// It is newer than what was there.
    Updated,
    /// It is not newer than what is there, and changed nothing.
    Stale,
    /// It is gone.
    Deleted,
}

impl Accepted {
    fn of(document: &Document, outcome: Outcome) -> Self {
        let Document { url, revision, updated_at, .. } = document;
        Self { url: url.to_string(), revision: revision.get(), updated_at: Time(*updated_at), outcome }
    }

    fn into_response(self, document: &Document) -> Response {
        (StatusCode::ACCEPTED, [(ETAG, entity_tag(document.revision))], Answer(self)).into_response()
    }
}

impl From<&Published> for Accepted {
    fn from(published: &Published) -> Self {
        let outcome = match published {
            Published::Created(_) => Outcome::Created,
            Published::Updated(_) => Outcome::Updated,
            _ => Outcome::Stale,
        };
        Self::of(published.document(), outcome)
    }
}

/// Reads a document
///
/// Byte for byte as it was published. 304 where `If-None-Match` has its entity tag.
#[utoipa::path(get, path = "/documents/{*url}", tag = "documents",
    params(("url" = String, Path, description = "The document's absolute URL, as it is or percent-encoded"),
        ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Object, headers(("ETag" = String), ("Last-Modified" = String))),
        (status = 304)))]
pub(crate) async fn read_document(
    State(service): State<Service>,
    uri: Uri,
    headers: HeaderMap,
    _: NoQuery,
) -> Result<Response, Problem> {
    let url = url_of(&uri)?;
    let document = service.flare.document(&url).await?.ok_or_else(|| no_document(&url))?;
    let tag = [(ETAG, entity_tag(document.revision))];
    if is_known(&headers, document.revision)? {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    let changed = DateTimePrinter::new().timestamp_to_rfc9110_string(&Time(document.updated_at).instant());
    let about = [(CONTENT_TYPE, "application/json".to_owned()), (LAST_MODIFIED, changed.unwrap_or_default())];
    Ok((tag, about, document.content.unwrap_or_default()).into_response())
}

/// Publishes a document
///
/// Its subscribers are told of it. One that is not newer than what is stored changes nothing and is
/// answered `stale`. 412 where `If-Match` or `If-None-Match` does not hold; entity tags are revisions.
#[utoipa::path(put, path = "/documents/{*url}", tag = "documents",
    params(("url" = String, Path, description = "The document's absolute URL, as it is or percent-encoded"),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    request_body = Object,
    responses((status = 202, body = Accepted, headers(("ETag" = String)))))]
pub(crate) async fn publish_document(
    State(service): State<Service>,
    uri: Uri,
    headers: HeaderMap,
    _: NoQuery,
    Payload(content): Payload,
) -> Result<Response, Problem> {
    let (url, precondition) = (url_of(&uri)?, precondition(&headers)?);
    let published = service.flare.publish(&url, content, &precondition).await;
    let published = published.map_err(|error| refusal(error, &precondition))?;
    Ok(Accepted::from(&published).into_response(published.document()))
}

/// Deletes a document
///
/// Subscribers that were told of it are told so. Its revision is remembered for a while, so that an
/// older publication does not bring it back.
#[utoipa::path(delete, path = "/documents/{*url}", tag = "documents",
    params(("url" = String, Path, description = "The document's absolute URL, as it is or percent-encoded"),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 202, body = Accepted)))]
pub(crate) async fn delete_document(
    State(service): State<Service>,
    uri: Uri,
    headers: HeaderMap,
    _: NoQuery,
) -> Result<Response, Problem> {
    let (url, precondition) = (url_of(&uri)?, precondition(&headers)?);
    let deleted = service.flare.delete_document(&url, &precondition).await;
    let deleted = deleted.map_err(|error| refusal(error, &precondition))?.ok_or_else(|| no_document(&url))?;
    Ok(Accepted::of(&deleted, Outcome::Deleted).into_response(&deleted))
}

/// What follows `/documents/`, which is not decoded yet.
fn url_of(uri: &Uri) -> Result<DocumentUrl, Problem> {
    let path = uri.path();
    document_url(path.strip_prefix("/documents/").unwrap_or(path))
}

/// Where there is a precondition, a conflict is that it does not hold.
fn refusal(error: Error, precondition: &Precondition) -> Problem {
    let is_precondition = error.kind() == ErrorKind::Conflict && *precondition != Precondition::None;
    let problem = Problem::from(error);
    if is_precondition { Problem::new(Kind::PreconditionFailed, problem.detail()) } else { problem }
}

fn no_document(url: &DocumentUrl) -> Problem {
    Problem::not_found(format!("there is no such document (url: {url})"))
}
