use std::sync::Arc;

use bytes::Bytes;
use evenkeel_core::{
    Batch, Conflict, Error, ErrorKind, Expect, Found, Hold, Merge, Partition, Record, Result, Store,
    Timestamp, Token,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::born::Born;
use super::choreographer::{Choreographer, Engine};
use super::journal::Journal;
use super::places;
use super::records::{IndexEntry, NewRunJob, Parent, RunRecord, decode, encode};
use super::tasks::Task;
use crate::outcome::RunState;
use crate::plan::Plan;

/// The longest input that is kept in the run's own record, and carried by a new run's job, in bytes.
const SHORT_INPUT: usize = 1024;

/// What a start came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The run is new.
    New,
    /// It was started before, with the same input.
    Existing,
}

/// A run to be started.
pub(crate) struct NewRun {
    id: String,
    definition: &'static str,
    version: String,
    input: Box<RawValue>,
    deadline_after: Option<std::time::Duration>,
    parent: Option<Parent>,
}

impl<S: Store + Clone> Choreographer<S> {
    /// Starts a run of a definition that is registered here. Its id, 1 to 256 bytes, is yours: the
    /// same id with the same input is the same run, until it is forgotten after its retention.
    ///
    /// Where a worker of this choreographer has room for it, and no run waits for one, it begins there
    /// at once. Dropping the future may leave the run started or not; one that is started goes on.
    ///
    /// # Errors
    /// `AlreadyExists` where the id was used with another definition or input; `NotFound` for a
    /// definition that is not registered; `InvalidInput` for an id, or for an input that is not of
    /// the definition's type; `TooLarge`; those of the store.
    pub async fn start(&self, definition: &str, run: &str, input: &impl Serialize) -> Result<Started> {
        let new = self.new_run(definition, run, input)?;
        self.engine.start(new).await
    }

    /// Starts a run with the caller's batch: both or neither.
    ///
    /// Where the run's home is another partition than the batch's, a worker starts it soon after;
    /// one that exists with another input is then left alone. At home, an id that was used before
    /// is a `Conflict` of the batch.
    ///
    /// # Errors
    /// As [`start`](Self::start), but for `AlreadyExists`; nothing is added to the batch then.
    pub fn start_in(
        &self,
        batch: &mut Batch,
        definition: &str,
        run: &str,
        input: &impl Serialize,
    ) -> Result<()> {
        let new = self.new_run(definition, run, input)?;
        if *batch.at() == self.engine.at(run) {
            new.write(batch);
        } else {
            let NewRun { id, definition, input, parent, .. } = new;
            let task = Task::Start { run: id, definition: definition.to_owned(), input, parent };
            batch.push(places::TASKS, task.id(), batch.now(), encode(&task), Merge::Keep);
        }
        Ok(())
    }

    fn new_run(&self, definition: &str, run: &str, input: &impl Serialize) -> Result<NewRun> {
        let registered = self.engine.shared.newest(definition)?;
        let input = serde_json::value::to_raw_value(input).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, "the input cannot be turned into JSON").with_source(source)
        })?;
        NewRun::of(&registered.plan, run, input, None)
    }
}

impl NewRun {
    pub(crate) fn of(plan: &Plan, id: &str, input: Box<RawValue>, parent: Option<Parent>) -> Result<Self> {
        places::check_run_id(id)?;
        (plan.input.decode)(&input).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, "the input is not of the definition's type")
                .with("definition", format_args!("{:?}", plan.name))
                .with("problem", &source)
                .with_source(source)
        })?;
        Ok(Self {
            id: id.to_owned(),
            definition: plan.name,
            version: plan.hash.clone(),
            input,
            deadline_after: plan.deadline,
            parent,
        })
    }

    /// Adds the run, for whoever leases its job.
    fn write(&self, batch: &mut Batch) {
        let record = self.put(batch);
        let job = if record.input.is_some() {
            encode(&NewRunJob { record, version: batch.version() })
        } else {
            Bytes::new()
        };
        batch.push(places::RUNS, &*self.id, batch.now(), job, Merge::Sooner);
    }

    /// The run, held from its birth, and what is kept of it then.
    fn born(&self, at: &Partition, now: Timestamp, until: Timestamp) -> (Born, Journal) {
        let mut batch = Batch::new(at.clone(), now);
        let record = self.put(&mut batch);
        let hold = Hold { token: Token::fresh(), until };
        // Who leases it after this holder reads the run.
        batch.push_leased(places::RUNS, &*self.id, now, "", hold);
        let journal = Journal::of_new(record, batch.version(), self.input.clone());
        (Born { id: self.id.clone(), hold, batch }, journal)
    }

    /// Adds what is kept of the run, but for its job.
    fn put(&self, batch: &mut Batch) -> RunRecord {
        let now = batch.now();
        let record = RunRecord {
            definition: self.definition.to_owned(),
            version: self.version.clone(),
            state: RunState::Running,
            started_at: now,
            finished_at: None,
            deadline: self.deadline_after.map(|after| now + after),
            deadline_after: self.deadline_after,
            released: 0,
            in_doubt: false,
            resumed: false,
            cancelled_at: None,
            parked: None,
            error: None,
            open: std::collections::BTreeMap::new(),
            entries: 0,
            parent: self.parent.clone(),
            input: (self.input.get().len() <= SHORT_INPUT).then(|| self.input.clone()),
            forgotten: false,
            parts: std::collections::BTreeMap::new(),
        };
        let entry =
            IndexEntry { run: self.id.clone(), definition: record.definition.clone(), started_at: now };
        batch.put(places::key(&self.id, places::RECORD), encode(&record), Expect::Absent);
        if record.input.is_none() {
            let input = self.input.get().to_owned();
            batch.put(places::key(&self.id, places::INPUT), input, Expect::Any);
        }
        places::INDEX.enter(batch, RunState::Running.as_str(), &places::entry(&self.id, now), encode(&entry));
        record
    }
}

