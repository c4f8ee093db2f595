use std::error::Error as StdError;
use std::fmt;

use evenkeel_core::BoxError;
use serde::{Deserialize, Serialize};

/// What a callback was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Whether the step is taken at all.
    Condition,
    /// Whether its job is to run.
    PreCheck,
    /// Its work.
    Job,
    /// Whether an interrupted job happened.
    Probe,
    /// Taking it back.
    Compensation,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Condition => "condition",
            Self::PreCheck => "pre-check",
            Self::Job => "job",
            Self::Probe => "probe",
            Self::Compensation => "compensation",
        })
    }
}

/// Why a step has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepErrorKind {
    /// Its pre-check says that its job is not to run; the run goes on without it.
    Skipped,
    /// Its pre-check cancelled the run, or the run was cancelled before it.
    Cancelled,
    /// A callback returned an error.
    Failed,
    /// A callback panicked.
    Panicked,
    /// An attempt, or a wait, took too long.
    TimedOut,
    /// The run passed its deadline before it.
    DeadlineExceeded,
    /// It was cut off and whether it happened is unknown.
    Interrupted,
    /// It can only run durably.
    NeedsDurableRun,
}

impl fmt::Display for StepErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed out",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Interrupted => "interrupted",
            Self::NeedsDurableRun => "needs a durable run",
        })
    }
}

/// What became of a step that has no value.
///
/// Displayed as `step "name": phase kind: message`. The callback's own error is its source; in a
/// durable run only the text of it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepError(Box<Parts>);

/// In a box: they are seldom there, and every step hands on the room for them.
#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    step: String,
    phase: Phase,
    kind: StepErrorKind,
    message: String,
    #[serde(skip)]
    source: Option<BoxError>,
}

impl StepError {
    pub(crate) fn new(step: &str, phase: Phase, kind: StepErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { step: step.to_owned(), phase, kind, message: message.into(), source: None }))
    }

    pub(crate) fn from_source(step: &str, phase: Phase, kind: StepErrorKind, source: BoxError) -> Self {
        let message = source.to_string();
        Self(Box::new(Parts { step: step.to_owned(), phase, kind, message, source: Some(source) }))
    }

    /// The name of the step.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.0.step
    }

    /// Which of its callbacks.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> StepErrorKind {
        self.0.kind
    }

    /// What the callback said.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

/// A copy keeps the text of the source only.
impl Clone for StepError {
    fn clone(&self) -> Self {
        Self::new(self.step(), self.phase(), self.kind(), self.message())
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:?}: {} {}", self.step(), self.phase(), self.kind())?;
        if self.message().is_empty() { Ok(()) } else { write!(f, ": {}", self.message()) }
    }
}

impl StdError for StepError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}
