//! What somebody outside can do to a run.

use evenkeel_core::{Batch, Error, ErrorKind, Expect, Merge, Partition, Result, Store, Version};
use serde::Serialize;

use super::choreographer::{Choreographer, Engine};
use super::commit::move_entry;
use super::history::{Entry, Event};
use super::journal::Journal;
use super::places;
use super::records::{RunRecord, SignalRecord, StepEnd, decode, encode};
use crate::outcome::RunState;

/// How often a change is tried against others that change the same run. More often than steps can
/// write to its record, or one that hurries through them could not be cancelled.
const TRIES: usize = 40;

impl<S: Store + Clone> Choreographer<S> {
    /// Asks a run to stop: no further step begins, callbacks under way see it, and then what
    /// finished is taken back. Asking again changes nothing, unless the run was parked meanwhile:
    /// then it goes on to be taken back. A run whose last step finished all the same is completed.
    ///
    /// A callback in another process sees it within a third of its lease. A step that was cut off
    /// and can be taken back is asked for first: where its [`probe`](crate::Builder::probe) says
    /// that it happened, it finished. Where nobody knows, the run is parked if the step's
    /// [`OnInterrupted`](crate::OnInterrupted) says so, and else the step counts as not done.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the run has come to its end; those of the store.
    pub async fn cancel(&self, run: &str) -> Result<()> {
        self.engine.change(run, Change::Cancel).await
    }

    /// Goes on with a parked run: the step that it was parked at is tried again.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the run is not parked; those of the store.
    pub async fn resume(&self, run: &str) -> Result<()> {
        self.engine.change(run, Change::Resume).await
    }

    /// Tries a failed run again from its failed step, or the compensations that failed. Its
    /// deadline counts anew.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the run did neither fail nor fail to be taken back; those of the
    /// store.
    pub async fn retry(&self, run: &str) -> Result<()> {
        self.engine.change(run, Change::Retry).await
    }

    /// Sends a run a signal, for a step that waits for that name, or will. Each is taken once; what
    /// is sent after the run's end, or never waited for, is forgotten with the run.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the run has come to its end; `InvalidInput` where the payload
    /// cannot be turned into JSON; those of the store.
    pub async fn signal(&self, run: &str, name: &str, payload: &impl Serialize) -> Result<()> {
        let id = uuid::Uuid::new_v4().to_string();
        self.signal_once(run, name, &id, payload).await
    }

    /// As [`signal`](Self::signal), with an id of the sender's, 1 to 256 bytes: a second signal of
    /// the same id to the same run is the first.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_once(&self, run: &str, name: &str, id: &str, payload: &impl Serialize) -> Result<()> {
        let (engine, at) = (&self.engine, self.engine.at(run));
        if id.is_empty() || id.len() > 256 {
            return Err(Error::new(ErrorKind::InvalidInput, "the id of a signal is 1 to 256 bytes")
                .with("id", format_args!("{id:?}")));
        }
        let payload = serde_json::value::to_raw_value(payload).map_err(|source| {
            Error::new(ErrorKind::InvalidInput, "the payload cannot be turned into JSON").with_source(source)
        })?;
        let (record, _) = engine.record(&at, run).await?;
        if record.state.is_final() {
            return Err(refused(run, &record, "a run that has come to its end takes no signals"));
        }
        let now = engine.now();
        let signal = SignalRecord { name: name.to_owned(), sent_at: now, payload: Some(payload) };
        let key = places::key(run, format!("{}{id}", places::SIGNAL));
        let mut batch = Batch::new(at.clone(), now);
        batch
            .put(key.clone(), encode(&signal), Expect::Absent)
            .check(places::key(run, places::RECORD), Expect::Present)
            .push(places::RUNS, run, now, "", Merge::Sooner);
        match engine.store.commit(batch).await {
            Ok(_) => {}
            Err(error) => {
                use evenkeel_core::Found::Record;
                match error.conflict().map(|conflict| &conflict.found) {
                    Some(Record { key: found, record: Some(_) }) if *found == key => return Ok(()),
                    Some(Record { record: None, .. }) => return Err(unknown(run)),
                    _ => return Err(error),
                }
            }
        }
        engine.shared.changed(&at, run);
        Ok(())
    }
}

