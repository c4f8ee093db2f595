//! Runs that are started by runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::records::{ChildRecord, StepEnd};
use super::tasks::Task;
use crate::error::{Phase, StepError, StepErrorKind};
use crate::key::{StepKey, Value};
use crate::outcome::RunState;
use crate::plan::Plan;

/// The most that a child hands on to its parent, in bytes; beyond it is its id only.
const MOST_VALUES: usize = 128 * 1024;

/// What a child run that completed left behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildOutcome {
    run: String,
    values: BTreeMap<String, serde_json::Value>,
}

impl ChildOutcome {
    /// The id of the child.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The value of one of its steps; `None` where it has none of this type, and where its values
    /// come to more than 128 KiB of JSON: then they are only in its own outcome.
    #[must_use]
    pub fn get<T: Value, P>(&self, key: StepKey<T, P>) -> Option<T> {
        T::deserialize(self.values.get(key.name())?).ok()
    }
}

/// What a child's end means for its step.
pub(crate) fn end_of(step: &str, child: &ChildRecord) -> Result<ChildOutcome, StepError> {
    if child.state == RunState::Completed {
        return Ok(ChildOutcome { run: child.run.clone(), values: child.values.clone() });
    }
    let why = child.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let message = format!("run {:?} is {}{why}", child.run, child.state);
    Err(StepError::new(step, Phase::Job, StepErrorKind::Failed, message))
}

/// What the parent of a run that ended is to be told.
pub(crate) fn tell_parent(id: &str, journal: &Journal, plan: &Plan) -> Option<Task> {
    let record = &journal.record;
    let parent = record.parent.clone()?;
    let mut values = BTreeMap::new();
    let mut bytes = 0;
    for (step, done) in &journal.steps {
        if let StepEnd::Done(json) = &done.end
            && let Some(leaf) = plan.leaves.get(*step)
        {
            bytes += json.get().len();
            let value = serde_json::from_str(json.get()).expect("a raw value is JSON");
            values.insert(leaf.name.clone().into_owned(), value);
        }
    }
    if bytes > MOST_VALUES {
        values.clear();
    }
    let child = ChildRecord { run: id.to_owned(), state: record.state, error: record.error.clone(), values };
    Some(Task::EndChild { parent: parent.run, step: parent.step, child })
}
