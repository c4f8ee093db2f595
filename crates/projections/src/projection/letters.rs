use evenkeel_core::{Batch, Error, ErrorKind, Expect, Op, Partition, Read, Result, StoreExt, Transactional};

use super::cursor::{Entry, StoredEntry};
use super::drive::{Drive, Stop};
use super::partition::PartitionRun;
use super::patience::Patience;
use super::unit::{Unit, json};
use super::{Mode, Projection};
use crate::projector::Effects;
use crate::{Failure, Letter, OnFailure, Policy, Projector, Recorded, places, settle};

/// How many events of a stream are read at a time.
const PAGE: usize = 500;

/// Where a parked stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// At the event that failed.
    Failed,
    /// After it.
    Next,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Applies a parked stream from the event that failed on, and lets it run with the others again
    /// when none is left.
    ///
    /// # Errors
    /// `Unexpected` where an event fails again: the stream stays parked, there. `NotFound` where it
    /// is not parked.
    pub async fn retry_parked(&self, stream: &str) -> Result<()> {
        self.unpark(stream, From::Failed).await
    }

    /// As [`retry_parked`](Self::retry_parked), but leaves out the event that failed.
    pub async fn dismiss_parked(&self, stream: &str) -> Result<()> {
        self.unpark(stream, From::Next).await
    }

    /// Applies an event that was skipped, after all that was applied since.
    ///
    /// # Errors
    /// `Unexpected` where it fails again, and stays a dead letter; `NotFound` where it is none any
    /// more, or was forgotten.
    pub async fn retry_dead(&self, letter: &Letter) -> Result<()> {
        self.again(|| self.try_dead(letter)).await
    }

    async fn unpark(&self, stream: &str, from: From) -> Result<()> {
        // The event is left out once, however often the rest is begun anew.
        if from == From::Next {
            self.again(|| self.skip_parked(stream)).await?;
        }
        self.again(|| self.try_parked(stream)).await
    }

    /// Does something until nobody else writes the same meanwhile.
    async fn again<F: Future<Output = Result<()>>>(&self, work: impl Fn() -> F) -> Result<()> {
        let mut patience = Patience::default();
        while let Err(error) = work().await {
            patience.another(self.shared.clock(), error).await?;
        }
        Ok(())
    }

    async fn open_parked(&self, stream: &str) -> Result<(PartitionRun<P, S>, Entry<P::State>)> {
        let run = self.open(self.shared.events.partition_of(stream)).await?;
        let entry = match self.shared.settings.mode {
            Mode::Keyed => run.load_entry(stream).await?,
            Mode::Stream => return Err(not_parked(stream)),
        };
        if entry.is_parked { Ok((run, entry)) } else { Err(not_parked(stream)) }
    }

    async fn open(&self, at: Partition) -> Result<PartitionRun<P, S>> {
        let version = self.shared.operations.control().await?.active;
        PartitionRun::open(&self.shared, at, version, Effects::Live).await
    }

    async fn skip_parked(&self, stream: &str) -> Result<()> {
        let (run, mut entry) = self.open_parked(stream).await?;
        let key = places::parked(&run.group, stream);
        let letter = self.shared.store().get_json::<Failure>(&run.at, self.shared.now(), &key).await?;
        let (failed, _) = letter.ok_or_else(|| not_parked(stream))?;
        entry.version = entry.version.max(failed.version);
        let mut batch = Batch::new(run.at.clone(), self.shared.now());
        run.put_entry(&mut batch, stream, &entry)?;
        self.shared.unless_retired(&mut batch, run.version);
        settle::commit(self.shared.store(), self.shared.clock(), batch).await.map(drop)
    }

    async fn try_parked(&self, stream: &str) -> Result<()> {
        let (run, entry) = self.open_parked(stream).await?;
        let mut entry = match run.bring_up(stream, entry).await {
            Ok((entry, _)) => entry,
            Err(Stop::Store(error)) => return Err(error),
            Err(Stop::Failed(failure)) => {
                let mut batch = Batch::new(run.at.clone(), self.shared.now());
                batch.put(places::parked(&run.group, stream), json(&failure)?, Expect::Present);
                settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
                return Err(self.stopped(&run.at, &failure));
            }
        };
        entry.is_parked = false;
        let mut batch = Batch::new(run.at.clone(), self.shared.now());
        run.put_entry(&mut batch, stream, &entry)?;
        // Whoever runs the partition has passed over the stream, up to where the position was when
        // the stream was read. Writing the position makes it read again what it passes over now.
        run.put_position(&mut batch)?;
        batch.delete(places::parked(&run.group, stream), Expect::Any);
        settle::commit(self.shared.store(), self.shared.clock(), batch).await.map(drop)
    }

    async fn try_dead(&self, letter: &Letter) -> Result<()> {
        let mut run = self.open(letter.at.clone()).await?;
        let key = places::dead(&run.group, &letter.at, letter.failure.position);
        let gone = || {
            Error::new(ErrorKind::NotFound, "there is no such dead letter, or its event was forgotten")
                .with("projection", self.name())
                .with("position", letter.failure.position)
        };
        let found = self.shared.store().get_one(&run.at, self.shared.now(), &key).await?;
        let record = found.ok_or_else(gone)?;
        let before = letter.failure.position.checked_sub(1).ok_or_else(gone)?;
        let read = Read::partition(before, 1);
        let event = self.shared.events.read(&run.at, read).await?.events.into_iter().next();
        let event = event.filter(|event| event.position == letter.failure.position).ok_or_else(gone)?;
        let entry = match run.whole.take() {
            Some(whole) => whole,
            None => run.load_entry(&event.stream).await?,
        };
        if entry.is_parked {
            return Err(Error::new(ErrorKind::InvalidInput, "the event's stream is parked, and comes first")
                .with("stream", &event.stream));
        }
        let mut cursor = run.cursor.clone();
        let drive = Drive {
            entries: vec![entry],
            cursor: Some(&mut cursor),
            policy: Policy::new(OnFailure::Fail),
            last: vec![Op::Delete { key, expect: Expect::Version(record.version) }],
            ..run.drive()
        };
        let applied = drive.run(vec![Unit { slot: 0, events: vec![event] }]).await;
        match applied {
            Ok(_) => Ok(()),
            Err(Stop::Store(error)) => Err(error),
            Err(Stop::Failed(failure)) => Err(self.stopped(&run.at, &failure)),
        }
    }
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> PartitionRun<P, S> {
    /// Applies what a stream has beyond its state, also beyond the partition's position, and
    /// whether it is parked or not; where that fails, it stays so. Says at which version of the
    /// stream nothing was left.
    pub(super) async fn bring_up(
        &self,
        stream: &str,
        mut entry: Entry<P::State>,
    ) -> Result<(Entry<P::State>, u64), Stop> {
        loop {
            let (events, head) = self.after(stream, entry.version).await?;
            if events.is_empty() {
                return Ok((entry, head));
            }
            let was_parked = std::mem::replace(&mut entry.is_parked, false);
            let drive = Drive {
                entries: vec![entry],
                policy: Policy::new(OnFailure::Fail),
                keeps_parked: was_parked,
                ..self.drive()
            };
            let applied = drive.run(vec![Unit { slot: 0, events }]).await?;
            entry = applied.into_iter().next().expect("an entry comes back for each that is given");
            entry.is_parked = was_parked;
        }
    }

    /// The next events of a stream that the projector wants, and the stream's version.
    async fn after(&self, stream: &str, version: u64) -> Result<(Vec<Recorded>, u64)> {
        let mut after = version;
        loop {
            let read = Read::stream(stream, after, PAGE).filter(self.shared.projector.filter());
            let page = self.shared.events.read(&self.at, read).await?;
            if !page.events.is_empty() || page.examined_to >= page.head {
                return Ok((page.events, page.head));
            }
            after = page.examined_to;
        }
    }

    pub(super) async fn load_entry(&self, stream: &str) -> Result<Entry<P::State>> {
        let entries = self.load_entries(&[stream.to_owned()]).await?;
        Ok(entries.into_iter().next().expect("an entry is loaded for each stream asked for"))
    }

    pub(super) fn put_entry(&self, batch: &mut Batch, stream: &str, entry: &Entry<P::State>) -> Result<()> {
        let (version, parked, state) = (entry.version, entry.is_parked, &entry.state);
        let key = places::keyed_state(&self.group, stream);
        batch.put(key, json(&StoredEntry { version, parked, state })?, entry.expect());
        Ok(())
    }
}

fn not_parked(stream: &str) -> Error {
    Error::new(ErrorKind::NotFound, "the stream is not parked").with("stream", stream)
}
