use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use evenkeel_core::{Key, Store, StoreExt};
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use crate::Problem;
use crate::problem::Kind;
use crate::request::NoQuery;

/// How long the store may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What this is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct About {
    name: &'static str,
    version: &'static str,
    links: Links,
}

/// Where to go on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Links {
    resources: &'static str,
    documents: &'static str,
    notices: &'static str,
    health: &'static str,
    ready: &'static str,
    openapi: &'static str,
    docs: &'static str,
}

/// That all is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Well {
    status: &'static str,
}

/// Says what this is
#[utoipa::path(get, path = "/", tag = "service", responses((status = 200, body = About)))]
pub(crate) async fn about(_: NoQuery) -> Answer<About> {
    let links = Links {
        resources: "/resources",
        documents: "/documents/{url}",
        notices: "/notices",
        health: "/health",
        ready: "/ready",
        openapi: "/openapi.json",
        docs: "/docs",
    };
    Answer(About { name: "evenkeel", version: env!("CARGO_PKG_VERSION"), links })
}

/// Says that the process is up
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Well)))]
pub(crate) async fn health(_: NoQuery) -> Answer<Well> {
    Answer(Well { status: "up" })
}

/// Says whether the store answers
///
/// 503 where it does not within two seconds.
#[utoipa::path(get, path = "/ready", tag = "service", responses((status = 200, body = Well)))]
pub(crate) async fn ready(State(service): State<Service>, _: NoQuery) -> Result<Answer<Well>, Problem> {
    let (store, now) = (service.flare.store(), service.clock.now());
    let (at, keys) = (store.partition_of("ready"), [Key::new("evenkeel.ready", "all", "ready")]);
    match service.clock.timeout_at(now + PATIENCE, store.get(&at, now, &keys)).await {
        Some(Ok(_)) => Ok(Answer(Well { status: "ready" })),
        Some(Err(error)) => {
            tracing::warn!(%error, "the store does not answer");
            Err(not_ready("the store fails; the reason is in the log"))
        }
        None => Err(not_ready("the store did not answer within two seconds")),
    }
}

fn not_ready(detail: &str) -> Problem {
    Problem::new(Kind::Unavailable, detail).retry_after(Duration::from_secs(1))
}
