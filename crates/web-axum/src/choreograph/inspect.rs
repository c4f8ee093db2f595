use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use evenkeel_choreograph::{RunFilter, RunPage, RunState};
use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::run::{ListedRun, Run, state};
use super::{Service, no_run};
use crate::page::Limit;
use crate::request::{Path, Query};
use crate::{Problem, headers};

/// A part of a list, in the order in which the runs were started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Runs {
    runs: Vec<ListedRun>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which runs are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only those that stand so.
    #[param(schema_with = state)]
    state: Option<RunState>,
    /// Only of this definition.
    definition: Option<String>,
    /// Only those started then or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only those started before.
    #[param(format = DateTime)]
    until: Option<String>,
    /// How many are answered at most; there may be fewer, even none, with more to come.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// How long to wait for a run.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// So many seconds at most, until it has come to its end or is parked.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 20, default = 0)]
    wait: Wait,
}

/// How many seconds: 0 to 20, 0 unless said.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "u64")]
struct Wait(u64);

impl TryFrom<u64> for Wait {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        if seconds <= 20 { Ok(Self(seconds)) } else { Err(format!("{seconds} is not 0 to 20")) }
    }
}

/// Lists runs
#[utoipa::path(get, path = "/runs", tag = "runs", params(RunsQuery), responses((status = 200, body = Runs)))]
pub(crate) async fn list_runs(
    State(service): State<Service>,
    Query(RunsQuery { state, definition, since, until, limit, cursor }): Query<RunsQuery>,
) -> Result<Answer<Runs>, Problem> {
    let from = time_of("since", since)?.unwrap_or(Timestamp::EPOCH);
    let to = time_of("until", until)?.unwrap_or(Timestamp::MAX);
    let mut filter = state.map_or_else(RunFilter::all, RunFilter::new).started(from, to).limit(limit.get());
    if let Some(name) = definition {
        filter = filter.definition(name);
    }
    if let Some(cursor) = cursor {
        filter = filter.after(cursor);
    }
    let RunPage { runs, cursor: next_cursor, .. } = service.choreographer.list(filter).await?;
    Ok(Answer(Runs { runs: runs.into_iter().map(ListedRun::from).collect(), next_cursor }))
}

/// Shows a run
///
/// As it stands, or, after a wait, as it ended.
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", params(("id" = String, Path), WaitQuery),
    responses((status = 200, body = Run)))]
pub(crate) async fn show_run(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(WaitQuery { wait: Wait(seconds) }): Query<WaitQuery>,
) -> Result<Answer<Run>, Problem> {
    if seconds > 0 {
        let until = service.clock.now() + Duration::from_secs(seconds);
        if let Some(outcome) = service.clock.timeout_at(until, service.choreographer.outcome(&id)).await {
            return Ok(Answer(outcome?.into()));
        }
    }
    service.run(&id).await
}

impl Service {
    /// A run as it stands.
    pub(super) async fn run(&self, id: &str) -> Result<Answer<Run>, Problem> {
        let run = self.choreographer.inspect(id).await?;
        run.map(|run| Answer(run.into())).ok_or_else(|| no_run(id))
    }
}

fn time_of(parameter: &str, text: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let refusal = || format!("{parameter} {} (value: {})", headers::NOT_A_TIME, text.escape_debug());
    headers::time(&text).map(Some).ok_or_else(|| Problem::bad_request(refusal()))
}
