use axum::Json as Answer;
use axum::extract::{OriginalUri, State};
use axum::response::IntoResponse;
use evenkeel_flare::{self as flare, Template};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Service;
use crate::Problem;
use crate::page::{ListQuery, Pagination, Part, Time};
use crate::request::{Json, NoQuery, Path, Query};

/// Where a document says how new it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// A path of member names joined by dots.
    #[schema(example = "meta.version")]
    field: String,
    /// What is there: empty for a whole number, or `rfc3339`, `unix`, `unix_ms`, or a Go time layout
    /// such as `2006-01-02 15:04:05`.
    #[serde(default)]
    format: String,
}

/// A resource to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewResource {
    /// The URLs of its documents: absolute, with at least one `{wildcard}` that is a whole segment.
    #[schema(example = "https://api.example.com/orders/{order}")]
    endpoint: String,
    change: Change,
}

/// A kind of document: which URLs it has, and how to tell the newer of two.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resource {
    id: String,
    /// The URLs of its documents.
    endpoint: String,
    change: Change,
    created_at: Time,
}

/// A part of the list of resources, in the order of their creation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resources {
    resources: Vec<Resource>,
    pagination: Pagination,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<flare::Resource> for Resource {
    fn from(resource: flare::Resource) -> Self {
        let flare::Resource { id, endpoint, change, created_at, .. } = resource;
        let change = Change { field: change.field().to_owned(), format: change.format().to_owned() };
        Self { id, endpoint: endpoint.as_str().to_owned(), change, created_at: created_at.into() }
    }
}

/// Lists the resources
#[utoipa::path(get, path = "/resources", tag = "resources", params(ListQuery),
    responses((status = 200, body = Resources)))]
pub(crate) async fn list_resources(
    State(service): State<Service>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Resources>, Problem> {
    let Part { items, pagination, next_cursor } =
        Part::of(service.flare.resources().await?, query, |resource| &resource.id)?;
    let resources = items.into_iter().map(Resource::from).collect();
    Ok(Answer(Resources { resources, pagination, next_cursor }))
}

/// Creates a resource
///
/// 409 where another resource has the same documents, whatever it calls its wildcards.
#[utoipa::path(post, path = "/resources", tag = "resources", request_body = NewResource,
    responses((status = 201, body = Resource, headers(("Location" = String, description = "The resource")))))]
pub(crate) async fn create_resource(
    State(service): State<Service>,
    OriginalUri(uri): OriginalUri,
    _: NoQuery,
    Json(NewResource { endpoint, change }): Json<NewResource>,
) -> Result<impl IntoResponse, Problem> {
    let change = flare::Change::new(&change.field, &change.format)?;
    let new = flare::NewResource { endpoint: Template::parse(&endpoint)?, change };
    let resource = Resource::from(service.flare.create_resource(new).await?);
    let location = format!("{}/{}", uri.path(), resource.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Answer(resource)))
}

/// Shows a resource
#[utoipa::path(get, path = "/resources/{id}", tag = "resources", params(("id" = String, Path)),
    responses((status = 200, body = Resource)))]
pub(crate) async fn show_resource(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<Answer<Resource>, Problem> {
    Ok(Answer(service.flare.resource(&id).await?.into()))
}

/// Deletes a resource and its documents
///
/// 409 where it has subscriptions.
#[utoipa::path(delete, path = "/resources/{id}", tag = "resources", params(("id" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn delete_resource(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    service.flare.delete_resource(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
