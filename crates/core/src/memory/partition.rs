use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use uuid::Uuid;

use crate::log::{Event, Read, Slice, Source};
use crate::queue::{Hold, Job, JobPage, Jobs, Lease, Leased, LeasedJob, Token};
use crate::record::{Key, Order, Record, RecordPage, Scan};
use crate::{Error, ErrorKind, Result, Timestamp, judge};

/// Everything that one partition holds.
#[derive(Debug, Default)]
pub(super) struct PartitionState {
    records: Records,
    log: Log,
    queues: HashMap<String, Queue>,
}

/// The records by space, group and id.
#[derive(Debug, Default)]
struct Records {
    spaces: HashMap<Cow<'static, str>, HashMap<String, BTreeMap<String, Record>>>,
}

/// The events by position, with the places of each stream's in it.
#[derive(Debug, Default)]
struct Log {
    /// Index 0 is position 1. `None` where the event was trimmed and swept.
    events: Vec<Option<Event>>,
    streams: HashMap<String, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Indexes into the events; index 0 is version 1.
    places: Vec<usize>,
    trimmed_through: u64,
    swept_through: u64,
}

/// The jobs of one queue by id, with an index by the time at which each can be leased.
#[derive(Debug, Default)]
struct Queue {
    jobs: BTreeMap<String, Job>,
    ready: BTreeSet<(Timestamp, String)>,
}

impl PartitionState {
    pub(super) fn live(&self, key: &Key, now: Timestamp) -> Option<&Record> {
        self.records.get(key).filter(|record| record.is_live(now))
    }

    pub(super) fn scan(&self, scan: &Scan) -> RecordPage {
        let Some(group) = self.records.group(&scan.space, &scan.group) else {
            return RecordPage { records: Vec::new(), cursor: None };
        };
        let (from, to) = match scan.order {
            Order::Ascending => (scan.after.as_deref(), scan.until.as_deref()),
            Order::Descending => (scan.until.as_deref(), scan.after.as_deref()),
        };
        // A range that ends before it begins is empty here, and a panic to the map.
        if matches!((from, to), (Some(from), Some(to)) if from >= to) {
            return RecordPage { records: Vec::new(), cursor: None };
        }
        let bound = |id: Option<&'_ str>| id.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_owned()));
        let range = group.range((bound(from), bound(to)));
        match scan.order {
            Order::Ascending => page(range, scan),
            Order::Descending => page(range.rev(), scan),
        }
    }

    pub(super) fn read(&self, read: &Read) -> Result<Slice> {
        match &read.source {
            Source::Partition { after } => self.log.read_partition(*after, read),
            Source::Stream { name, after, order } => Ok(self.log.read_stream(name, *after, *order, read)),
        }
    }

    pub(super) fn jobs(&self, want: &Jobs) -> JobPage {
        match want {
            Jobs::ByIds { queue, ids } => {
                let queue = self.queues.get(queue);
                let find = |id: &String| Some((id.clone(), queue?.jobs.get(id)?.clone()));
                JobPage { jobs: ids.iter().filter_map(find).collect(), cursor: None }
            }
            Jobs::Page { queue, after, limit } => {
                let Some(queue) = self.queues.get(queue) else { return JobPage::default() };
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut rest = queue.jobs.range::<String, _>((from, Bound::Unbounded));
                let jobs: Vec<_> =
                    rest.by_ref().take(*limit).map(|(id, job)| (id.clone(), job.clone())).collect();
                let cursor = rest.next().and_then(|_| jobs.last()).map(|(id, _)| id.clone());
                JobPage { jobs, cursor }
            }
        }
    }

