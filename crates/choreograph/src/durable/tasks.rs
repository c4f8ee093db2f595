//! What one commit of a run cannot hold: it is done elsewhere, or later.

use evenkeel_core::{
    Batch, ErrorKind, Expect, Key, LeasedJob, Merge, Partition, Result, Scan, Store, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::choreographer::Engine;
use super::places;
use super::records::{ChildRecord, Parent, RunRecord, decode, encode};
use super::start::{NewRun, Started};
use crate::error::{Phase, StepError, StepErrorKind};
use crate::outcome::RunState;

/// How many records are forgotten at a time.
const PAGE: usize = 40;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Starts a run whose home may be another partition.
    Start { run: String, definition: String, input: Box<RawValue>, parent: Option<Parent> },
    /// Tells a run how the child of one of its steps ended.
    EndChild { parent: String, step: usize, child: ChildRecord },
    /// Forgets a run that ended long ago.
    Forget { run: String },
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
            Self::Forget { run } => format!("forget {run}"),
        }
    }
}

impl Engine {
    /// Does a task; one that fails is done again when its lease has run out.
    pub(crate) async fn work_on(&self, at: &Partition, job: LeasedJob) {
        let LeasedJob { id, payload, token, .. } = job;
        let done = async {
            let task: Task = decode(&id, "task", &payload)?;
            let again = match task {
                Task::Start { run, definition, input, parent } => {
                    self.start_elsewhere(&run, &definition, input, parent).await?;
                    None
                }
                Task::EndChild { parent, step, child } => {
                    self.end_child(&parent, step, &child).await?;
                    None
                }
                Task::Forget { run } => self.forget(&run).await?,
            };
            let mut batch = Batch::new(at.clone(), self.now());
            match again {
                None => batch.ack(places::TASKS, &*id, token),
                Some(due) => batch.retry(places::TASKS, &*id, token, due),
            };
            self.store.commit(batch).await.map(drop)
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, task = id, "a task is left to be done again");
        }
    }

    async fn start_elsewhere(
        &self,
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
        let mut batch = Batch::new(at.clone(), now);
        batch.put(places::step(parent, places::CHILD, step), encode(child), Expect::Any).push(
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

    /// Forgets a page of a run's records, the run and its input last, at once; when to go on, unless
    /// that was all.
    async fn forget(&self, run: &str) -> Result<Option<Timestamp>> {
        let (at, now) = (self.at(run), self.now());
        let key = places::key(run, places::RECORD);
        let found = self.store.get(&at, now, std::slice::from_ref(&key)).await?;
        let Some(Some(found)) = found.into_iter().next() else { return Ok(None) };
        let mut record: RunRecord = decode(run, places::RECORD, &found.value)?;
        // Where it was retried since, its next end says when.
        let Some(finished_at) = record.finished_at else { return Ok(None) };
        let due = finished_at + self.settings.retention;
        if due > now {
            return Ok(Some(due));
        }
        let (history, no_more_history) = self.parts(&at, places::HISTORY, run, now).await?;
        let (parts, no_more_parts) = self.parts(&at, places::RUN, run, now).await?;
        let last = no_more_history && no_more_parts;
        let mut batch = Batch::new(at.clone(), now);
        for part in history.into_iter().chain(parts) {
            batch.delete(part, Expect::Any);
        }
        if last {
            let entry = places::entry(run, record.started_at);
            batch
                .delete(key, Expect::Version(found.version))
                .delete(places::key(run, places::INPUT), Expect::Any);
            places::INDEX.leave(&mut batch, record.state.as_str(), &entry);
        } else {
            // Whoever retries it from here on would begin what has finished again.
            record.forgotten = true;
            batch.put(key, encode(&record), Expect::Version(found.version));
        }
        match self.store.commit(batch).await {
            Ok(_) if last => Ok(None),
            Ok(_) => Ok(Some(now)),
            // Somebody retries it.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A page of what is kept of a run in `space` besides itself and its input, and whether that is
    /// all.
    async fn parts(
        &self,
        at: &Partition,
        space: &'static str,
        run: &str,
        now: Timestamp,
    ) -> Result<(Vec<Key>, bool)> {
        let mut scan = Scan::new(space, run, PAGE, now);
        loop {
            let page = self.store.scan(at, scan.clone()).await?;
            let ids = page.records.into_iter().map(|(id, _)| id);
            let ids = ids.filter(|id| space != places::RUN || (id != places::RECORD && id != places::INPUT));
            let keys: Vec<_> = ids.map(|id| Key::new(space, run, id)).collect();
            match page.cursor {
                Some(cursor) if keys.is_empty() => scan = scan.after(cursor),
                cursor => return Ok((keys, cursor.is_none())),
            }
        }
    }
}
