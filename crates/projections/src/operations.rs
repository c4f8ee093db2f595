use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    AnyStore, Batch, Clock, Error, ErrorKind, Expect, Key, MergedRecord, Partition, Read, Result, Scan,
    Store, StoreExt, SystemClock, Timestamp,
};
use serde_json::value::RawValue;

use crate::control::Control;
use crate::projection::Position;
use crate::{Failure, places, settle};

/// A projection by its name, as an operator sees it: how far it is, and what is to run of it. It
/// takes no projector, and works wherever the store can be reached.
///
/// Methods fail as [`Store::get`] and [`Store::commit`] do, besides what they say.
#[derive(Clone)]
pub struct Operations<S = AnyStore> {
    pub(crate) store: S,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) name: Arc<str>,
}

/// How often the mark of a stop is cleared where the same record is written meanwhile.
const ATTEMPTS: usize = 10;

/// How a version of a projection is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The projection's name.
    pub name: String,
    /// The version that this is about.
    pub version: u32,
    /// The version that readers read.
    pub active: u32,
    /// The version that is to take its place.
    pub building: Option<u32>,
    /// Whether nothing is to run.
    pub paused: bool,
    /// Each partition.
    pub partitions: Vec<PartitionStatus>,
}

/// How a version of a projection is doing in a partition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition.
    pub at: Partition,
    /// The last position applied or passed over.
    pub position: u64,
    /// The last position there is.
    pub head: u64,
    /// For how long the oldest event beyond the position has been waiting; zero where there is
    /// none.
    pub behind: Duration,
    /// For how long the position has stood still; `None` where it never moved.
    pub still: Option<Duration>,
    /// Where it stopped, and why.
    pub failed: Option<Failure>,
}

impl PartitionStatus {
    /// How many events are beyond the position.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }

    /// Whether the position moves where there is something to move to: false where it stopped, and
    /// where an event has been waiting for longer than `patience` and the position has stood still
    /// for as long.
    #[must_use]
    pub fn is_healthy(&self, patience: Duration) -> bool {
        let stands = self.still.is_none_or(|still| still > patience);
        self.failed.is_none() && !(stands && self.behind > patience)
    }
}

impl Status {
    /// How many events are beyond the positions of all partitions.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionStatus::lag).sum()
    }

    /// How many of how many positions are done: the progress of a rebuild.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let sum = |of: fn(&PartitionStatus) -> u64| self.partitions.iter().map(of).sum();
        (sum(|at| at.position), sum(|at| at.head))
    }

    /// Whether all partitions are [healthy](PartitionStatus::is_healthy); so is what is paused.
    #[must_use]
    pub fn is_healthy(&self, patience: Duration) -> bool {
        self.paused || self.partitions.iter().all(|at| at.is_healthy(patience))
    }
}

/// What was set apart or skipped: a parked stream or a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// Its partition.
    pub at: Partition,
    /// By what it is listed: a parked stream's name, or a dead letter's position with zeros
    /// before it and the partition's index after it.
    pub id: String,
    /// The event, and why it was not applied.
    pub failure: Failure,
}