    pub(super) fn lease(&mut self, want: &Lease) -> Leased {
        let Some(queue) = self.queues.get_mut(&want.queue) else { return Leased::default() };
        let due = queue.ready.iter().take_while(|(ready_at, _)| *ready_at <= want.now);
        let ids: Vec<String> = due.take(want.max).map(|(_, id)| id.clone()).collect();
        let until = want.now + want.hold_for;
        let jobs = ids.into_iter().filter_map(|id| queue.lease(id, until)).collect::<Vec<_>>();
        let mut others = queue.ready.iter().filter(|(_, id)| jobs.iter().all(|job| job.id != *id));
        let next_due = others.next().map(|(ready_at, _)| *ready_at);
        Leased { jobs, next_due }
    }

    pub(super) fn sweep(&mut self, expired_before: Timestamp, limit: usize) -> usize {
        let gone = self.records.expired_before(expired_before, limit);
        for key in &gone {
            self.records.set(key, None);
        }
        gone.len() + self.log.sweep(limit - gone.len())
    }
}

fn page<'a>(range: impl Iterator<Item = (&'a String, &'a Record)>, scan: &Scan) -> RecordPage {
    let mut rest =
        range.filter(|(_, record)| record.is_live(scan.now)).map(|(id, record)| (id.clone(), record.clone()));
    let records: Vec<_> = rest.by_ref().take(scan.limit).collect();
    let cursor = rest.next().and_then(|_| records.last()).map(|(id, _)| id.clone());
    RecordPage { records, cursor }
}

impl Records {
    fn group(&self, space: &str, group: &str) -> Option<&BTreeMap<String, Record>> {
        self.spaces.get(space)?.get(group)
    }

    fn get(&self, key: &Key) -> Option<&Record> {
        self.group(&key.space, &key.group)?.get(&key.id)
    }

    fn set(&mut self, key: &Key, record: Option<Record>) {
        match record {
            Some(record) => self.insert(key, record),
            None => self.remove(key),
        }
    }

    fn insert(&mut self, key: &Key, record: Record) {
        let groups = self.spaces.entry(key.space.clone()).or_default();
        match groups.get_mut(&key.group) {
            Some(group) => drop(group.insert(key.id.clone(), record)),
            None => drop(groups.insert(key.group.clone(), BTreeMap::from([(key.id.clone(), record)]))),
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(groups) = self.spaces.get_mut(&key.space) else { return };
        let Some(group) = groups.get_mut(&key.group) else { return };
        group.remove(&key.id);
        if group.is_empty() {
            groups.remove(&key.group);
        }
    }

    fn expired_before(&self, instant: Timestamp, limit: usize) -> Vec<Key> {
        let mut expired = Vec::new();
        for (space, groups) in &self.spaces {
            for (group, records) in groups {
                let gone = |(_, record): &(_, &Record)| record.expires_at.is_some_and(|at| at < instant);
                let ids = records.iter().filter(gone).map(|(id, _)| id).take(limit - expired.len());
                expired.extend(ids.map(|id| Key::new(space.clone(), group.as_str(), id.as_str())));
            }
        }
        expired
    }
}

impl Log {
    fn head(&self) -> u64 {
        length(&self.events)
    }

    fn event(&self, stream: &Stream, version: u64) -> Option<&Event> {
        let place = *stream.places.get(index(version.checked_sub(1)?))?;
        self.events[place].as_ref()
    }

    fn is_trimmed(&self, event: &Event) -> bool {
        self.streams.get(&event.stream).is_some_and(|stream| event.version <= stream.trimmed_through)
    }

    fn read_partition(&self, after: u64, read: &Read) -> Result<Slice> {
        let head = self.head();
        if after > head {
            return Err(Error::new(ErrorKind::Corrupt, "the log ends before the position asked for")
                .with("after", after)
                .with("head", head));
        }
        let kept = |event: &&Event| !self.is_trimmed(event) && read.filter.matches(event);
        let rest = self.events[index(after)..].iter().flatten().filter(kept);
        let events: Vec<Event> = rest.take(read.limit).cloned().collect();
        let cut = events.len() == read.limit;
        let examined_to = events.last().filter(|_| cut).map_or(head, |event| event.position);
        Ok(Slice { events, examined_to, head })
    }