impl Engine {
    pub(crate) async fn start(self: &Arc<Self>, new: NewRun) -> Result<Started> {
        let at = self.at(&new.id);
        // Before the commit: the run may have ended when that returns.
        self.shared.waiters.expect(&at, &new.id);
        let error = match self.write(&at, &new).await {
            Ok(()) => return Ok(Started::New),
            Err(error) => error,
        };
        self.shared.waiters.expect_no_more(&at, &new.id);
        let Some(Conflict { found: Found::Record { record: Some(Record { value, .. }), .. }, .. }) =
            error.conflict()
        else {
            return Err(error);
        };
        let standing: RunRecord = decode(&new.id, places::RECORD, value)?;
        let input = match &standing.input {
            Some(input) => {
                Some(decode::<serde_json::Value>(&new.id, places::RECORD, input.get().as_bytes())?)
            }
            None => self.long_input(&at, &new.id).await?,
        };
        let same_input = serde_json::from_str(new.input.get()).ok() == input;
        if standing.definition == new.definition && same_input {
            return Ok(Started::Existing);
        }
        let what = if same_input { "definition" } else { "input" };
        Err(Error::new(ErrorKind::AlreadyExists, format!("the run was started with another {what}"))
            .with("run", format_args!("{:?}", new.id))
            .with("definition", format_args!("{:?}", standing.definition)))
    }

    /// Writes a new run, in the hands of a worker of this process where one has room for it.
    async fn write(self: &Arc<Self>, at: &Partition, new: &NewRun) -> Result<()> {
        let written = self.write_held(at, new).await;
        if let Some(written) = written
            && !written.as_ref().is_err_and(is_occupied)
        {
            return written;
        }
        let mut batch = Batch::new(at.clone(), self.now());
        new.write(&mut batch);
        self.store.commit(batch).await.map(drop)
    }

    /// As [`write`](Self::write); `None` where no worker has room.
    async fn write_held(self: &Arc<Self>, at: &Partition, new: &NewRun) -> Option<Result<()>> {
        let (born, answered) = self.intakes.take_in(at, |closing| {
            let now = self.now();
            let (born, journal) = new.born(at, now, now + self.settings.lease);
            let (answer, answered) = oneshot::channel();
            // A task of its own, so that it goes on where the caller does not.
            let live = born.clone().live(Arc::clone(self), journal, answer, closing);
            (live, (born, answered))
        })?;
        Some(match answered.await {
            Ok(written) => written,
            // The worker was dropped in the middle of the commit.
            Err(_) => born.put_back(self).await,
        })
    }

    async fn long_input(&self, at: &Partition, run: &str) -> Result<Option<serde_json::Value>> {
        let key = places::key(run, places::INPUT);
        let found = self.store.get(at, self.now(), std::slice::from_ref(&key)).await?;
        let input = found.into_iter().next().flatten();
        input.map(|record| decode(run, places::INPUT, &record.value)).transpose()
    }
}

/// Whether there is a job of the run already: one that is left over, or that of a run that exists.
fn is_occupied(error: &Error) -> bool {
    error.conflict().is_some_and(|conflict| matches!(conflict.found, Found::Occupied { .. }))
}
