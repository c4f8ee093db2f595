//! Everything that is kept of a run, read back.

use std::collections::BTreeMap;

use evenkeel_core::{LeasedJob, Partition, Record, Result, Scan, Store, Timestamp, Version};
use serde_json::value::RawValue;

use super::places;
use super::records::{
    ChildRecord, ItemRecord, NewRunJob, RunRecord, SignalRecord, StepRecord, UndoRecord, corrupt, decode,
};

/// How many records are read at a time.
const PAGE: usize = 200;

#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) record: RunRecord,
    pub(crate) version: Version,
    pub(crate) input: Box<RawValue>,
    pub(crate) steps: BTreeMap<usize, StepRecord>,
    pub(crate) undone: BTreeMap<usize, UndoRecord>,
    pub(crate) lists: BTreeMap<usize, Vec<Box<RawValue>>>,
    pub(crate) items: BTreeMap<(usize, usize), ItemRecord>,
    /// Those that nobody has taken, by their ids.
    pub(crate) signals: BTreeMap<String, SignalRecord>,
    pub(crate) children: BTreeMap<usize, ChildRecord>,
}

impl Journal {
    /// What is kept of a run that nobody has worked on.
    pub(crate) const fn of_new(record: RunRecord, version: Version, input: Box<RawValue>) -> Self {
        Self {
            record,
            version,
            input,
            steps: BTreeMap::new(),
            undone: BTreeMap::new(),
            lists: BTreeMap::new(),
            items: BTreeMap::new(),
            signals: BTreeMap::new(),
            children: BTreeMap::new(),
        }
    }

    /// What is kept of the run of a job, where the job says all of that.
    pub(crate) fn of_job(job: &LeasedJob) -> Option<Self> {
        // Whoever held it before may have recorded something.
        if job.attempt > 1 {
            return None;
        }
        let NewRunJob { record, version } = serde_json::from_slice(&job.payload).ok()?;
        let input = record.input.clone()?;
        Some(Self::of_new(record, version, input))
    }

    /// What is kept of `run`; `None` where there is nothing.
    pub(crate) async fn load(
        store: &impl Store,
        at: &Partition,
        run: &str,
        now: Timestamp,
    ) -> Result<Option<Self>> {
        let mut records = BTreeMap::new();
        let mut scan = Scan::new(places::RUN, run, PAGE, now);
        loop {
            let page = store.scan(at, scan.clone()).await?;
            records.extend(page.records);
            match page.cursor {
                Some(cursor) => scan = scan.after(cursor),
                None => break,
            }
        }
        let Some(found) = records.remove(places::RECORD) else { return Ok(None) };
        let record: RunRecord = decode(run, places::RECORD, &found.value)?;
        let input = match (&record.input, records.remove(places::INPUT)) {
            (Some(input), _) => input.clone(),
            (None, Some(input)) => decode(run, places::INPUT, &input.value)?,
            (None, None) => {
                // Both are forgotten at once, but a store may show the half of it to a scan.
                let key = places::key(run, places::RECORD);
                let found = store.get(at, now, std::slice::from_ref(&key)).await?;
                return match found.into_iter().next().flatten() {
                    Some(_) => Err(corrupt(run, places::INPUT)),
                    None => Ok(None),
                };
            }
        };
        let mut journal = Self::of_new(record, found.version, input);
        let parts = std::mem::take(&mut journal.record.parts);
        for (id, part) in &parts {
            journal.add(run, id, part.get().as_bytes())?;
        }
        journal.record.parts = parts;
        for (id, Record { value, .. }) in &records {
            journal.add(run, id, value)?;
        }
        Ok(Some(journal))
    }

    /// Takes in what is kept under an id, in the run's own record or in one of its own.
    fn add(&mut self, run: &str, id: &str, value: &[u8]) -> Result<()> {
        let number =
            |text: &str| text.parse::<usize>().map_err(|source| corrupt(run, id).with_source(source));
        if let Some(step) = id.strip_prefix(places::STEP) {
            self.steps.insert(number(step)?, decode(run, id, value)?);
        } else if let Some(step) = id.strip_prefix(places::UNDO) {
            self.undone.insert(number(step)?, decode(run, id, value)?);
        } else if let Some(step) = id.strip_prefix(places::LIST) {
            self.lists.insert(number(step)?, decode(run, id, value)?);
        } else if let Some((step, item)) = id.strip_prefix(places::ITEM).and_then(|it| it.split_once('/')) {
            self.items.insert((number(step)?, number(item)?), decode(run, id, value)?);
        } else if let Some(signal) = id.strip_prefix(places::SIGNAL) {
            let record: SignalRecord = decode(run, id, value)?;
            if record.payload.is_some() {
                self.signals.insert(signal.to_owned(), record);
            }
        } else if let Some(step) = id.strip_prefix(places::CHILD) {
            self.children.insert(number(step)?, decode(run, id, value)?);
        }
        // Anything else was written by a later release: it is left alone.
        Ok(())
    }
}
