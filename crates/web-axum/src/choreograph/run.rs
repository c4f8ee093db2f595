use std::collections::BTreeMap;

use evenkeel_choreograph::{self as choreograph, Phase, RunState, RunSummary, StepErrorKind};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::Schema;

use crate::page::{Time, words};

/// A run as it stands, or as it ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    id: String,
    /// The name of its definition.
    definition: String,
    /// The version of its definition that it runs under.
    version: String,
    #[schema(schema_with = state)]
    state: RunState,
    started_at: Time,
    /// Not there before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Time>,
    /// When it is stopped; not there where it has all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Time>,
    /// What it was started with.
    #[schema(value_type = serde_json::Value)]
    input: Box<RawValue>,
    /// What stopped it, or why it is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<StepError>,
    /// What did not stop it: skipped jobs, waits that no signal ended in time, compensations that
    /// failed.
    errors: Vec<StepError>,
    /// The values of the steps' jobs.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    values: BTreeMap<String, Box<RawValue>>,
    /// The values of the steps' pre-checks.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pre_checks: BTreeMap<String, Box<RawValue>>,
}

/// What a list says of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListedRun {
    id: String,
    /// The name of its definition.
    definition: String,
    #[schema(schema_with = state)]
    state: RunState,
    started_at: Time,
}

/// Why a step has no value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepError {
    step: String,
    /// Which of its callbacks.
    #[schema(schema_with = phase)]
    phase: Phase,
    #[schema(schema_with = kind)]
    kind: StepErrorKind,
    /// What the callback said.
    message: String,
}

impl From<choreograph::Run> for Run {
    fn from(run: choreograph::Run) -> Self {
        Self {
            id: run.id,
            definition: run.definition,
            version: run.version,
            state: run.state,
            started_at: Time(run.started_at),
            finished_at: run.finished_at.map(Time),
            deadline: run.deadline.map(Time),
            input: run.input,
            error: run.error.as_ref().map(StepError::from),
            errors: run.errors.iter().map(StepError::from).collect(),
            values: run.values,
            pre_checks: run.pre_checks,
        }
    }
}

impl From<RunSummary> for ListedRun {
    fn from(summary: RunSummary) -> Self {
        let RunSummary { id, definition, state, started_at, .. } = summary;
        Self { id, definition, state, started_at: Time(started_at) }
    }
}

impl From<&choreograph::StepError> for StepError {
    fn from(error: &choreograph::StepError) -> Self {
        Self {
            step: error.step().to_owned(),
            phase: error.phase(),
            kind: error.kind(),
            message: error.message().to_owned(),
        }
    }
}

pub(super) fn state() -> Schema {
    words(&RunState::ALL)
}

fn phase() -> Schema {
    use Phase::{Compensation, Condition, Job, PreCheck, Probe};
    words(&[Condition, PreCheck, Job, Probe, Compensation])
}

fn kind() -> Schema {
    use StepErrorKind::{Cancelled, DeadlineExceeded, Failed, Interrupted, Panicked, Skipped, TimedOut};
    words(&[Skipped, Cancelled, Failed, Panicked, TimedOut, DeadlineExceeded, Interrupted])
}
