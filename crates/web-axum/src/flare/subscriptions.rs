use std::time::Duration;

use axum::Json as Answer;
use axum::extract::{OriginalUri, State};
use axum::response::IntoResponse;
use evenkeel_flare::{self as flare, GRACE, Status};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::subscription::{NewSubscription, Subscription};
use super::{Service, document_url};
use crate::page::{ListQuery, Pagination, Part};
use crate::request::{Json, JsonOrDefault, NoQuery, Path, Query};
use crate::{Problem, headers};

/// A part of the list of a resource's subscriptions, in the order of their creation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscriptions {
    subscriptions: Vec<Subscription>,
    pagination: Pagination,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A secret to change over to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rotation {
    /// A `whsec_` or `whsk_` text; one is made where there is none.
    #[serde(default)]
    secret: Option<String>,
    /// For how long those before it sign beside it; a day unless said.
    #[serde(default)]
    grace_seconds: Option<u64>,
}

/// A secret in use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rotated {
    /// What signs the subscription's messages from now on; told only here.
    secret: String,
}

/// What is to be told once more: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replay {
    /// What was told last of this document.
    #[serde(default)]
    url: Option<String>,
    /// What was told at this time or later.
    #[serde(default)]
    #[schema(format = DateTime)]
    since: Option<String>,
}

/// Lists a resource's subscriptions
#[utoipa::path(get, path = "/resources/{id}/subscriptions", tag = "subscriptions",
    params(("id" = String, Path), ListQuery), responses((status = 200, body = Subscriptions)))]
pub(crate) async fn list_subscriptions(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Subscriptions>, Problem> {
    let all = service.flare.subscriptions(&id).await?;
    let Part { items, pagination, next_cursor } = Part::of(all, query, |subscription| &subscription.id)?;
    let subscriptions = items.into_iter().map(Subscription::from).collect();
    Ok(Answer(Subscriptions { subscriptions, pagination, next_cursor }))
}

/// Subscribes to a resource
///
/// Answers the secret that signs the messages, which is not told again: a retry with the same
/// idempotency key is answered 410. 409 where the resource has a subscription of the same URLs.
#[utoipa::path(post, path = "/resources/{id}/subscriptions", tag = "subscriptions",
    params(("id" = String, Path)), request_body = NewSubscription,
    responses((status = 201, body = Subscription, headers(("Location" = String, description = "The subscription")))))]
pub(crate) async fn subscribe(
    State(service): State<Service>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    _: NoQuery,
    Json(new): Json<NewSubscription>,
) -> Result<impl IntoResponse, Problem> {
    let (subscription, secret) = service.flare.subscribe(&id, new.try_into()?).await?;
    let location = format!("{}/{}", uri.path(), subscription.id);
    let mut subscription = Subscription::from(subscription);
    subscription.secret = Some(secret.to_string());
    Ok((StatusCode::CREATED, [(LOCATION, location)], Answer(subscription)))
}

/// Shows a subscription
#[utoipa::path(get, path = "/resources/{id}/subscriptions/{subscription}", tag = "subscriptions",
    params(("id" = String, Path), ("subscription" = String, Path)),
    responses((status = 200, body = Subscription)))]
pub(crate) async fn show_subscription(
    State(service): State<Service>,
    Path((resource, id)): Path<(String, String)>,
    _: NoQuery,
) -> Result<Answer<Subscription>, Problem> {
    Ok(Answer(subscription_of(&service, &resource, &id).await?.into()))
}

/// Ends a subscription
#[utoipa::path(delete, path = "/resources/{id}/subscriptions/{subscription}", tag = "subscriptions",
    params(("id" = String, Path), ("subscription" = String, Path)), responses((status = 204)))]
