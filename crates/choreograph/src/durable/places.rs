//! Where everything is kept.

use evenkeel_core::{Error, ErrorKind, Key, Result, StateIndex, Timestamp};
use sha2::{Digest, Sha256};

/// Runs that have something to do, by their ids; those that are over are to be forgotten.
pub(crate) const RUNS: &str = "choreograph.runs";
/// What has to be done for a run in another partition.
pub(crate) const TASKS: &str = "choreograph.tasks";
/// Runs by their state, in the order in which they were started.
pub(crate) const INDEX: StateIndex = StateIndex::new("choreograph.index");

/// Everything that is kept of a run, in its group.
pub(crate) const RUN: &str = "choreograph.run";
/// What a run need not know to go on.
pub(crate) const HISTORY: &str = "choreograph.history";

/// The longest id of a run, in bytes.
const LONGEST_ID: usize = 256;

pub(crate) const RECORD: &str = "run";
pub(crate) const INPUT: &str = "input";
pub(crate) const STEP: &str = "step/";
pub(crate) const UNDO: &str = "undo/";
pub(crate) const LIST: &str = "list/";
pub(crate) const ITEM: &str = "item/";
pub(crate) const SIGNAL: &str = "signal/";
pub(crate) const CHILD: &str = "child/";

pub(crate) fn check_run_id(id: &str) -> Result<()> {
    let problem = if id.is_empty() {
        "is empty"
    } else if id.len() > LONGEST_ID {
        "is longer than 256 bytes"
    } else if id.contains('\0') {
        "holds a NUL"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("the id of a run {problem}"))
        .with("run", format_args!("{id:?}")))
}

pub(crate) fn key(run: &str, id: impl Into<String>) -> Key {
    Key::new(RUN, run, id)
}

/// The id of what is kept of a step.
pub(crate) fn of_step(prefix: &str, step: usize) -> String {
    format!("{prefix}{step:05}")
}

/// The id of what is kept of an item.
pub(crate) fn of_item(step: usize, item: usize) -> String {
    format!("{ITEM}{step:05}/{item:08}")
}

pub(crate) fn history(run: &str, entry: u64) -> Key {
    Key::new(HISTORY, run, format!("{entry:012}"))
}

/// The id of a run's entry in the index.
pub(crate) fn entry(run: &str, started_at: Timestamp) -> String {
    format!("{}.{run}", instant(started_at))
}

/// An instant as text that sorts by time.
pub(crate) fn instant(at: Timestamp) -> String {
    format!("{:020}", at.as_micros().max(0))
}

/// The id of the run that step `name` of `run` starts.
pub(crate) fn child_run(run: &str, name: &str) -> String {
    let id = format!("{run}.{name}");
    if id.len() <= LONGEST_ID {
        return id;
    }
    let hash = Sha256::digest(&id);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
