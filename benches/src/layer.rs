use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use evenkeel::axum::{IdempotencyLayer, value};
use evenkeel::core::MemoryStore;
use evenkeel::idempotency::{Idempotency, Scope};
use tower::{Layer, ServiceExt, service_fn};

use crate::Result;
use crate::calls::{PAYLOAD, fresh_key};
use crate::measure::{ROUNDS, latencies, median, percentile};
use crate::report::{Cell, Report};
use crate::server::StoreName;
use crate::work::ANSWER;

pub(crate) const CASE: &str = "layer adds";

/// What the HTTP layer on the memory store adds to an in-process call.
pub(crate) async fn run(duration: Duration, report: &mut Report) -> Result<()> {
    let bare = service_fn(handle);
    let layer = IdempotencyLayer::new(Idempotency::new(MemoryStore::new()), value(Scope::Global));
    let guarded = layer.layer(service_fn(handle));
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let with = tokio::spawn(latencies(duration, {
            let guarded = guarded.clone();
            move |_| {
                let call = guarded.clone().oneshot(request());
                async move {
                    let response = call.await?;
                    assert!(response.status().is_success());
                    Ok(())
                }
            }
        }));
        let with = with.await??;
        let without = tokio::spawn(latencies(duration, move |_| {
            let call = bare.oneshot(request());
            async move {
                assert!(call.await?.status().is_success());
                Ok(())
            }
        }));
        let without = without.await??;
        p50.push(percentile(&with, 50) - percentile(&without, 50));
        p99.push(percentile(&with, 99) - percentile(&without, 99));
    }
    for (percentile, values) in [("p50", p50), ("p99", p99)] {
        let (case, store) = (format!("{CASE}, {percentile}"), StoreName::Memory);
        let cell = Cell { case, store, callers: 1, unit: "us", value: median(values), limit: None };
        report.add("idempotency", cell);
    }
    Ok(())
}

async fn handle<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from(ANSWER)))
}

fn request() -> Request<Body> {
    Request::post("/charges")
        .header("idempotency-key", format!("\"{}\"", fresh_key()))
        .header("content-type", "application/json")
        .body(Body::from(PAYLOAD))
        .expect("the request is well formed")
}