pub(crate) async fn unsubscribe(
    State(service): State<Service>,
    Path((resource, id)): Path<(String, String)>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    subscription_of(&service, &resource, &id).await?;
    service.flare.unsubscribe(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes no deliveries for now
///
/// What is published meanwhile waits, one delivery for each document.
#[utoipa::path(post, path = "/subscriptions/{id}/pause", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = Subscription)))]
pub(crate) async fn pause(service: State<Service>, id: Path<String>, _: NoQuery) -> Changed {
    set_status(service, id, Status::Paused).await
}

/// Makes deliveries again
///
/// Everything that waits falls due at once.
#[utoipa::path(post, path = "/subscriptions/{id}/resume", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = Subscription)))]
pub(crate) async fn resume(service: State<Service>, id: Path<String>, _: NoQuery) -> Changed {
    set_status(service, id, Status::Active).await
}

/// Makes no more deliveries
///
/// What is published waits, as in a pause.
#[utoipa::path(post, path = "/subscriptions/{id}/disable", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = Subscription)))]
pub(crate) async fn disable(service: State<Service>, id: Path<String>, _: NoQuery) -> Changed {
    set_status(service, id, Status::Disabled).await
}

/// Lets everything that waits fall due at once
///
/// Deliveries that are to be tried later, and those that were tried for the last time.
#[utoipa::path(post, path = "/subscriptions/{id}/recover", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 202)))]
pub(crate) async fn recover(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    service.flare.recover(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Replaces the secret that signs the messages
///
/// Answers the new one, which is not told again: a retry with the same idempotency key is answered
/// 410. Those before it sign beside it until the grace is over.
#[utoipa::path(post, path = "/subscriptions/{id}/rotate-secret", tag = "subscriptions",
    params(("id" = String, Path)), request_body = Option<Rotation>, responses((status = 200, body = Rotated)))]
pub(crate) async fn rotate_secret(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
    JsonOrDefault(rotation): JsonOrDefault<Rotation>,
) -> Result<Answer<Rotated>, Problem> {
    let secret = rotation.secret.map(|secret| secret.parse()).transpose()?;
    let grace = rotation.grace_seconds.map_or(GRACE, Duration::from_secs);
    let secret = service.flare.rotate_secret(&id, secret, grace).await?;
    Ok(Answer(Rotated { secret: secret.to_string() }))
}

/// Tells a subscriber once more
///
/// What it was told last of one document, with the same `webhook-id`, or of all those told since a
/// time. 404 where it was told nothing of the document.
#[utoipa::path(post, path = "/subscriptions/{id}/replay", tag = "subscriptions",
    params(("id" = String, Path)), request_body = Replay, responses((status = 202)))]
pub(crate) async fn replay(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
    Json(replay): Json<Replay>,
) -> Result<StatusCode, Problem> {
    match (replay.url, replay.since) {
        (Some(url), None) => {
            if !service.flare.replay(&id, &document_url(&url)?).await? {
                let detail =
                    format!("the subscriber was told nothing of this document (url: {})", url.escape_debug());
                return Err(Problem::not_found(detail));
            }
        }
        (None, Some(since)) => {
            let refusal = || format!("since {} (value: {})", headers::NOT_A_TIME, since.escape_debug());
            let since = headers::time(&since).ok_or_else(|| Problem::bad_request(refusal()))?;
            service.flare.replay_since(&id, since).await?;
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(Problem::bad_request("a replay has a url or a since, one of the two"));
        }
    }
    Ok(StatusCode::ACCEPTED)
}

type Changed = Result<Answer<Subscription>, Problem>;

async fn set_status(State(service): State<Service>, Path(id): Path<String>, status: Status) -> Changed {
    service.flare.set_status(&id, status).await?;
    Ok(Answer(service.flare.subscription(&id).await?.into()))
}

/// The subscription, where it is one of the resource.
async fn subscription_of(
    service: &Service,
    resource: &str,
    id: &str,
) -> Result<flare::Subscription, Problem> {
    let subscription = service.flare.subscription(id).await?;
    if subscription.resource == resource {
        return Ok(subscription);
    }
    let (resource, id) = (resource.escape_debug(), id.escape_debug());
    Err(Problem::not_found(format!(
        "the resource has no such subscription (resource: {resource}, subscription: {id})"
    )))
}
