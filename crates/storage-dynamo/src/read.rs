//! Reading, always what was committed before.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_core::{
    Error, ErrorKind, Event, Job, JobPage, Jobs, Key, Order, Partition, Read, Record, RecordPage, Result,
    RetryHint, Scan, Slice, Source, Timestamp,
};

use crate::apart;
use crate::client::{Dynamo, Forwards, Of, Query};
use crate::keys::{self, ItemKey};
use crate::pages::{self, Page};
use crate::rows::{self, Item, LogHead, Pointer, StreamHead};

/// How many events one read examines at most, so that a filter that drops nearly all of them costs
/// several short reads rather than one long one.
const MAX_EXAMINED: u64 = 10_000;

/// How many queries one page of a scan takes at most, where nearly all is expired.
const MAX_QUERIES: u32 = 8;

/// How many pointers of a stream are followed at a time.
const POINTERS: usize = 50;

const READING: &str = "reading a stream";

/// The longest sort key that DynamoDB takes. No id is as long.
const LONGEST_SORT_KEY: usize = 1024;

pub(crate) async fn get(
    dynamo: &Dynamo,
    at: &Partition,
    now: Timestamp,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let wanted: Vec<ItemKey> = keys.iter().map(|key| keys::record(at, key)).collect();
    let distinct: HashSet<ItemKey> = wanted.iter().cloned().collect();
    let found = dynamo.get_all(distinct.into_iter().collect(), "getting records").await?;
    let record = |key: &ItemKey| {
        let record = found.get(key).map(rows::record).transpose()?;
        Ok(record.filter(|record| record.is_live(now)))
    };
    wanted.iter().map(record).collect()
}

pub(crate) async fn scan(dynamo: &Dynamo, at: &Partition, scan: &Scan) -> Result<RecordPage> {
    let mut records = Vec::new();
    let mut after = scan.after.clone();
    for query in 0..MAX_QUERIES {
        let (low, high) = match scan.order {
            Order::Ascending => (after.as_deref(), scan.until.as_deref()),
            Order::Descending => (scan.until.as_deref(), after.as_deref()),
        };
        // One more than asked for tells whether the page is the last, another stands on a bound. Where
        // much is expired, more is looked at from query to query.
        let limit = (scan.limit - records.len()).saturating_add(2).saturating_mul(1 << query);
        let group = keys::group(at, &scan.space, &scan.group);
        let Some(query) = ids_between(group, low, high, scan.order, limit) else {
            return Ok(RecordPage { records, cursor: None });
        };
        let found = dynamo.query(&query, "scanning records").await?;
        for item in &found.items {
            let id = rows::text(item, keys::SK)?;
            let is_bound = Some(&id) == after.as_ref() || Some(&id) == scan.until.as_ref();
            let record = rows::record(item)?;
            if !is_bound && record.is_live(scan.now) {
                if records.len() == scan.limit {
                    let cursor = records.last().map(|(id, _): &(String, Record)| id.clone());
                    return Ok(RecordPage { records, cursor });
                }
                records.push((id, record));
            }
        }
        if !found.more {
            return Ok(RecordPage { records, cursor: None });
        }
        if let Some(last) = found.items.last() {
            after = Some(rows::text(last, keys::SK)?);
        }
    }
    Ok(RecordPage { records, cursor: after })
}

/// A query for the ids strictly between two bounds, or on them; `None` where there can be none.
fn ids_between(
    pk: String,
    low: Option<&str>,
    high: Option<&str>,
    order: Order,
    limit: usize,
) -> Option<Query> {
    // No id is empty, nor as long as what is cut off.
    let low = low.filter(|low| !low.is_empty()).map(clip);
    let high = high.map(clip);
    if high.is_some_and(str::is_empty) || low.zip(high).is_some_and(|(low, high)| low >= high) {
        return None;
    }
    let condition = match (low, high) {
        (None, None) => "pk = :pk",
        (Some(_), None) => "pk = :pk AND sk > :low",
        (None, Some(_)) => "pk = :pk AND sk < :high",
        (Some(_), Some(_)) => "pk = :pk AND sk BETWEEN :low AND :high",
    };
    let mut values = vec![(":pk", keys::text(pk))];
    values.extend(low.map(|low| (":low", keys::text(low.to_owned()))));
    values.extend(high.map(|high| (":high", keys::text(high.to_owned()))));
    let forwards = match order {
        Order::Ascending => Forwards::Yes,
        Order::Descending => Forwards::No,
    };
    Some(Query { of: Of::Table, condition, values, forwards, limit })
}

fn clip(bound: &str) -> &str {
    &bound[..bound.floor_char_boundary(LONGEST_SORT_KEY)]
}

