use std::collections::VecDeque;

use evenkeel_core::{
    Batch, BoxError, Error, ErrorKind, Found, Op, Partition, Result, Transactional, Tx, Version,
};
use tokio::sync::Mutex;

use super::apply::{HandlerError, apply, passing};
use super::cursor::{Cursor, Entry, Stored, StoredEntry};
use super::pace::Pace;
use super::unit::{Unit, apart, count, json};
use super::{Mode, Shared};
use crate::projector::Effects;
use crate::{Failure, Policy, Projector, Recorded, observe, places};

/// Why events are not applied any further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The store failed, or somebody else moved on: what is stored is to be read again.
    Store(Error),
    /// A handler failed, and the policy is to stop.
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// What applies units to the entries they belong to, in as few commits as they fit.
pub(super) struct Drive<'a, P: Projector<S::Conn>, S: Transactional> {
    pub(super) shared: &'a Shared<P, S>,
    pub(super) at: &'a Partition,
    pub(super) version: u32,
    pub(super) group: &'a str,
    pub(super) effects: Effects,
    /// The effects of events up to this position are another version's.
    pub(super) effects_after: u64,
    pub(super) policy: Policy,
    pub(super) pace: &'a Pace,
    /// Held by who applies an event that others keep getting in the way of.
    pub(super) turn: &'a Mutex<()>,
    pub(super) entries: Vec<Entry<P::State>>,
    /// Moves with the commits, and with the last of them to `to`; without it, the position is
    /// somebody else's to move.
    pub(super) cursor: Option<&'a mut Cursor>,
    pub(super) to: u64,
    /// Whether the streams stay set apart while their events are applied.
    pub(super) keeps_parked: bool,
    /// Goes with the last commit.
    pub(super) last: Vec<Op>,
}

/// What came of a commit.
pub(super) enum Attempt {
    Committed,
    /// A handler failed, in a unit and perhaps at an event that is known.
    Failed {
        unit: usize,
        at: Option<usize>,
        error: BoxError,
    },
    /// It is beyond what fits a commit, or what may be contended for.
    TooMuch(Error),
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Drive<'_, P, S> {
    /// Applies the units; returns the entries as they are stored then.
    pub(super) async fn run(mut self, units: Vec<Unit>) -> Result<Vec<Entry<P::State>>, Stop> {
        observe::queued(self.shared.name(), count(&units));
        let mut queue = VecDeque::from([units]);
        // An event counts as failed where it did so twice in a row, in two transactions: once, it
        // may have been the connection.
        let mut suspect = None;
        while let Some(mut chunk) = queue.pop_front() {
            chunk.retain(|unit| !self.entries[unit.slot].is_parked);
            if let Some(rest) = self.cut(&mut chunk) {
                queue.push_front(rest);
            }
            if chunk.is_empty() && (!queue.is_empty() || self.cursor.is_none()) {
                continue;
            }
            let to = self.reached(&chunk, queue.is_empty());
            let began = self.shared.now();
            let (events, attempt) = match count(&chunk) {
                1 => (1, self.attempt_one(&chunk, to).await?),
                events => (events, self.attempt(&chunk, to).await?),
            };
            match attempt {
                Attempt::Committed => {
                    self.pace.took(events, self.shared.now().since(began));
                    observe::applied(self.shared.name(), events);
                }
                Attempt::TooMuch(error) if events > 1 => {
                    match error.kind() {
                        ErrorKind::TooLarge => self.pace.too_large(events),
                        _ => self.pace.shrink(events),
                    }
                    queue.push_front(chunk);
                }
                Attempt::TooMuch(error) if events == 0 => return Err(error.into()),
                Attempt::TooMuch(error) => self.alone(&chunk[0], Box::new(error), to).await?,
                Attempt::Failed { unit, at, error } => {
                    let position = failing(&chunk[unit], at);
                    if events == 1 && suspect == position {
                        self.alone(&chunk[0], error, to).await?;
                    } else {
                        suspect = position;
                        apart(chunk, unit, at).into_iter().rev().for_each(|part| queue.push_front(part));
                    }
                }
            }
        }
        Ok(self.entries)
    }

    /// Cuts what is more than goes into one commit off a chunk.
    fn cut(&self, chunk: &mut Vec<Unit>) -> Option<Vec<Unit>> {
        // What is left is for the position, and for the handlers' own writes.
        let most_units = self.shared.store().info().limits.units.saturating_sub(10).max(1);
        let mut room = self.pace.events();
        for place in 0..chunk.len() {
            let unit = &mut chunk[place];
            if place == most_units || room == 0 {
                return Some(chunk.split_off(place));
            }
            if unit.events.len() > room {
                let rest = Unit { slot: unit.slot, events: unit.events.split_off(room) };
                let mut after = chunk.split_off(place + 1);
                after.insert(0, rest);
                return Some(after);
            }
            room -= unit.events.len();
        }
        None
    }

    /// The position that is reached with a chunk; `None` where that is not said yet.
    fn reached(&self, chunk: &[Unit], is_last: bool) -> Option<u64> {
        self.cursor.as_ref()?;
        if is_last {
            return Some(self.to);
        }
        match self.shared.settings.mode {
            Mode::Stream => chunk.last()?.events.last().map(|event| event.position),
            Mode::Keyed => None,
        }
    }

