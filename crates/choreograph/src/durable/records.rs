//! What is kept of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result, Timestamp, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::StepError;
use crate::outcome::RunState;

/// What the run's own record has room for, in bytes of input and parts. It is written again with
/// each part that it takes in, so what is longer would cost more there than in records of its own.
const ROOM: usize = 1536;

/// The run itself, and what finished in it as long as that is short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) definition: String,
    pub(crate) version: String,
    pub(crate) state: RunState,
    pub(crate) started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<Timestamp>,
    /// How long after its start, or the last retry, the deadline is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_after: Option<Duration>,
    /// The attempt of the run's job at which it was last put back in order. A holder whose attempt
    /// is not the next one knows that another began and vanished.
    #[serde(default)]
    pub(crate) released: u32,
    /// It was put back, and what a vanished holder did was not yet looked into.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) in_doubt: bool,
    /// A person decided to go on: nothing is in doubt, whatever the attempt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) resumed: bool,
    /// When somebody asked to stop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cancelled_at: Option<Timestamp>,
    /// Why it is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parked: Option<StepError>,
    /// What stopped it: from here on it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepError>,
    /// What there is to remember of steps, items and compensations that have not come to their end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) open: BTreeMap<String, Open>,
    /// How many entries its history has.
    #[serde(default)]
    pub(crate) entries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Parent>,
    /// What it was started with, where that is short: with a longer one, which is a record of its own,
    /// it would cost too much to write this again.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<Box<RawValue>>,
    /// Some of its steps are forgotten already: there is no way back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) forgotten: bool,
    /// What would else be records of their own, by the ids of those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parts: BTreeMap<String, Box<RawValue>>,
}

impl RunRecord {
    /// Takes a part of the run in, or hands it back where there is no room for it.
    pub(crate) fn take_in(&mut self, id: String, part: Box<RawValue>) -> Result<(), (String, Box<RawValue>)> {
        let input = self.input.as_ref().map_or(0, |input| input.get().len());
        let parts: usize = self.parts.iter().map(|(id, part)| id.len() + part.get().len()).sum();
        if input + parts + id.len() + part.get().len() > ROOM {
            return Err((id, part));
        }
        self.parts.insert(id, part);
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A step, an item or a compensation that has not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// The name of the step.
    pub(crate) name: String,
    /// How many attempts failed.
    #[serde(default)]
    pub(crate) failures: u32,
    /// How often it was cut off.
    #[serde(default)]
    pub(crate) interruptions: u32,
    /// When it was reached, or first attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) began_at: Option<Timestamp>,
    /// What it waits for at most: the next attempt, the end of a sleep, a timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// Its condition held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) taken: bool,
}

impl Open {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, failures: 0, interruptions: 0, began_at: None, until: None, taken: false }
    }
}

/// What the end of a run is told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub(crate) run: String,
    pub(crate) step: usize,
}

/// A step that came to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) name: String,
    /// Counted over all steps of the run in the order in which they ended.
    pub(crate) order: u64,
    pub(crate) attempt: u32,
    pub(crate) began_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) end: StepEnd,
    /// It has no job: it waited for a time, a signal or a child.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) waited: bool,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) pre_check: Option<Box<RawValue>>,
    /// What its callbacks set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) set: Vec<SetValue>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepEnd {
    Done(Box<RawValue>),
    Skipped(StepError),
    NotTaken,
    Failed(StepError),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SetValue {
    /// The name of the step that it is a value of.
    pub(crate) name: String,
    pub(crate) part: SetPart,
    pub(crate) value: Box<RawValue>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SetPart {
    Job,
    PreCheck,
}

/// A compensation that came to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UndoRecord {
    /// The name of the step.
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) began_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepError>,
}

/// The value of an item of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ItemRecord {
    /// The name of the step.
    pub(crate) name: String,
    pub(crate) value: Box<RawValue>,
    pub(crate) attempt: u32,
    pub(crate) began_at: Timestamp,
    pub(crate) ended_at: Timestamp,
}

/// A signal. It stays after it was taken, so that the same one is not taken again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SignalRecord {
    pub(crate) name: String,
    pub(crate) sent_at: Timestamp,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
}

/// How the child of a step ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChildRecord {
    pub(crate) run: String,
    pub(crate) state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepError>,
    #[serde(default)]
    pub(crate) values: BTreeMap<String, serde_json::Value>,
}

/// What the job of a new run carries: all that is kept of the run, so that who takes it need not
/// read it. Whoever adds something to a run, or changes it, pushes its job without this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewRunJob {
    pub(crate) record: RunRecord,
    pub(crate) version: Version,
}

/// What an entry of the index says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IndexEntry {
    pub(crate) run: String,
    pub(crate) definition: String,
    pub(crate) started_at: Timestamp,
}

/// What is there is a value, `null` too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

pub(crate) fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("what is kept of a run is JSON").into()
}

/// What is to be a part of the run.
pub(crate) fn as_part(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("what is kept of a run is JSON")
}

pub(crate) fn decode<T: DeserializeOwned>(run: &str, what: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|source| corrupt(run, what).with_source(source))
}

pub(crate) fn corrupt(run: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "what is kept of a run cannot be read")
        .with("run", format_args!("{run:?}"))
        .with("record", what)
}
