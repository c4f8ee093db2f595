use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Partition, Result, Signal, Signals, Store, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::choreographer::{Choreographer, Engine};
use super::journal::Journal;
use super::places;
use super::records::{SetPart, StepEnd, StepRecord, corrupt};
use crate::error::StepError;
use crate::key::{StepKey, Value};
use crate::outcome::RunState;

/// The waits of one who waits for a run between looks at it: the first, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The least time between two looks, however many hints there are.
const BREATH: Duration = Duration::from_millis(20);

/// A durable run as it stands, or as it ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// The version of its definition.
    pub version: String,
    /// Where it stands.
    pub state: RunState,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What it was started with.
    pub input: Box<RawValue>,
    /// What stopped it, or why it is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// What did not stop it: skipped jobs, timeouts of waits, compensations that failed.
    pub errors: Vec<StepError>,
    /// The values of the jobs, by the names of their steps.
    pub values: BTreeMap<String, Box<RawValue>>,
    /// The values of the pre-checks, likewise.
    pub pre_checks: BTreeMap<String, Box<RawValue>>,
}

impl Run {
    /// The value of a step's job; `None` where it has none.
    ///
    /// # Errors
    /// `Corrupt` where the value is not of the key's type.
    pub fn get<T: Value, P>(&self, key: StepKey<T, P>) -> Result<Option<T>> {
        self.read(&self.values, key.name())
    }

    /// The value of a step's pre-check; `None` where it has none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn pre_check<T, P: Value>(&self, key: StepKey<T, P>) -> Result<Option<P>> {
        self.read(&self.pre_checks, key.name())
    }

    fn read<T: Value>(&self, values: &BTreeMap<String, Box<RawValue>>, step: &str) -> Result<Option<T>> {
        let value = values.get(step).map(|json| serde_json::from_str(json.get())).transpose();
        value.map_err(|source| corrupt(&self.id, step).with_source(source))
    }
}

impl<S: Store + Clone> Choreographer<S> {
    /// A run as it stands; `None` where there is no such run.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn inspect(&self, run: &str) -> Result<Option<Run>> {
        self.engine.inspect(&self.engine.at(run), run).await
    }

    /// Waits until a run has come to its end, or is parked. Dropping the future changes nothing.
    ///
    /// # Errors
    /// `NotFound` where there is no such run; those of the store.
    pub async fn outcome(&self, run: &str) -> Result<Run> {
        let (engine, at) = (&self.engine, self.engine.at(run));
        let clock = &engine.settings.clock;
        let mut waiter = engine.shared.waiters.wait(&at, run);
        // What this process works on, or is about to, it need not ask the store for.
        let mut here = waiter.is_expected() || engine.shared.holds(&at, run);
        let mut signals = None;
        let mut wait = LOOKS.0;
        loop {
            if !here {
                // Before the look, so that nothing falls between.
                signals.get_or_insert_with(|| engine.store.signals());
                let (record, _) = engine.record(&at, run).await?;
                if record.state != RunState::Running {
                    let found = engine.inspect(&at, run).await?;
                    return found.ok_or_else(|| {
                        Error::new(ErrorKind::NotFound, "the run was forgotten")
                            .with("run", format_args!("{run:?}"))
                    });
                }
            }
            let elsewhere = async {
                match &mut signals {
                    Some(signals) if !here => hint(signals, &at).await,
                    _ => std::future::pending().await,
                }
                clock.sleep(BREATH).await;
            };
            tokio::select! {
                ended = waiter.next() => return Ok(ended),
                () = elsewhere => {}
                () = clock.sleep(wait) => wait = (wait * 2).min(LOOKS.1),
            }
            here = engine.shared.holds(&at, run);
        }
    }
}

/// Waits for a hint that a run of the partition may have ended.
async fn hint(signals: &mut Signals, at: &Partition) {
    loop {
        match signals.next().await {
            Signal::Queue { at: where_, queue } if where_ == *at && queue == places::RUNS => return,
            Signal::Missed => return,
            Signal::Queue { .. } | Signal::Log { .. } => {}
        }
    }
}

impl Engine {
    async fn inspect(&self, at: &Partition, run: &str) -> Result<Option<Run>> {
        places::check_run_id(run)?;
        let Some(journal) = Journal::load(&self.store, at, run, self.now()).await? else { return Ok(None) };
        Ok(Some(Run::of(run, &journal)))
    }
}

impl Run {
    /// The run as it stands in its journal.
    pub(crate) fn of(id: &str, journal: &Journal) -> Self {
        let Journal { record, .. } = journal;
        let mut steps: Vec<_> = journal.steps.values().collect();
        steps.sort_by_key(|record| record.order);
        let (mut values, mut pre_checks, mut errors) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for StepRecord { name, end, pre_check, set, .. } in steps {
            for set in set {
                let into = match set.part {
                    SetPart::Job => &mut values,
                    SetPart::PreCheck => &mut pre_checks,
                };
                into.insert(set.name.clone(), set.value.clone());
            }
            pre_checks.extend(pre_check.clone().map(|value| (name.clone(), value)));
            match end {
                StepEnd::Done(value) => drop(values.insert(name.clone(), value.clone())),
                StepEnd::Skipped(error) => errors.push(error.clone()),
                StepEnd::NotTaken | StepEnd::Failed(_) => {}
            }
        }
        errors.extend(journal.undone.values().filter_map(|undone| undone.error.clone()));
        Self {
            id: id.to_owned(),
            definition: record.definition.clone(),
            version: record.version.clone(),
            state: record.state,
            started_at: record.started_at,
            finished_at: record.finished_at,
            deadline: record.deadline,
            input: journal.input.clone(),
            error: record.error.clone().or_else(|| record.parked.clone()),
            errors,
            values,
            pre_checks,
        }
    }
}