pub(crate) async fn jobs(dynamo: &Dynamo, at: &Partition, want: &Jobs) -> Result<JobPage> {
    const WHAT: &str = "looking at jobs";
    match want {
        Jobs::ByIds { queue, ids } => {
            let distinct: HashSet<&String> = ids.iter().collect();
            let keys = distinct.into_iter().map(|id| keys::job(at, queue, id)).collect();
            let found = dynamo.get_all(keys, WHAT).await?;
            let whole = apart::fetch_all(dynamo, found.into_values().collect(), WHAT).await?;
            let stored: HashMap<String, Job> = whole.iter().map(job).collect::<Result<_>>()?;
            let jobs = ids.iter().filter_map(|id| Some((id.clone(), stored.get(id)?.clone()))).collect();
            Ok(JobPage { jobs, cursor: None })
        }
        Jobs::Page { queue, after, limit } => {
            let mut jobs: Vec<(String, Job)> = Vec::new();
            let mut after = after.clone();
            loop {
                // One more than asked for tells whether the page is the last.
                let rest = (limit - jobs.len()).saturating_add(1);
                let queue = keys::queue(at, queue);
                let query = ids_between(queue, after.as_deref(), None, Order::Ascending, rest);
                let query = query.expect("a lower bound alone excludes nothing for certain");
                let found = dynamo.query(&query, WHAT).await?;
                let last = found.items.last().map(|item| rows::text(item, keys::SK)).transpose()?;
                for item in &apart::fetch_all(dynamo, found.items, WHAT).await? {
                    if jobs.len() == *limit {
                        let cursor = jobs.last().map(|(id, _)| id.clone());
                        return Ok(JobPage { jobs, cursor });
                    }
                    jobs.push(job(item)?);
                }
                if !found.more {
                    return Ok(JobPage { jobs, cursor: None });
                }
                after = last.or(after);
            }
        }
    }
}

fn job(item: &Item) -> Result<(String, Job)> {
    Ok((rows::text(item, keys::SK)?, rows::job(item)?.job))
}

pub(crate) async fn read(dynamo: &Dynamo, at: &Partition, read: &Read) -> Result<Slice> {
    match &read.source {
        Source::Partition { after } => read_partition(dynamo, at, *after, read).await,
        Source::Stream { name, after, order } => read_stream(dynamo, at, name, *after, *order, read).await,
    }
}

async fn read_partition(dynamo: &Dynamo, at: &Partition, after: u64, read: &Read) -> Result<Slice> {
    const WHAT: &str = "reading the log";
    let item = dynamo.get(&keys::log_head(at), WHAT).await?;
    let LogHead { position: head, trims } =
        item.as_ref().map(rows::log_head).transpose()?.unwrap_or_default();
    if after > head {
        return Err(Error::new(ErrorKind::Corrupt, "the log ends before the position asked for")
            .with("after", after)
            .with("head", head));
    }
    let mut events = Vec::new();
    let mut examined_to = after;
    while examined_to < head && examined_to - after < MAX_EXAMINED {
        let next = examined_to + 1;
        let query = Query {
            of: Of::Table,
            condition: "pk = :pk AND sk >= :sk",
            values: vec![(":pk", keys::text(keys::chunk(at, next))), (":sk", keys::text(keys::place(next)))],
            forwards: Forwards::Yes,
            // A page has at least one event.
            limit: read.limit.saturating_sub(events.len()),
        };
        let found = dynamo.query(&query, WHAT).await?;
        let pages = found.items.iter().map(pages::page).collect::<Result<Vec<_>>>()?;
        let trimmed = match trims {
            0 => HashMap::new(),
            _ => trimmed(dynamo, at, &pages).await?,
        };
        let before = examined_to;
        for page in pages {
            // A query may see a commit in part: what comes after a hole is for later.
            if page.first > examined_to + 1 {
                break;
            }
            if page.first <= examined_to && examined_to > before {
                return Err(Error::new(ErrorKind::Corrupt, "two pages of the log overlap")
                    .with("position", page.first));
            }
            for event in page.events {
                let is_kept = trimmed.get(&event.stream).is_none_or(|trimmed| event.version > *trimmed);
                if event.position > after && event.position <= head && is_kept && read.filter.matches(&event)
                {
                    let position = event.position;
                    events.push(event);
                    if events.len() == read.limit {
                        return Ok(Slice { events, examined_to: position, head });
                    }
                }
            }
            examined_to = page.last.min(head);
            if examined_to == head {
                break;
            }
        }
        if examined_to == before {
            break;
        }
    }
    if examined_to == after && after < head {
        return Err(not_yet("an event of the log cannot be read yet")
            .with("position", after + 1)
            .with("head", head));
    }
    Ok(Slice { events, examined_to, head })
}

