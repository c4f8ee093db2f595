use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Batch, Error, ErrorKind, Expect, Partition, Result, StoreExt, Transactional};

use serde_json::Value;

use super::cursor::{Cursor, Entry, Position, Stored};
use super::drive::{Drive, Stop, Unit, json};
use super::pace::Pace;
use super::window::{Source, Window};
use super::{Mode, Shared};
use crate::projector::Effects;
use crate::{Failure, Projector, Recorded, observe, places, settle};

/// How many events of a keyed projection are read at a time: the more there are of a stream, the
/// less its state costs.
const KEYED_WINDOW: usize = 16_000;

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
    has_stopped: bool,
}

/// Where a pass over the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) position: u64,
    pub(crate) head: u64,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> PartitionRun<P, S> {
    /// Reads what is stored.
    pub(crate) async fn open(
        shared: &Arc<Shared<P, S>>,
        at: Partition,
        version: u32,
        effects: Effects,
    ) -> Result<Self> {
        let key = places::position(shared.name(), version);
        let stored = shared.store().get_json::<Stored<P::State>>(&at, shared.now(), &key).await?;
        let (stored, record) = match stored {
            Some((stored, record)) => (stored, Some(record)),
            None => (Stored { position: Position::default(), state: None }, None),
        };
        let Stored { position: Position { position, failed, effects_after, retired, .. }, state } = stored;
        if retired {
            return Err(replaced(shared.name(), version));
        }
        let whole = (shared.settings.mode == Mode::Stream).then(|| Entry {
            stream: None,
            state: state.unwrap_or_default(),
            version: 0,
            is_parked: false,
            record: None,
        });
        let mut run = Self {
            shared: Arc::clone(shared),
            group: places::group(shared.name(), version),
            at,
            version,
            effects,
            cursor: Cursor { position, record, failed, effects_after },
            entries: HashMap::new(),
            whole,
            pace: Pace::new(shared.settings.most_events),
            has_stopped: false,
        };
        if effects == Effects::Live && effects_after.is_none() {
            run.take_over().await?;
        }
        Ok(run)
    }

    /// Takes over from the version that was active before: it commits nothing more here from then
    /// on, so that each event has its effects from one of the two.
    async fn take_over(&mut self) -> Result<()> {
        let operations = &self.shared.operations;
        let control = operations.known().await?;
        if control.active != self.version {
            return Err(replaced(operations.name(), self.version));
        }
        let Some(previous) = control.previous else { return Ok(()) };
        let key = places::position(operations.name(), previous);
        let stored = self.shared.store().get_json::<Value>(&self.at, self.shared.now(), &key).await?;
        let mut batch = Batch::new(self.at.clone(), self.shared.now());
        let effects_after = match stored {
            Some((mut theirs, record)) => {
                theirs["retired"] = Value::Bool(true);
                batch.put(key, theirs.to_string(), Expect::Version(record));
                theirs["position"].as_u64().unwrap_or(0)
            }
            None => {
                batch.check(key, Expect::Absent);
                0
            }
        };
        let position = Position {
            position: self.cursor.position,
            moved_at: self.shared.now(),
            failed: self.cursor.failed.clone(),
            effects_after: Some(effects_after),
            retired: false,
        };
        let state = self.whole.as_ref().map(|whole| &whole.state);
        let own = places::position(operations.name(), self.version);
        batch.put(own, json(&Stored { position, state })?, self.cursor.expect());
        let version = batch.version();
        settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
        self.cursor.record = Some(version);
        self.cursor.effects_after = Some(effects_after);
        Ok(())
    }

    /// Where it stands, as far as it knows.
    pub(crate) fn position(&self) -> u64 {
        self.cursor.position
    }

    /// Whether it stopped at an event here.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Applies what there is, up to the head or to `until`.
    pub(crate) async fn pass(&mut self, until: u64) -> Result<Reached, Stop> {
        let source = self.source(until);
        observe::polled(self.shared.name(), &self.at, self.shared.now());
        let mut window = source.clone().read(self.cursor.position).await?;
        loop {
            let Window { events, to, head } = window;
            observe::received(self.shared.name(), events.len());
            if to <= self.cursor.position {
                observe::lag(self.shared.name(), &self.at, head.saturating_sub(to));
                return Ok(Reached { position: self.cursor.position, head });
            }
            // While these are applied, the next are read, on another thread where there is one.
            let ahead = (to < head.min(until)).then(|| tokio::spawn(source.clone().read(to)));
            self.apply(events, to).await?;
            observe::lag(self.shared.name(), &self.at, head.saturating_sub(to));
            window = match ahead {
                Some(ahead) => ahead.await.map_err(cut_off)??,
                None => return Ok(Reached { position: self.cursor.position, head }),
            };
        }
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
        let key = places::position(self.shared.name(), self.version);
        let stored = self.shared.store().get_json(&self.at, self.shared.now(), &key).await?;
        let mut batch = Batch::new(self.at.clone(), self.shared.now());
        let stored: Stored<P::State> = match stored {
            Some((stored, version)) if Some(version) == self.cursor.record => stored,
            None if self.cursor.record.is_none() => Stored { position: Position::default(), state: None },
            _ => return Err(Error::new(ErrorKind::Conflict, "somebody else has moved the position")),
        };
        let position = Position { failed: Some(failure.clone()), ..stored.position };
        batch.put(key, json(&Stored { position, state: stored.state })?, self.cursor.expect());
        let version = batch.version();
        settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
        self.cursor.record = Some(version);
        self.cursor.failed = Some(failure.clone());
        Ok(())
    }

    pub(super) fn drive(&self) -> Drive<'_, P, S> {
        Drive {
            shared: &self.shared,
            at: &self.at,
            version: self.version,
            group: &self.group,
            effects: self.effects,
            effects_after: self.cursor.effects_after.unwrap_or(0),
            policy: self.shared.settings.policy,
            pace: &self.pace,
            entries: Vec::new(),
            cursor: None,
            to: self.cursor.position,
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

fn replaced(projection: &str, version: u32) -> Error {
    Error::new(ErrorKind::Conflict, "another version of the projection has taken over")
        .with("projection", projection)
        .with("version", version)
}

fn cut_off(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Unavailable, "reading the log was cut off").with_source(error)
}
