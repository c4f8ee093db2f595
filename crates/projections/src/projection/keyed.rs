use std::collections::HashMap;

use evenkeel_core::{Error, Found, Key, Record, Result, Transactional, Writers};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::cursor::{Entry, StoredEntry, read};
use super::drive::{Drive, Stop};
use super::partition::PartitionRun;
use super::unit::Unit;
use crate::{Projector, Recorded, places};

/// How many states are remembered from one window to the next, beside those of that one.
const MOST_ENTRIES: usize = 50_000;

/// How many states are asked for at a time.
const KEYS: usize = 500;

/// How many commits the streams of a window are dealt out to at least, where there are enough.
const FEW_STREAMS: usize = 16;

/// Streams of one commit, or of a few in a row, and what is to be applied to them.
type Share<T> = (Vec<Entry<T>>, Vec<Unit>);

impl<P: Projector<S::Conn>, S: Transactional + Clone> PartitionRun<P, S> {
    /// Applies the events of a window stream by stream, several streams to a commit and several
    /// commits side by side, and moves the position when all are done.
    ///
    /// A commit that was cut off from the others leaves the position behind. Its events are read
    /// again then, and passed over by what each stream's state says of them.
    pub(super) async fn apply_keyed(&mut self, events: Vec<Recorded>, to: u64) -> Result<(), Stop> {
        let work = self.unapplied(events).await?;
        let dealt = self.deal(work);
        if let [_] | [] = &dealt[..] {
            let (entries, units) = dealt.into_iter().next().unwrap_or_default();
            return self.finish_window(entries, units, to).await;
        }
        let concurrency = match self.shared.store().info().writers {
            Writers::One => 1,
            Writers::Many => self.shared.settings.concurrency,
        };
        let this = &*self;
        let runs = dealt.into_iter().map(|(entries, units)| async move {
            let drive = Drive { entries, cursor: None, to, ..this.drive() };
            drive.run(units).await
        });
        let applied: Vec<Vec<Entry<P::State>>> =
            stream::iter(runs).buffer_unordered(concurrency).try_collect().await?;
        for entries in applied {
            self.remember(entries);
        }
        self.finish_window(Vec::new(), Vec::new(), to).await
    }

    async fn finish_window(
        &mut self,
        entries: Vec<Entry<P::State>>,
        units: Vec<Unit>,
        to: u64,
    ) -> Result<(), Stop> {
        let mut cursor = self.cursor.clone();
        let drive = Drive { entries, cursor: Some(&mut cursor), to, ..self.drive() };
        let entries = drive.run(units).await?;
        self.cursor = cursor;
        self.remember(entries);
        Ok(())
    }

    /// The events that their stream's state does not hold yet, by stream.
    async fn unapplied(&mut self, events: Vec<Recorded>) -> Result<Vec<(Entry<P::State>, Vec<Recorded>)>> {
        let mut by_stream: HashMap<String, Vec<Recorded>> = HashMap::new();
        for event in events {
            match by_stream.get_mut(&event.stream) {
                Some(events) => events.push(event),
                None => drop(by_stream.insert(event.stream.clone(), vec![event])),
            }
        }
        // Only here, where none of those are counted on that this window needs.
        if self.entries.len() > MOST_ENTRIES {
            self.entries.clear();
        }
        let unknown: Vec<String> =
            by_stream.keys().filter(|stream| !self.entries.contains_key(*stream)).cloned().collect();
        for streams in unknown.chunks(KEYS) {
            let entries = self.load_entries(streams).await?;
            self.remember(entries);
        }
        let mut work = Vec::with_capacity(by_stream.len());
        for (stream, mut events) in by_stream {
            let entry = &self.entries[&stream];
            events.retain(|event| event.version > entry.version);
            if !entry.is_parked && !events.is_empty() {
                work.extend(self.entries.remove(&stream).map(|entry| (entry, events)));
            }
        }
        Ok(work)
    }

    /// Deals streams out to as many commits as they are worth.
    fn deal(&self, mut work: Vec<(Entry<P::State>, Vec<Recorded>)>) -> Vec<Share<P::State>> {
        let fit = self.shared.store().info().limits.units.saturating_sub(10).max(1);
        let even = work.len().div_ceil(self.shared.settings.concurrency);
        let size = even.clamp(FEW_STREAMS, fit.max(FEW_STREAMS));
        let mut dealt = Vec::new();
        while !work.is_empty() {
            let part = work.drain(..size.min(work.len()));
            dealt.push(part.zip(0..).map(|((entry, events), slot)| (entry, Unit { slot, events })).unzip());
        }
        dealt
    }

    /// What is stored of streams, in their order.
    pub(super) async fn load_entries(&self, streams: &[String]) -> Result<Vec<Entry<P::State>>> {
        let keys: Vec<Key> = streams.iter().map(|stream| places::keyed_state(&self.group, stream)).collect();
        let found = self.shared.store().get(&self.at, self.shared.now(), &keys).await?;
        streams
            .iter()
            .zip(&keys)
            .zip(found)
            .map(|((stream, key), record)| entry(stream, key, record))
            .collect()
    }

    fn remember(&mut self, entries: Vec<Entry<P::State>>) {
        for entry in entries {
            let stream = entry.stream.clone().expect("a keyed projection's states are streams'");
            self.entries.insert(stream, entry);
        }
    }

    /// Whether a commit failed only since a state is not as it is remembered here, which an append
    /// that projects makes of it.
    pub(super) fn is_of_a_state(&self, error: &Error) -> bool {
        let found = error.conflict().map(|conflict| &conflict.found);
        matches!(found, Some(Found::Record { key, .. }) if places::is_state_of(&self.group, key))
    }
}

fn entry<T: Default + serde::de::DeserializeOwned>(
    stream: &str,
    key: &Key,
    record: Option<Record>,
) -> Result<Entry<T>> {
    let stream = Some(stream.to_owned());
    let Some(record) = record else {
        return Ok(Entry { stream, state: T::default(), version: 0, is_parked: false, record: None });
    };
    let (StoredEntry { version, parked: is_parked, state }, record) = read(key, &record)?;
    Ok(Entry { stream, state, version, is_parked, record: Some(record) })
}