/// Up to which version the streams of some pages are trimmed.
async fn trimmed(dynamo: &Dynamo, at: &Partition, pages: &[Page]) -> Result<HashMap<String, u64>> {
    let streams: HashSet<&String> =
        pages.iter().flat_map(|page| &page.events).map(|event| &event.stream).collect();
    let keys = streams.iter().map(|stream| keys::stream_head(at, stream)).collect();
    let heads = dynamo.get_all(keys, "reading the log").await?;
    let trimmed = |stream: &String| {
        let head = heads.get(&keys::stream_head(at, stream)).map(rows::stream_head).transpose()?;
        Ok((stream.clone(), head.map_or(0, |head| head.trimmed)))
    };
    streams.into_iter().map(trimmed).collect()
}

async fn read_stream(
    dynamo: &Dynamo,
    at: &Partition,
    name: &str,
    after: Option<u64>,
    order: Order,
    read: &Read,
) -> Result<Slice> {
    let item = dynamo.get(&keys::stream_head(at, name), READING).await?;
    let Some(StreamHead { version: head, trimmed, .. }) = item.as_ref().map(rows::stream_head).transpose()?
    else {
        return Ok(Slice { events: Vec::new(), examined_to: 0, head: 0 });
    };
    let mut run = Run { dynamo, at, name, order, read, events: Vec::new(), head };
    let examined_to = match order {
        Order::Ascending => {
            let after = after.unwrap_or(0);
            run.forwards(after.max(trimmed)).await?.max(after)
        }
        Order::Descending => {
            let last = after.map_or(head, |before| head.min(before.saturating_sub(1)));
            run.backwards(last, trimmed).await?
        }
    };
    Ok(Slice { events: run.events, examined_to, head })
}

/// The pointers to an event and on from there, up to the first hole: a query may see a commit in part.
fn leading_on(mut pointers: Vec<Pointer>, from: u64, order: Order) -> Vec<Pointer> {
    let mut next = Some(from);
    let mut leads_on = |pointer: &Pointer| {
        let holds = next.is_some_and(|next| (pointer.first..=pointer.last).contains(&next));
        next = match order {
            Order::Ascending => pointer.last.checked_add(1),
            Order::Descending => pointer.first.checked_sub(1),
        };
        holds
    };
    let count = pointers.iter().take_while(|pointer| leads_on(pointer)).count();
    pointers.truncate(count);
    pointers
}

/// Events of a stream, collected pointer by pointer.
struct Run<'a> {
    dynamo: &'a Dynamo,
    at: &'a Partition,
    name: &'a str,
    order: Order,
    read: &'a Read,
    events: Vec<Event>,
    head: u64,
}

