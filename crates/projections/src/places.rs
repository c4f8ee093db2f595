//! Where everything is kept. What is a projection's is grouped by its name and version.

use evenkeel_core::{Key, Partition};
use uuid::Uuid;

/// The kind of the event that ends a deleted stream.
pub(crate) const TOMBSTONE: &str = "evenkeel.stream-deleted";

pub(crate) const EVENT_IDS: &str = "projections.event-id";
pub(crate) const TOMBSTONES: &str = "projections.tombstone";

/// Stands for as long as a stream is deleted; its value is the version of the tombstone.
pub(crate) fn tombstone(stream: &str) -> Key {
    Key::new(TOMBSTONES, ALL, stream)
}

/// Takes an event's id, where ids are unique.
pub(crate) fn event_id(id: Uuid) -> Key {
    Key::new(EVENT_IDS, ALL, id.to_string())
}

/// The state of an aggregate at a version of its stream.
pub(crate) fn snapshot(aggregate: &'static str, id: &str) -> Key {
    Key::new("projections.snapshot", aggregate, id)
}

/// The group of what is listed all together.
pub(crate) const ALL: &str = "all";
pub(crate) const PROJECTIONS: &str = "projections.active";
pub(crate) const STATE: &str = "projections.state";
pub(crate) const PARKED: &str = "projections.parked";
pub(crate) const NODES: &str = "projections.node";
pub(crate) const DEAD: &str = "projections.dead";

/// What is to run, in the projection's home partition.
pub(crate) fn control(name: &str) -> Key {
    Key::new(PROJECTIONS, ALL, name)
}

/// Stands from when a version of a projection was initialised, in its home partition.
pub(crate) fn initialised(name: &str, version: u32) -> Key {
    Key::new("projections.version", name, number(version))
}

/// How far a version has come, in each partition.
pub(crate) fn position(name: &str, version: u32) -> Key {
    Key::new("projections.position", name, number(version))
}

/// Stands in each partition where nothing is committed for a version any more: another has taken
/// over, or it was discarded. It stays, since who does not know of it yet must not begin anew.
pub(crate) fn retired(name: &str, version: u32) -> Key {
    Key::new("projections.retired", name, number(version))
}

/// When a version was compacted last, in each partition.
pub(crate) fn compacted(name: &str, version: u32) -> Key {
    Key::new("projections.compacted", name, number(version))
}

/// What belongs to a version beside its position.
pub(crate) fn group(name: &str, version: u32) -> String {
    format!("{name}/{}", number(version))
}

/// The state of a stream, in a keyed projection.
pub(crate) fn keyed_state(group: &str, stream: &str) -> Key {
    Key::new(STATE, group, stream)
}

/// Whether a key is that of a stream's state in a version.
pub(crate) fn is_state_of(group: &str, key: &Key) -> bool {
    key.space == STATE && key.group == group
}

/// A stream that is set apart, in a keyed projection.
pub(crate) fn parked(group: &str, stream: &str) -> Key {
    Key::new(PARKED, group, stream)
}

/// An event that was skipped.
pub(crate) fn dead(group: &str, at: &Partition, position: u64) -> Key {
    // With the partition, so that it is one letter's in a listing of all of them.
    Key::new(DEAD, group, format!("{position:020}-{}", at.index()))
}

/// The longest name of a projection, in bytes: with what is put before and after it, it is a part
/// of a key and the name of a queue.
pub(crate) const LONGEST_NAME: usize = Key::MAX_PART - "projections.run/".len();

/// Who runs a projection in a partition.
pub(crate) fn queue(name: &str) -> String {
    format!("projections.run/{name}")
}

fn number(version: u32) -> String {
    format!("{version:010}")
}