    /// Applies a chunk in one commit.
    pub(super) async fn attempt(&mut self, chunk: &[Unit], to: Option<u64>) -> Result<Attempt, Stop> {
        observe::started(self.shared.name(), count(chunk));
        let mut after = Vec::with_capacity(chunk.len());
        let mut tx = self.shared.store().begin(self.at.clone(), self.shared.now()).await?;
        // What goes along somebody asked for, and is told of.
        if !self.shared.settings.is_synced && self.last.is_empty() {
            tx.batch().set_unsynced();
        }
        for (unit, place) in chunk.iter().zip(0..) {
            let mut entry = self.entries[unit.slot].clone();
            let applied = self.apply(&unit.events, &mut entry.state, &mut tx).await;
            if let Err(failed) = applied {
                self.shared.store().rollback(tx).await;
                let error = match passing(failed.error) {
                    Ok(error) if error.kind() == ErrorKind::Conflict => return Ok(Attempt::TooMuch(error)),
                    Ok(error) => return Err(error.into()),
                    Err(error) => error,
                };
                self.probe().await?;
                return Ok(Attempt::Failed { unit: place, at: failed.at, error });
            }
            // Only an event that was skipped, and is applied after all, is behind its stream's others.
            let last = unit.events.last().map_or(0, |event| event.version);
            entry.version = entry.version.max(last);
            after.push((unit.slot, entry));
        }
        tx.batch().set_now(self.shared.now());
        self.seal(tx.batch(), &after, to)?;
        if !tx.batch().ops().iter().all(can_be_derived_again) {
            tx.batch().set_synced();
        }
        let version = tx.batch().version();
        match self.shared.store().finish(tx).await {
            Ok(_) => {
                self.settled(after, to, version);
                Ok(Attempt::Committed)
            }
            Err(error) if self.is_beaten(&error) => Err(error.into()),
            Err(error) => match error.kind() {
                ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => Err(error.into()),
                // Of what the handlers read, or beyond what a commit can hold.
                _ => Ok(Attempt::TooMuch(error)),
            },
        }
    }

    /// Applies events in a transaction, the first of them without effects where those are another
    /// version's.
    async fn apply(
        &self,
        events: &[Recorded],
        state: &mut P::State,
        tx: &mut Tx<S::Conn>,
    ) -> Result<(), HandlerError> {
        let (version, effects) = (self.version, self.effects);
        let theirs = events.partition_point(|event| event.position <= self.effects_after);
        let (silent, own) = events.split_at(theirs);
        if !silent.is_empty() {
            apply(self.shared, version, Effects::Silent, silent, state, tx).await?;
        }
        if own.is_empty() {
            return Ok(());
        }
        let applied = apply(self.shared, version, effects, own, state, tx).await;
        applied.map_err(|failed| HandlerError { at: failed.at.map(|at| theirs + at), ..failed })
    }

    /// Whether the store can be reached at all: where it cannot, no handler is to blame for its
    /// failure.
    async fn probe(&self) -> Result<(), Stop> {
        let key = places::position(self.shared.name(), self.version);
        self.shared.store().get(self.at, self.shared.now(), &[key]).await?;
        Ok(())
    }

    /// Whether somebody else has written what only one at a time writes.
    fn is_beaten(&self, error: &Error) -> bool {
        let Some(conflict) = error.conflict() else { return false };
        match &conflict.found {
            Found::Record { key, .. } => {
                *key == places::position(self.shared.name(), self.version)
                    || *key == places::retired(self.shared.name(), self.version)
                    || places::is_state_of(self.group, key)
            }
            _ => false,
        }
    }

    /// Adds what is known after a chunk to its commit, each expecting what is known before.
    pub(super) fn seal(
        &self,
        batch: &mut Batch,
        after: &[(usize, Entry<P::State>)],
        to: Option<u64>,
    ) -> Result<()> {
        for (_, entry) in after {
            if let Some(stream) = &entry.stream {
                let stored = StoredEntry {
                    version: entry.version,
                    parked: entry.is_parked || self.keeps_parked,
                    state: &entry.state,
                };
                batch.put(places::keyed_state(self.group, stream), json(&stored)?, entry.expect());
            }
        }
        if let (Some(cursor), Some(to)) = (&self.cursor, to) {
            let whole = after.iter().map(|(_, entry)| entry).chain(&self.entries);
            let state = whole.into_iter().find(|entry| entry.stream.is_none()).map(|entry| &entry.state);
            let position = cursor.stored.moved(to, batch.now());
            let key = places::position(self.shared.name(), self.version);
            batch.put(key, json(&Stored { position, state })?, cursor.expect());
            if to == self.to {
                for op in &self.last {
                    batch.op(op.clone());
                }
            }
        }
        self.shared.unless_retired(batch, self.version);
        Ok(())
    }

    /// Takes what was committed for known.
    pub(super) fn settled(
        &mut self,
        after: Vec<(usize, Entry<P::State>)>,
        to: Option<u64>,
        version: Version,
    ) {
        for (slot, entry) in after {
            self.entries[slot] = Entry { record: Some(version), ..entry };
        }
        if let (Some(cursor), Some(position)) = (&mut self.cursor, to) {
            let stored = cursor.stored.moved(position, self.shared.now());
            **cursor = Cursor { stored, record: Some(version) };
            self.shared.moves.send_modify(|moves| {
                moves.insert((self.at.clone(), self.version), position);
            });
        }
    }
}

/// Whether what an operation does is undone with the read model and done again with it: others may
/// have acted on an event or a job by then.
fn can_be_derived_again(op: &Op) -> bool {
    matches!(op, Op::Put { .. } | Op::Delete { .. } | Op::Check { .. })
}

/// The position of the event that failed, where that is known.
fn failing(unit: &Unit, at: Option<usize>) -> Option<u64> {
    let only = (unit.events.len() == 1).then_some(0);
    at.or(only).and_then(|at| unit.events.get(at)).map(|event| event.position)
}
