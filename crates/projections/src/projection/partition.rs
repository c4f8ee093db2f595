use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Batch, Error, ErrorKind, Expect, Partition, Result, Store, StoreExt, Transactional};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::cursor::{Cursor, Entry, Position, Stored, read};
use super::drive::{Drive, Stop};
use super::pace::Pace;
use super::unit::{Unit, json};
use super::window::{Source, Window};
use super::{Mode, Shared};
use crate::projector::Effects;
use crate::{Failure, Projector, Recorded, observe, places, settle};

/// How many events of a keyed projection are read at a time: the more there are of a stream, the
/// less its state costs.
const KEYED_WINDOW: usize = 16_000;

/// How often in a row a window is begun anew where states are not as they are remembered.
const STALE: u32 = 10;

/// A version of a projection in a partition, as it is run here.
///
/// What is known here is only a guess at what is stored: each commit expects it, and where that
/// fails everything is read again.
pub(crate) struct PartitionRun<P: Projector<S::Conn>, S: Transactional> {
    pub(super) shared: Arc<Shared<P, S>>,
    pub(super) at: Partition,
    pub(super) version: u32,
    pub(super) group: String,
    pub(super) effects: Effects,
    pub(super) cursor: Cursor,
    /// The states of streams that are known; or the partition's own.
    pub(super) entries: HashMap<String, Entry<P::State>>,
    pub(super) whole: Option<Entry<P::State>>,
    pace: Pace,
    turn: Mutex<()>,
    ahead: Option<Ahead>,
    /// How often in a row a state was not as it is remembered.
    stale: u32,
    has_stopped: bool,
}

/// A window that is read while the one before is applied.
struct Ahead {
    after: u64,
    read: JoinHandle<Result<Window>>,
}

