use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use evenkeel::core::{Clock, Error, ErrorKind, Result};
use http::Method;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Instrument;

/// The upper bounds of what is counted together, of everything that takes a time.
const SECONDS: [f64; 14] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// How often what was measured is summed up.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// Takes what the program measures, for the route that shows it.
pub(crate) fn install() -> Result<PrometheusHandle> {
    let failed =
        |source: BuildError| Error::new(ErrorKind::Unexpected, "nothing can be measured").with_source(source);
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS).map_err(failed)?;
    builder.install_recorder().map_err(failed)
}

/// Keeps what was measured small, for ever.
pub(crate) async fn sum_up(metrics: PrometheusHandle, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(SUM_UP_EVERY).await;
        metrics.run_upkeep();
    }
}

/// A span and a measurement for each request.
///
/// | name | kind | fields or labels |
/// |---|---|---|
/// | `request` | span | `method`, `route`; at its end an event with `status` and `seconds`: debug, or error from 500 on |
/// | `evenkeel_http_request_seconds` | histogram, in seconds | `method`, `route`, `status` |
///
/// `route` is the template, `none` where there is no such route.
pub(crate) async fn observe(State(clock): State<Arc<dyn Clock>>, request: Request, next: Next) -> Response {
    let begun = clock.now();
    let method = name_of(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", method, route);
    async move {
        let response = next.run(request).await;
        let (status, seconds) = (response.status(), clock.now().since(begun).as_secs_f64());
        if status.is_server_error() {
            tracing::error!(status = status.as_u16(), seconds, "not answered");
        } else {
            tracing::debug!(status = status.as_u16(), seconds, "answered");
        }
        let labels =
            [("method", method.to_owned()), ("route", route), ("status", status.as_str().to_owned())];
        metrics::histogram!("evenkeel_http_request_seconds", &labels).record(seconds);
        response
    }
    .instrument(span)
    .await
}

/// One of few words, whatever callers make up.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