    fn read_stream(&self, name: &str, after: Option<u64>, order: Order, read: &Read) -> Slice {
        let Some(stream) = self.streams.get(name) else {
            return Slice { events: Vec::new(), examined_to: 0, head: 0 };
        };
        let head = length(&stream.places);
        let kept = |version: u64| {
            let event = self.event(stream, version).filter(|_| version > stream.trimmed_through)?;
            read.filter.matches(event).then(|| event.clone())
        };
        let (events, end): (Vec<Event>, u64) = match order {
            Order::Ascending => {
                let first = after.unwrap_or(0).saturating_add(1);
                ((first..=head).filter_map(kept).take(read.limit).collect(), head.max(first - 1))
            }
            Order::Descending => {
                let last = after.map_or(head, |before| head.min(before.saturating_sub(1)));
                ((1..=last).rev().filter_map(kept).take(read.limit).collect(), 0)
            }
        };
        let cut = events.len() == read.limit;
        let examined_to = events.last().filter(|_| cut).map_or(end, |event| event.version);
        Slice { events, examined_to, head }
    }

    fn sweep(&mut self, limit: usize) -> usize {
        let mut swept = 0;
        for stream in self.streams.values_mut() {
            while swept < limit && stream.swept_through < stream.trimmed_through {
                self.events[stream.places[index(stream.swept_through)]] = None;
                stream.swept_through += 1;
                swept += 1;
            }
        }
        swept
    }
}

impl Queue {
    fn set(&mut self, id: &str, job: Option<Job>) {
        if let Some(before) = self.jobs.remove(id) {
            self.ready.remove(&(before.ready_at(), id.to_owned()));
        }
        if let Some(job) = job {
            self.ready.insert((job.ready_at(), id.to_owned()));
            self.jobs.insert(id.to_owned(), job);
        }
    }

    fn lease(&mut self, id: String, until: Timestamp) -> Option<LeasedJob> {
        let mut job = self.jobs.get(&id)?.clone();
        let token = Token::fresh();
        job.lease(Hold { token, until });
        self.set(&id, Some(job.clone()));
        let Job { due, payload, attempt, .. } = job;
        Some(LeasedJob { id, payload, due, attempt, token, until })
    }
}

impl judge::State for PartitionState {
    fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    fn set_record(&mut self, key: &Key, record: Option<Record>) {
        self.records.set(key, record);
    }

    fn stream_version(&self, stream: &str) -> u64 {
        self.log.streams.get(stream).map_or(0, |stream| length(&stream.places))
    }

    fn event_origin(&self, stream: &str, version: u64) -> Option<(Uuid, u64)> {
        let event = self.log.event(self.log.streams.get(stream)?, version)?;
        Some((event.batch, event.position))
    }

    fn head(&self) -> u64 {
        self.log.head()
    }

    fn append(&mut self, event: Event) {
        let stream = self.log.streams.entry(event.stream.clone()).or_default();
        stream.places.push(self.log.events.len());
        self.log.events.push(Some(event));
    }

    fn trim(&mut self, stream: &str, through: u64) {
        if let Some(stream) = self.log.streams.get_mut(stream) {
            let through = through.min(length(&stream.places));
            stream.trimmed_through = stream.trimmed_through.max(through);
        }
    }

    fn job(&self, queue: &str, id: &str) -> Option<&Job> {
        self.queues.get(queue)?.jobs.get(id)
    }

    fn set_job(&mut self, queue: &str, id: &str, job: Option<Job>) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.set(id, job);
        } else if job.is_some() {
            self.queues.entry(queue.to_owned()).or_default().set(id, job);
        }
        if self.queues.get(queue).is_some_and(|queue| queue.jobs.is_empty()) {
            self.queues.remove(queue);
        }
    }
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).expect("a usize fits a u64")
}

fn index(count: u64) -> usize {
    usize::try_from(count).expect("what is in memory is addressable")
}