/// How far a window has brought a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// There is more.
    More,
    /// There was no more when it was read.
    End,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> PartitionRun<P, S> {
    /// Reads what is stored.
    ///
    /// # Errors
    /// Those of the store; `Conflict` where another version has taken over.
    pub(crate) async fn open(
        shared: &Arc<Shared<P, S>>,
        at: Partition,
        version: u32,
        effects: Effects,
    ) -> Result<Self> {
        let name = shared.name();
        let keys = [places::position(name, version), places::retired(name, version)];
        let mut found =
            shared.store().get(&at, shared.now(), &keys).await?.into_iter().map(Option::into_iter);
        let mut next = || found.next().into_iter().flatten().next();
        let (stored, retired) = (next(), next());
        if retired.is_some() {
            return Err(replaced(name, version));
        }
        let (Stored { position, state }, record) = match stored {
            Some(record) => read::<Stored<P::State>>(&keys[0], &record).map(|(s, v)| (s, Some(v)))?,
            None => (Stored { position: Position::default(), state: None }, None),
        };
        let must_take_over = effects == Effects::Live && version > 1 && position.effects_after.is_none();
        let whole = (shared.settings.mode == Mode::Stream).then(|| Entry {
            stream: None,
            state: state.unwrap_or_default(),
            version: 0,
            is_parked: false,
            record: None,
        });
        let mut run = Self {
            shared: Arc::clone(shared),
            group: places::group(name, version),
            at,
            version,
            effects,
            cursor: Cursor { stored: position, record },
            entries: HashMap::new(),
            whole,
            pace: Pace::new(shared.settings.most_events),
            turn: Mutex::default(),
            ahead: None,
            stale: 0,
            has_stopped: false,
        };
        if must_take_over {
            run.take_over().await?;
        }
        Ok(run)
    }

    /// Takes over from the versions that were active before, once none of them commits anything
    /// here any more: so each event has its effects from one of them.
    async fn take_over(&mut self) -> Result<()> {
        let operations = &self.shared.operations;
        let control = operations.known().await?;
        if control.active != self.version {
            return Err(replaced(operations.name(), self.version));
        }
        let mut effects_after = 0;
        for version in control.previous.into_iter().rev() {
            self.shared.retire(&self.at, version).await?;
            let theirs = operations.stored_position(&self.at, version).await?;
            effects_after = effects_after.max(theirs.position).max(theirs.effects_after.unwrap_or(0));
            if theirs.effects_after.is_some() {
                // It took over from those before it.
                break;
            }
        }
        self.cursor.stored.effects_after = Some(effects_after);
        let mut batch = Batch::new(self.at.clone(), self.shared.now());
        self.put_position(&mut batch)?;
        let version = batch.version();
        settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
        self.cursor.record = Some(version);
        Ok(())
    }

    /// Where it stands, as far as it knows.
    pub(crate) fn position(&self) -> u64 {
        self.cursor.stored.position
    }

    /// Whether it stopped at an event here.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Applies the next window of the log, up to the head or to `until`.
    pub(crate) async fn window(&mut self, until: u64) -> Result<Reached, Stop> {
        observe::polled(self.shared.name(), &self.at, self.shared.now());
        let source = self.source(until);
        let Window { events, to, head } = match self.ahead.take() {
            Some(ahead) if ahead.after == self.position() => ahead.read.await.map_err(cut_off)??,
            _ => source.clone().read(self.position()).await?,
        };
        observe::received(self.shared.name(), events.len());
        let end = head.min(until);
        if to > self.position() {
            // While these are applied, the next are read, on another thread where there is one.
            self.ahead = (to < end).then(|| Ahead { after: to, read: tokio::spawn(source.read(to)) });
            match self.apply(events, to).await {
                Err(Stop::Store(error)) if self.is_of_a_state(&error) && self.stale < STALE => {
                    // What is remembered of the others is worth as much as before.
                    self.stale += 1;
                    return Ok(Reached::More);
                }
                applied => applied?,
            }
            self.stale = 0;
        }
        observe::lag(self.shared.name(), &self.at, head.saturating_sub(self.position()));
        Ok(if self.position() < end { Reached::More } else { Reached::End })
    }

    async fn apply(&mut self, events: Vec<Recorded>, to: u64) -> Result<(), Stop> {
        let applied = match self.whole.clone() {
            None => self.apply_keyed(events, to).await,
            Some(whole) => self.apply_stream(whole, events, to).await,
        };
        if let Err(Stop::Failed(failure)) = &applied {
            self.has_stopped = true;
            self.record_failure(failure).await?;
        }
        applied
    }

    async fn apply_stream(
        &mut self,
        whole: Entry<P::State>,
        events: Vec<Recorded>,
        to: u64,
    ) -> Result<(), Stop> {
        let units = if events.is_empty() { Vec::new() } else { vec![Unit { slot: 0, events }] };
        let mut cursor = self.cursor.clone();
        let drive = Drive { entries: vec![whole], cursor: Some(&mut cursor), to, ..self.drive() };
        let applied = drive.run(units).await;
        // What is committed is, also where something after it failed.
        self.cursor = cursor;
        self.whole = applied?.pop();
        Ok(())
    }

    /// Records where it stops, so that whoever looks at it sees.
    async fn record_failure(&mut self, failure: &Failure) -> Result<()> {
        // The state as it is stored: the one here is from before what was committed of the window.
        let key = places::position(self.shared.name(), self.version);
        let stored =
            self.shared.store().get_json::<Stored<P::State>>(&self.at, self.shared.now(), &key).await?;
        let (state, record) = stored.map_or((None, None), |(stored, record)| (stored.state, Some(record)));
        if record != self.cursor.record {
            return Err(Error::new(ErrorKind::Conflict, "somebody else has moved the position"));
        }
        if let (Some(whole), Some(state)) = (&mut self.whole, state) {
            whole.state = state;
        }
        self.cursor.stored.failed = Some(failure.clone());
        let mut batch = Batch::new(self.at.clone(), self.shared.now());
        self.put_position(&mut batch)?;
        let version = batch.version();
        settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
        self.cursor.record = Some(version);
        Ok(())
    }

    /// Writes the position, with the state of a stream projection, as they are known here.
    pub(super) fn put_position(&self, batch: &mut Batch) -> Result<()> {
        let position = self.cursor.stored.clone();
        let state = self.whole.as_ref().map(|whole| &whole.state);
        let key = places::position(self.shared.name(), self.version);
        batch.put(key, json(&Stored { position, state })?, self.cursor.expect());
        self.shared.unless_retired(batch, self.version);
        Ok(())
    }

    pub(super) fn drive(&self) -> Drive<'_, P, S> {
        Drive {
            shared: &self.shared,
            at: &self.at,
            version: self.version,
            group: &self.group,
            effects: self.effects,
            effects_after: self.cursor.stored.effects_after.unwrap_or(0),
            policy: self.shared.settings.policy,
            pace: &self.pace,
            turn: &self.turn,
            entries: Vec::new(),
            cursor: None,
            to: self.position(),
            keeps_parked: false,
            last: Vec::new(),
        }
    }

    fn source(&self, until: u64) -> Source<S> {
        Source {
            events: self.shared.events.clone(),
            at: self.at.clone(),
            filter: self.shared.projector.filter(),
            most: match self.shared.settings.mode {
                Mode::Stream => self.shared.settings.most_events,
                Mode::Keyed => KEYED_WINDOW,
            },
            until,
        }
    }
}

impl<P, S: Store + Clone> Shared<P, S> {
    /// Ends what is committed for a version in a partition.
    pub(super) async fn retire(&self, at: &Partition, version: u32) -> Result<()> {
        let mut batch = Batch::new(at.clone(), self.now());
        batch.put(places::retired(self.name(), version), "{}", Expect::Absent);
        match settle::commit(self.store(), self.clock(), batch).await {
            // It was ended before.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Lets a batch conflict where a version was ended.
    pub(super) fn unless_retired(&self, batch: &mut Batch, version: u32) {
        batch.check(places::retired(self.name(), version), Expect::Absent);
    }
}

fn replaced(projection: &str, version: u32) -> Error {
    Error::new(ErrorKind::Conflict, "another version of the projection has taken over")
        .with("projection", projection)
        .with("version", version)
}

fn cut_off(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Unavailable, "reading the log was cut off").with_source(error)
}
