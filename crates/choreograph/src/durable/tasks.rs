//! What one commit of a run cannot hold: it is done in another partition.

use std::sync::Arc;

use evenkeel_core::{Batch, ErrorKind, Expect, LeasedJob, Merge, Partition, Result, Store};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::choreographer::Engine;
use super::places;
use super::records::{ChildRecord, Parent, RunRecord, decode, encode};
use super::start::{NewRun, Started};
use crate::error::{Phase, StepError, StepErrorKind};
use crate::outcome::RunState;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Starts a run whose home may be another partition.
    Start { run: String, definition: String, input: Box<RawValue>, parent: Option<Parent> },
    /// Tells a run how the child of one of its steps ended.
    EndChild { parent: String, step: usize, child: ChildRecord },
}

impl Task {
    pub(crate) fn start_child(
        definition: &str,
        parent: &str,
        name: &str,
        step: usize,
        input: String,
    ) -> Self {
        Self::Start {
            run: places::child_run(parent, name),
            definition: definition.to_owned(),
            input: RawValue::from_string(input).expect("what serde wrote is JSON"),
            parent: Some(Parent { run: parent.to_owned(), step }),
        }
    }

    /// What it is about, so that the same is done once.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Start { run, .. } => format!("start {run}"),
            Self::EndChild { child, .. } => format!("end {}", child.run),
        }
    }
}

impl Engine {
    /// Does a task; one that fails is done again when its lease has run out.
    pub(crate) async fn work_on(self: &Arc<Self>, at: &Partition, job: LeasedJob) {
        let LeasedJob { id, payload, token, .. } = job;
        let done = async {
            let task: Task = decode(&id, "task", &payload)?;
            match task {
                Task::Start { run, definition, input, parent } => {
                    self.start_elsewhere(&run, &definition, input, parent).await?;
                }
                Task::EndChild { parent, step, child } => self.end_child(&parent, step, &child).await?,
            }
            let mut batch = Batch::new(at.clone(), self.now());
            batch.ack(places::TASKS, &*id, token);
            self.store.commit(batch).await.map(drop)
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, task = id, "a task is left to be done again");
        }
    }

    async fn start_elsewhere(
        self: &Arc<Self>,
        run: &str,
        definition: &str,
        input: Box<RawValue>,
        parent: Option<Parent>,
    ) -> Result<()> {
        let registered = self.shared.newest(definition)?;
        let problem = match NewRun::of(&registered.plan, run, input, parent.clone()) {
            Err(error) => Some(error),
            Ok(new) => match self.start(new).await {
                Ok(Started::New | Started::Existing) => None,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Some(error),
                Err(error) => return Err(error),
            },
        };
        let Some(problem) = problem else { return Ok(()) };
        tracing::warn!(error = %problem, run, "a run was not started");
        let Some(parent) = parent else { return Ok(()) };
        let error = StepError::new("", Phase::Job, StepErrorKind::Failed, problem.to_string());
        let (run, values) = (run.to_owned(), std::collections::BTreeMap::new());
        let child = ChildRecord { run, state: RunState::Failed, error: Some(error), values };
        self.end_child(&parent.run, parent.step, &child).await
    }

    async fn end_child(&self, parent: &str, step: usize, child: &ChildRecord) -> Result<()> {
        let (at, now) = (self.at(parent), self.now());
        let key = places::key(parent, places::RECORD);
        let found = self.store.get(&at, now, std::slice::from_ref(&key)).await?;
        let Some(Some(record)) = found.into_iter().next() else { return Ok(()) };
        let parent_record: RunRecord = decode(parent, places::RECORD, &record.value)?;
        if parent_record.state.is_final() {
            return Ok(());
        }
        let key_of_child = places::key(parent, places::of_step(places::CHILD, step));
        let mut batch = Batch::new(at.clone(), now);
        batch.put(key_of_child, encode(child), Expect::Any).push(
            places::RUNS,
            parent,
            now,
            "",
            Merge::Sooner,
        );
        self.store.commit(batch).await?;
        self.shared.changed(&at, parent);
        Ok(())
    }
}