impl Engine {
    /// The record of a run.
    pub(crate) async fn record(&self, at: &Partition, run: &str) -> Result<(RunRecord, Version)> {
        places::check_run_id(run)?;
        let key = places::key(run, places::RECORD);
        let found = self.store.get(at, self.now(), std::slice::from_ref(&key)).await?;
        let record = found.into_iter().next().flatten().ok_or_else(|| unknown(run))?;
        Ok((decode(run, places::RECORD, &record.value)?, record.version))
    }

    /// Changes a run; again where somebody else changed it meanwhile.
    async fn change(&self, run: &str, change: Change) -> Result<()> {
        let at = self.at(run);
        let mut tries = 0;
        loop {
            let (mut record, version) = self.record(&at, run).await?;
            let mut batch = Batch::new(at.clone(), self.now());
            match change {
                Change::Cancel => cancel(run, &mut record, &mut batch)?,
                Change::Resume => resume(run, &mut record, &mut batch)?,
                Change::Retry => self.retry(run, &mut record, &mut batch).await?,
            }
            let now = batch.now();
            batch.push(places::RUNS, run, now, "", Merge::Sooner).put(
                places::key(run, places::RECORD),
                encode(&record),
                Expect::Version(version),
            );
            tries += 1;
            match self.store.commit(batch).await {
                Ok(_) => {
                    self.shared.changed(&at, run);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn retry(&self, run: &str, record: &mut RunRecord, batch: &mut Batch) -> Result<()> {
        let (now, from) = (batch.now(), record.state);
        if !matches!(from, RunState::Failed | RunState::CompensationFailed) {
            return Err(refused(run, record, "only a run that failed can be retried"));
        }
        if record.forgotten {
            return Err(refused(run, record, "a run that is being forgotten cannot be retried"));
        }
        let Some(journal) = Journal::load(&self.store, batch.at(), run, now).await? else {
            return Err(unknown(run));
        };
        if from == RunState::Failed {
            record.error = None;
            let failed = journal.steps.iter().filter(|(_, step)| matches!(step.end, StepEnd::Failed(_)));
            for (step, _) in failed {
                drop_part(run, record, batch, places::of_step(places::STEP, *step));
            }
        } else {
            for (step, _) in journal.undone.iter().filter(|(_, undone)| undone.error.is_some()) {
                drop_part(run, record, batch, places::of_step(places::UNDO, *step));
            }
        }
        record.state = RunState::Running;
        record.finished_at = None;
        record.resumed = true;
        record.deadline = record.deadline_after.map(|after| now + after);
        note(run, record, batch, &Entry::of(Event::Retried, now));
        for op in move_entry(run, record, from) {
            batch.op(op);
        }
        Ok(())
    }
}

/// What is asked of a run.
#[derive(Clone, Copy)]
enum Change {
    Cancel,
    Resume,
    Retry,
}

fn cancel(run: &str, record: &mut RunRecord, batch: &mut Batch) -> Result<()> {
    if record.state.is_final() {
        return Err(refused(run, record, "a run that has come to its end cannot be cancelled"));
    }
    record.cancelled_at.get_or_insert_with(|| batch.now());
    unpark(run, record, batch);
    Ok(())
}

fn resume(run: &str, record: &mut RunRecord, batch: &mut Batch) -> Result<()> {
    if record.state != RunState::Parked {
        return Err(refused(run, record, "only a parked run can be resumed"));
    }
    unpark(run, record, batch);
    note(run, record, batch, &Entry::of(Event::Resumed, batch.now()));
    Ok(())
}

fn unpark(run: &str, record: &mut RunRecord, batch: &mut Batch) {
    if record.state == RunState::Parked {
        record.state = RunState::Running;
        record.parked = None;
        record.resumed = true;
        for op in move_entry(run, record, RunState::Parked) {
            batch.op(op);
        }
    }
}

fn note(run: &str, record: &mut RunRecord, batch: &mut Batch, entry: &Entry) {
    record.entries += 1;
    batch.put(places::history(run, record.entries), encode(entry), Expect::Any);
}

/// Drops a part of the run, wherever it is kept.
fn drop_part(run: &str, record: &mut RunRecord, batch: &mut Batch, id: String) {
    if record.parts.remove(&id).is_none() {
        batch.delete(places::key(run, id), Expect::Present);
    }
}

fn unknown(run: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such run").with("run", format_args!("{run:?}"))
}

fn refused(run: &str, record: &RunRecord, message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with("run", format_args!("{run:?}")).with("state", record.state)
}
