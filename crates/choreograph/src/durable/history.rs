use evenkeel_core::{Result, Scan, Store, Timestamp};
use serde::{Deserialize, Serialize};

use super::choreographer::Choreographer;
use super::journal::Journal;
use super::places;
use super::records::{StepEnd, decode};
use crate::error::{StepError, StepErrorKind};

/// What an [`Entry`] of a run's history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run was started.
    Started,
    /// An attempt at a step that succeeded.
    Attempt,
    /// An attempt, at a step or an item of its list, that failed.
    Failure,
    /// A step whose job was skipped by its pre-check, or a wait that no signal ended in time.
    Skipped,
    /// A step whose condition did not hold.
    NotTaken,
    /// A wait: between attempts, for a time, for a signal, for a child.
    Wait,
    /// An attempt that was cut off. It ended when that was found; nobody wrote down when it began, so it
    /// begins where it can have begun at the earliest.
    Interrupted,
    /// A compensation that succeeded.
    Compensation,
    /// An attempt at a compensation that failed.
    CompensationFailure,
    /// The run was parked.
    Parked,
    /// A parked run was resumed.
    Resumed,
    /// A failed run was retried.
    Retried,
    /// Somebody asked to stop the run.
    Cancelled,
    /// The run came to its end.
    Ended,
}

impl Event {
    /// Its place among what happened at the same instant.
    const fn rank(self) -> u8 {
        match self {
            Self::Started => 0,
            Self::Ended => 2,
            _ => 1,
        }
    }
}

/// Something that happened in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// What.
    pub event: Event,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended; `None` for what has no length, or has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The step, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The item of the step's list, where it is about one, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// Which attempt it was, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What went wrong, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// When the next attempt was set for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
}

impl Entry {
    pub(crate) const fn of(event: Event, began_at: Timestamp) -> Self {
        let (ended_at, step, item, attempt, error, next_at) = (None, None, None, None, None, None);
        Self { event, began_at, ended_at, step, item, attempt, error, next_at }
    }

    /// An entry whose event is said by whoever adds it.
    pub(crate) const fn at(began_at: Timestamp) -> Self {
        Self::of(Event::Wait, began_at)
    }

    pub(crate) fn until(self, ended_at: Timestamp) -> Self {
        Self { ended_at: Some(ended_at), ..self }
    }

    pub(crate) fn attempt(self, attempt: u32) -> Self {
        Self { attempt: Some(attempt), ..self }
    }

    pub(crate) fn error(self, error: &StepError) -> Self {
        Self { error: Some(error.clone()), ..self }
    }

    pub(crate) fn item(self, item: Option<usize>) -> Self {
        Self { item, ..self }
    }

    pub(crate) fn next(self, next_at: Option<Timestamp>) -> Self {
        Self { next_at, ..self }
    }

    fn step(self, step: &str) -> Self {
        Self { step: Some(step.to_owned()), ..self }
    }
}

impl<S: Store + Clone> Choreographer<S> {
    /// What happened in a run, in the order in which it began; `None` where there is no such run.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn history(&self, run: &str) -> Result<Option<Vec<Entry>>> {
        let (engine, at) = (&self.engine, self.engine.at(run));
        let now = engine.now();
        let Some(journal) = Journal::load(&engine.store, &at, run, now).await? else { return Ok(None) };
        let mut entries = entries(&journal);
        let mut scan = Scan::new(places::HISTORY, run, 500, now);
        loop {
            let page = engine.store.scan(&at, scan.clone()).await?;
            for (id, record) in page.records {
                let entry: Entry = decode(run, &id, &record.value)?;
                if let (Some(ended_at), Some(next_at)) = (entry.ended_at, entry.next_at) {
                    let wait = Entry::of(Event::Wait, ended_at).until(next_at);
                    entries.push(Entry { step: entry.step.clone(), item: entry.item, ..wait });
                }
                entries.push(entry);
            }
            match page.cursor {
                Some(cursor) => scan = scan.after(cursor),
                None => break,
            }
        }
        entries.sort_by_key(|entry| {
            (entry.began_at, entry.ended_at.unwrap_or(entry.began_at), entry.event.rank())
        });
        Ok(Some(entries))
    }
}

/// What the records of a run say of its past.
fn entries(journal: &Journal) -> Vec<Entry> {
    let record = &journal.record;
    let mut entries = vec![Entry::of(Event::Started, record.started_at)];
    for record in journal.steps.values() {
        let (event, error) = match &record.end {
            StepEnd::Done(_) if record.waited => (Event::Wait, None),
            StepEnd::Done(_) => (Event::Attempt, None),
            StepEnd::Skipped(error) => (Event::Skipped, Some(error)),
            StepEnd::NotTaken => (Event::NotTaken, None),
            StepEnd::Failed(error) => (Event::Failure, Some(error)),
        };
        let entry = Entry::of(event, record.began_at).until(record.ended_at).attempt(record.attempt);
        entries.push(Entry { error: error.cloned(), ..entry.step(&record.name) });
    }
    for (&(_, item), record) in &journal.items {
        let entry = Entry::of(Event::Attempt, record.began_at).until(record.ended_at).attempt(record.attempt);
        entries.push(entry.item(Some(item)).step(&record.name));
    }
    for record in journal.undone.values() {
        let event = if record.error.is_some() { Event::CompensationFailure } else { Event::Compensation };
        let entry = Entry::of(event, record.began_at).until(record.ended_at).attempt(record.attempt);
        entries.push(Entry { error: record.error.clone(), ..entry.step(&record.name) });
    }
    for (slot, open) in &record.open {
        if let (Ok(_), Some(began_at), 0) = (slot.parse::<usize>(), open.began_at, open.failures) {
            entries.push(Entry::of(Event::Wait, began_at).step(&open.name).next(open.until));
        }
    }
    if let Some(at) = record.cancelled_at {
        entries.push(Entry::of(Event::Cancelled, at));
    }
    if let Some(at) = record.finished_at {
        let entry = Entry::of(Event::Ended, at);
        // A failed step's own entry says why; what stopped the run from outside is said here.
        let outside = |error: &&StepError| {
            matches!(error.kind(), StepErrorKind::Cancelled | StepErrorKind::DeadlineExceeded)
        };
        let error = record.error.as_ref().filter(outside).cloned();
        entries.push(Entry { error, ..entry });
    }
    entries
}
