//! What is written for an operation, and how it is read back.

use std::borrow::Cow;

use bytes::Bytes;
use evenkeel_core::{Batch, Expect, Key, Partition, Record, Version};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Result;
use crate::operation::Place;
use crate::state::{INDEX, RECORDS, padded};
use crate::{OnExpired, Status, Tracked};

/// Puts the operation's record over the version that was there.
pub(crate) fn put_record<S>(
    batch: &mut Batch,
    place: &Place,
    tracked: &Tracked,
    encoded: Bytes,
    version: Version,
    engine: &Engine<S>,
) {
    put_expecting(batch, place, tracked, encoded, Expect::Version(version), engine);
}

/// Puts the operation's record where `expect` holds.
pub(crate) fn put_expecting<S>(
    batch: &mut Batch,
    place: &Place,
    tracked: &Tracked,
    encoded: Bytes,
    expect: Expect,
    engine: &Engine<S>,
) {
    match tracked.kept_until(engine.settings.retention) {
        Some(until) => batch.put_until(place.key.clone(), encoded, expect, until),
        None => batch.put(place.key.clone(), encoded, expect),
    };
}

/// Where an operation is listed.
#[derive(PartialEq)]
pub(crate) struct Entry {
    status: Status,
    id: String,
}

impl Entry {
    /// Where an operation is listed that runs.
    pub(crate) fn running(place: &Place) -> Self {
        Self { status: Status::Running, id: place.id.clone() }
    }

    /// Where `tracked` may be listed; nowhere where it has ended and does not expire.
    pub(crate) fn of(tracked: &Tracked, place: &Place) -> Option<Self> {
        let id = match tracked.status {
            Status::Running => return Some(Self::running(place)),
            Status::Finished | Status::Failed => format!("{}.{}", padded(tracked.expires_at?), place.id),
        };
        Some(Self { status: tracked.status, id })
    }
}

/// Lists the operation under its status, and not any more as it was `before`. One that has ended is
/// listed only where somebody will want to find it.
pub(crate) fn list<S>(
    batch: &mut Batch,
    place: &Place,
    before: Option<Entry>,
    tracked: &Tracked,
    engine: &Engine<S>,
) {
    let is_listed =
        |entry: &Entry| entry.status == Status::Running || engine.settings.on_expired == OnExpired::Delete;
    let now = Entry::of(tracked, place).filter(is_listed);
    if let Some(left) = before.filter(|before| Some(before) != now.as_ref()) {
        INDEX.leave(batch, left.status.group(), &left.id);
    }
    if let Some(Entry { status, id }) = now {
        let pointer = Pointer { group: Cow::from(&place.key.group), id: Cow::from(&place.key.id) };
        let pointer = serde_json::to_vec(&pointer).expect("two texts turn into JSON");
        match tracked.kept_until(engine.settings.retention) {
            Some(until) if status != Status::Running => {
                batch.put_until(INDEX.key(status.group(), &id), pointer, Expect::Any, until);
            }
            _ => INDEX.enter(batch, status.group(), &id, pointer),
        }
    }
}

/// What an entry of the index says: where the operation's record is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pointer<'a> {
    group: Cow<'a, str>,
    id: Cow<'a, str>,
}

impl Pointer<'_> {
    /// Where the operation is that an entry of partition `at` stands for.
    pub(crate) fn place(at: &Partition, hash: &str, entry: &Record) -> Result<Place> {
        let pointer: Pointer<'_> = serde_json::from_slice(&entry.value).map_err(|source| {
            evenkeel_core::Error::new(
                evenkeel_core::ErrorKind::Corrupt,
                "an entry of the index is unreadable",
            )
            .with("entry", hash)
            .with_source(source)
        })?;
        let key = Key::new(RECORDS, pointer.group, pointer.id);
        Ok(Place { at: at.clone(), key, id: hash.to_owned() })
    }
}

/// What stands in the store for an operation.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) tracked: Tracked,
    pub(crate) version: Version,
}

impl Sight {
    pub(crate) fn read(record: Option<Record>, place: &Place) -> Result<Option<Self>> {
        record
            .map(|record| Ok(Self { tracked: Tracked::decode(&record, place)?, version: record.version }))
            .transpose()
    }
}
