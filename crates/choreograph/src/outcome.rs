use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bag::Part;
use crate::context::RunShared;
use crate::error::StepError;
use crate::key::{StepKey, Value};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunState {
    /// Under way: running, or waiting for a time, a signal or a child.
    Running,
    /// Stopped for a person to decide.
    Parked,
    /// Every step was taken, skipped or not needed.
    Completed,
    /// A step failed, and there was nothing to take back.
    Failed,
    /// It was cancelled, or passed its deadline, and there was nothing to take back.
    Cancelled,
    /// It failed or was cancelled, and everything that can be taken back was.
    Compensated,
    /// It failed or was cancelled, and something could not be taken back.
    CompensationFailed,
}

impl RunState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Parked,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Compensated,
        Self::CompensationFailed,
    ];

    /// Its one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Compensated => "compensated",
            Self::CompensationFailed => "compensation_failed",
        }
    }

    /// Whether the run has come to its end.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Parked)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of a run in memory: its values, and what went wrong.
pub struct Outcome<I> {
    pub(crate) run: Arc<RunShared>,
    pub(crate) ended: Ended,
    pub(crate) types: PhantomData<fn() -> I>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) state: RunState,
    pub(crate) error: Option<StepError>,
    pub(crate) errors: Vec<StepError>,
}

impl<I: Value> Outcome<I> {
    /// What the run was started with.
    #[must_use]
    pub fn input(&self) -> &I {
        self.run.input.downcast_ref().expect("a run's input is of its definition's type")
    }
}

impl<I> Outcome<I> {
    /// How it ended.
    #[must_use]
    pub const fn state(&self) -> RunState {
        self.ended.state
    }

    /// What stopped the run, where something did.
    #[must_use]
    pub const fn error(&self) -> Option<&StepError> {
        self.ended.error.as_ref()
    }

    /// What did not stop the run: the jobs that were skipped, and the compensations that failed.
    #[must_use]
    pub fn errors(&self) -> &[StepError] {
        &self.ended.errors
    }

    /// The value of a step's job.
    #[must_use]
    pub fn get<T: Value, P>(&self, key: StepKey<T, P>) -> Option<Arc<T>> {
        self.run.value(key.name(), Part::Job)
    }

    /// The value of a step's pre-check.
    #[must_use]
    pub fn pre_check<T, P: Value>(&self, key: StepKey<T, P>) -> Option<Arc<P>> {
        self.run.value(key.name(), Part::PreCheck)
    }
}

impl<I> fmt::Debug for Outcome<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outcome").field(&self.ended).finish()
    }
}
