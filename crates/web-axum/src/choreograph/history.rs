use axum::Json as Answer;
use axum::extract::State;
use axum::response::IntoResponse;
use evenkeel_choreograph::{self as choreograph, Event, timeline_svg};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Schema;

use super::run::StepError;
use super::{Service, no_run};
use crate::Problem;
use crate::page::{Time, words};
use crate::request::{NoQuery, Path};

/// What happened in a run, in the order in which it began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    entries: Vec<Entry>,
}

/// Something that happened in a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HistoryEntry)]
pub(crate) struct Entry {
    #[schema(schema_with = event)]
    event: Event,
    began_at: Time,
    /// Not there for what has no length, or has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Time>,
    /// Not there where it is about the run itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    /// Which item of the step's list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<usize>,
    /// Which attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<StepError>,
    /// When the next attempt was set for, or what a wait waits for at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Time>,
}

/// Tells what happened in a run
///
/// Attempts, waits, failures and compensations, with their times.
#[utoipa::path(get, path = "/runs/{id}/history", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = History)))]
pub(crate) async fn show_history(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<Answer<History>, Problem> {
    let entries = service.history(&id).await?;
    Ok(Answer(History { entries: entries.into_iter().map(Entry::from).collect() }))
}

/// Draws what happened in a run
///
/// A bar for each attempt and each wait.
#[utoipa::path(get, path = "/runs/{id}/timeline.svg", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = String, content_type = "image/svg+xml")))]
pub(crate) async fn show_timeline(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<impl IntoResponse, Problem> {
    let picture = timeline_svg(&service.history(&id).await?);
    // It has texts of strangers: whatever they say, nothing of it runs.
    let harmless = "default-src 'none'; style-src 'unsafe-inline'";
    Ok(([(CONTENT_TYPE, "image/svg+xml"), (CONTENT_SECURITY_POLICY, harmless)], picture))
}

impl Service {
    async fn history(&self, id: &str) -> Result<Vec<choreograph::Entry>, Problem> {
        self.choreographer.history(id).await?.ok_or_else(|| no_run(id))
    }
}

impl From<choreograph::Entry> for Entry {
    fn from(entry: choreograph::Entry) -> Self {
        Self {
            event: entry.event,
            began_at: Time(entry.began_at),
            ended_at: entry.ended_at.map(Time),
            step: entry.step,
            item: entry.item,
            attempt: entry.attempt,
            error: entry.error.as_ref().map(StepError::from),
            next_at: entry.next_at.map(Time),
        }
    }
}

fn event() -> Schema {
    use Event::{
        Attempt, Cancelled, Compensation, CompensationFailure, Ended, Failure, Interrupted, NotTaken, Parked,
        Resumed, Retried, Skipped, Started, Wait,
    };
    let of_steps =
        [Attempt, Failure, Skipped, NotTaken, Wait, Interrupted, Compensation, CompensationFailure];
    let of_runs = [Started, Parked, Resumed, Retried, Cancelled, Ended];
    words(&[&of_steps[..], &of_runs].concat())
}