impl Run<'_> {
    /// Collects what comes after a version; how far it was examined.
    async fn forwards(&mut self, after: u64) -> Result<u64> {
        let mut examined_to = after;
        while examined_to < self.head && examined_to - after < MAX_EXAMINED {
            let first = examined_to + 1;
            let pointers = leading_on(self.pointers_from(first).await?, first, self.order);
            let (pointers, pages) = self.pages(pointers).await?;
            let Some(last) = pointers.last().map(|pointer| pointer.last.min(self.head)) else {
                return if examined_to > after { Ok(examined_to) } else { Err(self.lacks(first)) };
            };
            if let Some(cut) = self.take(&pages, first..=last)? {
                return Ok(cut);
            }
            examined_to = last;
        }
        Ok(examined_to)
    }

    /// Collects from a version down to what is trimmed; how far it was examined, 0 at the end.
    async fn backwards(&mut self, last: u64, trimmed: u64) -> Result<u64> {
        let mut rest = last;
        while rest > trimmed {
            if last - rest >= MAX_EXAMINED {
                return Ok(rest + 1);
            }
            let pointers = leading_on(self.pointers_down_from(rest).await?, rest, self.order);
            let (pointers, pages) = self.pages(pointers).await?;
            let Some(first) = pointers.last().map(|pointer| pointer.first.max(trimmed + 1)) else {
                return if rest < last { Ok(rest + 1) } else { Err(self.lacks(rest)) };
            };
            if let Some(cut) = self.take(&pages, first..=rest)? {
                return Ok(cut);
            }
            rest = first - 1;
        }
        Ok(0)
    }

    /// The pointers to a version and to some after it.
    async fn pointers_from(&self, version: u64) -> Result<Vec<Pointer>> {
        let query = self.query(version, u64::MAX, Forwards::Yes);
        self.dynamo.query(&query, READING).await?.items.iter().map(rows::pointer).collect()
    }

    /// The pointers to a version and to some before it, the last first.
    async fn pointers_down_from(&self, version: u64) -> Result<Vec<Pointer>> {
        let query = self.query(0, version, Forwards::No);
        let mut items = self.dynamo.query(&query, READING).await?.items;
        let nearest = items.first().map(rows::pointer).transpose()?;
        if nearest.is_none_or(|nearest| nearest.last != version) {
            // It is in the midst of an append, whose pointer is found by its last version.
            let query = Query { limit: 1, ..self.query(version, u64::MAX, Forwards::Yes) };
            let holding = self.dynamo.query(&query, READING).await?.items;
            items.splice(0..0, holding);
        }
        items.iter().map(rows::pointer).collect()
    }

    fn query(&self, from: u64, to: u64, forwards: Forwards) -> Query {
        Query {
            of: Of::Table,
            condition: "pk = :pk AND sk BETWEEN :from AND :to",
            values: vec![
                (":pk", keys::text(keys::stream(self.at, self.name))),
                (":from", keys::text(keys::place(from))),
                (":to", keys::text(keys::place(to))),
            ],
            forwards,
            // A pointer leads to at least one event.
            limit: self.read.limit.saturating_sub(self.events.len()).min(POINTERS),
        }
    }

    /// The pages that pointers lead to, and the pointers before the first that leads to one which
    /// cannot be seen yet.
    async fn pages(&self, mut pointers: Vec<Pointer>) -> Result<(Vec<Pointer>, HashMap<ItemKey, Item>)> {
        let wanted: HashSet<u64> =
            pointers.iter().flat_map(|pointer| pointer.pages.iter().copied()).collect();
        let keys: Vec<ItemKey> = wanted.iter().map(|last| keys::page(self.at, *last)).collect();
        let found = self.dynamo.get_all(keys, READING).await?;
        let is_seen = |last: &u64| found.contains_key(&keys::page(self.at, *last));
        let seen = pointers.iter().take_while(|pointer| pointer.pages.iter().all(is_seen)).count();
        pointers.truncate(seen);
        Ok((pointers, found))
    }

    /// Collects the events in a range of versions from some pages; the version of the last one where
    /// that is as many as asked for.
    fn take(&mut self, pages: &HashMap<ItemKey, Item>, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let mut events = Vec::new();
        for item in pages.values() {
            let of_stream = pages::page(item)?.events.into_iter().filter(|event| event.stream == self.name);
            events.extend(of_stream.filter(|event| range.contains(&event.version)));
        }
        events.sort_unstable_by_key(|event| event.version);
        if self.order == Order::Descending {
            events.reverse();
        }
        for event in events.into_iter().filter(|event| self.read.filter.matches(event)) {
            let version = event.version;
            self.events.push(event);
            if self.events.len() == self.read.limit {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// A commit is visible in part, or something is lost.
    fn lacks(&self, version: u64) -> Error {
        not_yet("an event of the stream cannot be read yet")
            .with("stream", format_args!("{:?}", self.name))
            .with("version", version)
    }
}

/// The error of what was committed and cannot be seen in whole.
pub(crate) fn not_yet(message: &'static str) -> Error {
    let soon = RetryHint::After(Duration::from_millis(100));
    Error::new(ErrorKind::Unavailable, message).with_retry(soon)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(ranges: &[(u64, u64)], from: u64, order: Order, expected: usize) {
        let pointer = |&(first, last): &(u64, u64)| Pointer {
            first,
            last,
            position: first,
            batch: Uuid::nil(),
            pages: Vec::new(),
        };
        let pointers = ranges.iter().map(pointer).collect();
        assert_eq!(leading_on(pointers, from, order).len(), expected, "{ranges:?} {from} {order:?}");
    }

    #[test]
    fn pointers_are_followed_up_to_the_first_hole() {
        let up = Order::Ascending;
        check(&[(1, 3), (4, 4), (5, 9)], 1, up, 3);
        check(&[(1, 3), (4, 4), (5, 9)], 2, up, 3);
        check(&[(1, 3), (5, 9), (10, 10)], 1, up, 1);
        check(&[(5, 9)], 4, up, 0);
        check(&[], 1, up, 0);
        let down = Order::Descending;
        check(&[(5, 9), (4, 4), (1, 3)], 9, down, 3);
        check(&[(5, 9), (4, 4), (1, 3)], 7, down, 3);
        check(&[(5, 9), (1, 3)], 9, down, 1);
        check(&[(1, 3)], 4, down, 0);
        // Where the pointer in the midst cannot be seen, a later one is found.
        check(&[(8, 9), (1, 3)], 5, down, 0);
    }
}
