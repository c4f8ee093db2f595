use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use evenkeel::axum::access::{Scope, Scopes};
use evenkeel::axum::{IdempotencyLayer, Problem, choreograph, flare, openapi, operations, projections};
use evenkeel::choreograph::Choreographer;
use evenkeel::core::{AnyStore, Clock};
use evenkeel::flare::Flare;
use evenkeel::flare::net::Sender;
use evenkeel::idempotency::Idempotency;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::access::{self, authenticate};
use crate::metrics::observe;
use crate::period::Period;
use crate::settings::Settings;

/// Every route of the server; the answers that go on end when `stopping` completes.
pub(crate) fn app(
    settings: &Settings,
    flare: Flare,
    sender: Sender,
    idempotency: Idempotency<AnyStore>,
    metrics: PrometheusHandle,
    clock: Arc<dyn Clock>,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> Router {
    let store = flare.store().clone();
    let once = IdempotencyLayer::new(idempotency.clone(), access::scope_of_keys);
    // Definitions are code of other programs, whose runs in this store are looked at and steered here.
    let choreographer = Choreographer::new(store.clone()).clock(Arc::clone(&clock));
    let runs = choreograph::Api::new(&choreographer)
        .idempotency(once.clone())
        .body_limit(settings.body_limit)
        .clock(Arc::clone(&clock));
    // So are projectors.
    let log = projections::Api::new(store.clone())
        .idempotency(once.clone())
        .body_limit(settings.body_limit)
        .clock(Arc::clone(&clock))
        .until(stopping);
    let api = flare::Api::new(flare)
        .transport(sender)
        .idempotency(once)
        .body_limit(settings.body_limit)
        .clock(Arc::clone(&clock));
    let tokens: Arc<[_]> = settings.tokens.clone().into();
    let limit = Limit { time: settings.request_timeout, clock: Arc::clone(&clock) };
    api.router()
        .merge(runs.router())
        .merge(log.router())
        .merge(operations::Operations::new(store, idempotency).clock(Arc::clone(&clock)).router())
        .merge(openapi::router())
        .route("/metrics", get(show_metrics).with_state(metrics))
        .layer(from_fn_with_state(tokens, authenticate))
        .layer(from_fn_with_state(limit, in_time))
        .layer(from_fn_with_state(clock, observe))
}

/// How long a request may take.
#[derive(Clone)]
struct Limit {
    time: Period,
    clock: Arc<dyn Clock>,
}

/// Answers a request that takes too long, and drops what was done about it: what it committed by
/// then is committed.
async fn in_time(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    let until = limit.clock.now() + limit.time.0;
    match limit.clock.timeout_at(until, next.run(request)).await {
        Some(response) => response,
        None => Problem::not_known(format!(
            "the request was not answered within {}; what it asked for may have been done",
            limit.time
        ))
        .into_response(),
    }
}

async fn show_metrics(
    State(metrics): State<PrometheusHandle>,
    scopes: Option<Extension<Scopes>>,
) -> Response {
    match scopes {
        Some(Extension(scopes)) if !scopes.has(Scope::Read) => {
            Problem::forbidden("the route needs the scope read").into_response()
        }
        _ => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response(),
    }
}