impl<S: Store + Clone> Operations<S> {
    /// The projection called `name`, 1 to 496 bytes.
    #[must_use]
    pub fn new(store: S, name: impl Into<Arc<str>>) -> Self {
        Self { store, clock: SystemClock::shared(), name: name.into() }
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The names of up to `limit` projections that have ever run, in byte order, beyond `after`.
    pub async fn list(store: &S, now: Timestamp, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let mut scan = Scan::new(places::PROJECTIONS, places::ALL, limit, now);
        scan.after = after.map(str::to_owned);
        Ok(store.scan_merged(scan).await?.into_iter().map(|found| found.id).collect())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the active version is doing.
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run; `Corrupt` where a log ends before the
    /// position.
    pub async fn status(&self) -> Result<Status> {
        let control = self.known().await?;
        self.status_in(&control, control.active).await
    }

    /// How a version is doing; as [`status`](Self::status).
    pub async fn status_of(&self, version: u32) -> Result<Status> {
        let control = self.known().await?;
        self.status_in(&control, version).await
    }

    /// Stops it everywhere, within one poll.
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run.
    pub async fn pause(&self) -> Result<()> {
        self.known().await?;
        self.change(|control| {
            control.paused = true;
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Lets it run again, also where it stopped at an event that failed.
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run.
    pub async fn resume(&self) -> Result<()> {
        self.known().await?;
        let control = self
            .change(|control| {
                control.paused = false;
                Ok(())
            })
            .await?;
        for at in self.store.partitions() {
            for version in [Some(control.active), control.building].into_iter().flatten() {
                self.forget_failure(&at, version).await?;
            }
        }
        Ok(())
    }

    /// Asks for a new version of the read model, to be built from the first event beside the active
    /// one by whoever [runs](crate::Projection::run) the projection; returns its number. Where one is
    /// being built already, it goes on.
    ///
    /// The new version follows the active one, beside it, and never passes it. Once it has come, in
    /// every partition, to where the active one was at the last look, it becomes the active one by
    /// one compare-and-set: readers may find the newest events missing that the other had by then,
    /// for a moment. Its handlers are given no [effects](crate::Context::effects) for what the ones
    /// before have applied.
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run.
    pub async fn start_rebuild(&self) -> Result<u32> {
        self.known().await?;
        let control = self
            .change(|control| {
                if control.building.is_none() {
                    control.latest += 1;
                    control.building = Some(control.latest);
                }
                Ok(())
            })
            .await?;
        Ok(control.building.expect("one is being built, since that was asked for"))
    }

    /// Gives up the version that is being built, where there is one; it is to be
    /// [discarded](crate::Projection::discard).
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run.
    pub async fn cancel_rebuild(&self) -> Result<Option<u32>> {
        let found = self.known().await?.building;
        self.change(|control| {
            control.building = None;
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Begins anew with an empty read model, a new version that is the active one at once; returns
    /// its number.
    ///
    /// Its handlers are given no [effects](crate::Context::effects) for what the versions before
    /// have applied.
    ///
    /// # Errors
    /// `NotFound` where no projection of this name has run.
    pub async fn reset(&self) -> Result<u32> {
        self.known().await?;
        let control = self
            .change(|control| {
                control.latest += 1;
                control.activate(control.latest);
                Ok(())
            })
            .await?;
        Ok(control.active)
    }

    /// Up to `limit` streams that are set apart, by their names, beyond `after`.
    pub async fn parked(&self, after: Option<&str>, limit: usize) -> Result<Vec<Letter>> {
        self.letters(places::PARKED, after, limit).await
    }

    /// Up to `limit` events that were skipped, by their positions, beyond the letter `after`.
    pub async fn dead_letters(&self, after: Option<&str>, limit: usize) -> Result<Vec<Letter>> {
        self.letters(places::DEAD, after, limit).await
    }

    /// The dead letter of this id; `None` where there is no such, or not any more.
    pub async fn dead_letter(&self, id: &str) -> Result<Option<Letter>> {
        let group = places::group(&self.name, self.known().await?.active);
        let index = id.rsplit_once('-').map(|(_, index)| index);
        let home = |at: &Partition| Some(at.index().to_string().as_str()) == index;
        let Some(at) = self.store.partitions().into_iter().find(home) else { return Ok(None) };
        let key = Key::new(places::DEAD, group, id);
        let Some(record) = self.store.get_one(&at, self.now(), &key).await? else { return Ok(None) };
        letter(MergedRecord { at, id: key.id, record }).map(Some)
    }

    /// Forgets a dead letter: its event stays skipped. Forgetting it again succeeds.
    pub async fn dismiss_dead(&self, letter: &Letter) -> Result<()> {
        let group = places::group(&self.name, self.known().await?.active);
        let mut batch = Batch::new(letter.at.clone(), self.now());
        batch.delete(places::dead(&group, &letter.at, letter.failure.position), Expect::Any);
        self.store.commit(batch).await.map(drop)
    }

    pub(crate) async fn known(&self) -> Result<Control> {
        let found = self.find_control().await?;
        let unknown = || {
            Error::new(ErrorKind::NotFound, "no projection of this name has run")
                .with("projection", &self.name)
        };
        Ok(found.ok_or_else(unknown)?.0)
    }

    pub(crate) async fn stored_position(&self, at: &Partition, version: u32) -> Result<Position> {
        let key = places::position(&self.name, version);
        let found = self.store.get_json::<Position>(at, self.now(), &key).await?;
        Ok(found.map_or_else(Position::default, |(position, _)| position))
    }

    async fn status_in(&self, control: &Control, version: u32) -> Result<Status> {
        let mut partitions = Vec::new();
        for at in self.store.partitions() {
            partitions.push(self.partition_status(at, version).await?);
        }
        let Control { active, building, paused, .. } = *control;
        Ok(Status { name: (*self.name).to_owned(), version, active, building, paused, partitions })
    }

    async fn partition_status(&self, at: Partition, version: u32) -> Result<PartitionStatus> {
        let stored = self.stored_position(&at, version).await?;
        let Position { position, moved_at, failed, .. } = stored;
        let next = self.store.read(&at, Read::partition(position, 1)).await?;
        let now = self.now();
        let behind = next.events.first().map_or(Duration::ZERO, |event| now.since(event.recorded_at));
        let still = (moved_at != Timestamp::default()).then(|| now.since(moved_at));
        Ok(PartitionStatus { at, position, head: next.head, behind, still, failed })
    }

    /// Clears the mark of a stop; whoever moves the position meanwhile clears it too.
    async fn forget_failure(&self, at: &Partition, version: u32) -> Result<()> {
        let key = places::position(&self.name, version);
        let mut attempt = 1;
        loop {
            // With the state as it stands, which only the projector knows how to read.
            let found = self.store.get_json::<BTreeMap<String, Box<RawValue>>>(at, self.now(), &key).await?;
            let Some((mut stored, record)) = found else { return Ok(()) };
            if stored.remove("failed").is_none() {
                return Ok(());
            }
            let json = serde_json::to_vec(&stored).expect("what was JSON turns into JSON");
            let mut batch = Batch::new(at.clone(), self.now());
            batch.put(key.clone(), json, Expect::Version(record));
            match settle::commit(&self.store, &*self.clock, batch).await {
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome.map(drop),
            }
        }
    }

    async fn letters(&self, space: &'static str, after: Option<&str>, limit: usize) -> Result<Vec<Letter>> {
        let group = places::group(&self.name, self.known().await?.active);
        let mut scan = Scan::new(space, group, limit, self.now());
        scan.after = after.map(str::to_owned);
        self.store.scan_merged(scan).await?.into_iter().map(letter).collect()
    }

    /// Where what concerns the whole projection is kept.
    pub(crate) fn home(&self) -> Partition {
        self.store.partition_of(&self.name)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn letter(found: MergedRecord) -> Result<Letter> {
    let failure = serde_json::from_slice(&found.record.value).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "the record is not that of an event that failed")
            .with("id", &found.id)
            .with_source(source)
    })?;
    Ok(Letter { at: found.at, id: found.id, failure })
}

impl<S> fmt::Debug for Operations<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("name", &self.name).finish_non_exhaustive()
    }
}
