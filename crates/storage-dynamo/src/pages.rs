//! Events as items: pages of the log, and the pointers by which streams find them.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Event, Metadata, Partition, Result, Scalar, Timestamp};

use crate::keys::{self, CHUNK, ItemKey};
use crate::rows::{self, Item, MOST, Pointer, binary, binary_id, damaged, id, needed, number, set, text};
use crate::write::{Action, Guard, Resent, Write};

/// The most bytes of events that are put into one page. DynamoDB takes items of up to 409,600.
const PAGE: usize = 390_000;

/// The pages and pointers of newly appended events, which are contiguous.
pub(crate) fn writes(at: &Partition, events: &[Event]) -> Result<Vec<Write>> {
    let pages = paginate(events)?;
    let new = |item: Item| {
        let key = ItemKey::of(&item)?;
        // Where the head of the log is as taken, nothing stands beyond it.
        let guard = Some(Guard::new_item());
        Ok(Write { key, action: Action::Put(item), guard, resent: Resent::Unclear })
    };
    let pointers = events
        .chunk_by(is_of_one_append)
        .filter_map(|run| Some((pointer(run, &pages)?, run)))
        .map(|(pointer, run)| new(rows::pointer_item(at, &run[0].stream, &pointer)));
    let items = pages.iter().map(|page| new(page_item(at, page)));
    items.chain(pointers).collect()
}

/// Whether two successive events were appended to a stream at once.
fn is_of_one_append(a: &Event, b: &Event) -> bool {
    a.stream == b.stream && a.batch == b.batch
}

/// Cuts events into pages: none too large, none across two chunks of the log.
fn paginate(events: &[Event]) -> Result<Vec<&[Event]>> {
    let mut pages = Vec::new();
    let (mut begin, mut size) = (0, 0);
    for (place, event) in events.iter().enumerate() {
        let before = place.checked_sub(1).map(|before| &events[before]);
        let is_run = before.is_some_and(|before| is_of_one_append(before, event));
        let alone = event_size(event) + run_size(event);
        let added = if is_run && begin < place { event_size(event) } else { alone };
        if alone > MOST {
            return Err(Error::new(ErrorKind::TooLarge, "the event does not fit one item of dynamodb")
                .with("kind", &event.kind)
                .with("bytes", alone)
                .with("limit", MOST));
        }
        let other_chunk = before.is_some_and(|before| before.position / CHUNK != event.position / CHUNK);
        if begin < place && (size + added > PAGE || other_chunk) {
            pages.push(&events[begin..place]);
            (begin, size) = (place, alone);
        } else {
            size += added;
        }
    }
    if begin < events.len() {
        pages.push(&events[begin..]);
    }
    Ok(pages)
}

/// Where the events of one append are.
fn pointer(run: &[Event], pages: &[&[Event]]) -> Option<Pointer> {
    let (first, last) = (run.first()?, run.last()?);
    let ends = pages.iter().filter_map(|page| Some((page.first()?.position, page.last()?.position)));
    let held = ends.filter(|(begin, end)| *begin <= last.position && *end >= first.position);
    Some(Pointer {
        first: first.version,
        last: last.version,
        position: first.position,
        batch: first.batch,
        pages: held.map(|(_, end)| end).collect(),
    })
}

/// A page of a log: events at contiguous positions.
#[derive(Debug)]
pub(crate) struct Page {
    /// The position of the first event.
    pub(crate) first: u64,
    /// The position of the last one, which the key has.
    pub(crate) last: u64,
    /// The events whose contents were not swept.
    pub(crate) events: Vec<Event>,
}

/// The media type that is not written out.
const USUAL_CONTENT_TYPE: &str = "application/json";

/// The events of a page, which are contiguous, as one item.
fn page_item(at: &Partition, events: &[Event]) -> Item {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Item::new() };
    let mut item = keys::page(at, last.position).attributes();
    set(&mut item, "fst", number(first.position));
    let runs = events.chunk_by(is_of_one_append).map(run_value);
    set(&mut item, "runs", AttributeValue::L(runs.collect()));
    for (event, offset) in events.iter().zip(0_u64..) {
        item.insert(event_attribute(offset), event_value(event));
    }
    item
}

/// What the event at an offset in its page is called.
pub(crate) fn event_attribute(offset: u64) -> String {
    format!("e{offset}")
}

/// About how many bytes an event takes in its page, names included.
fn event_size(event: &Event) -> usize {
    let metadata: usize = event
        .metadata
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Scalar::Text(text) => text.len(),
                Scalar::Bool(_) => 1,
                Scalar::Integer(_) | Scalar::Float(_) => 12,
            };
            key.len() + value + 2
        })
        .sum();
    // A uuid, the names of the attributes, and what DynamoDB adds to a map and its members.
    let fixed = 16 + 6 + 5 + 10;
    fixed + event.kind.len() + event.content_type.len() + event.payload.len() + metadata
}

/// About how many bytes a run of events adds to its page beside the events.
fn run_size(event: &Event) -> usize {
    event.stream.len() + 16 + 50
}

/// What successive events of one append have in common.
fn run_value(run: &[Event]) -> AttributeValue {
    let event = &run[0];
    AttributeValue::M(HashMap::from([
        ("s".to_owned(), AttributeValue::S(event.stream.clone())),
        ("v".to_owned(), number(event.version)),
        ("n".to_owned(), number(run.len())),
        ("b".to_owned(), binary_id(event.batch)),
        ("t".to_owned(), number(event.recorded_at.as_micros())),
    ]))
}

fn event_value(event: &Event) -> AttributeValue {
    let mut value = Item::new();
    set(&mut value, "i", binary_id(event.id));
    set(&mut value, "k", AttributeValue::S(event.kind.clone()));
    if event.content_type != USUAL_CONTENT_TYPE {
        set(&mut value, "c", AttributeValue::S(event.content_type.clone()));
    }
    if !event.payload.is_empty() {
        set(&mut value, "p", binary(&event.payload));
    }
    if !event.metadata.is_empty() {
        // A name must not be empty in DynamoDB, so each gets a first character.
        let metadata =
            event.metadata.iter().map(|(key, value)| (format!("_{key}"), scalar_value(value))).collect();
        set(&mut value, "m", AttributeValue::M(metadata));
    }
    AttributeValue::M(value)
}

fn scalar_value(scalar: &Scalar) -> AttributeValue {
    match scalar {
        Scalar::Bool(value) => AttributeValue::Bool(*value),
        Scalar::Integer(value) => number(*value),
        // DynamoDB's numbers are decimal and end at 10^126.
        Scalar::Float(value) => AttributeValue::B(Blob::new(value.to_be_bytes())),
        Scalar::Text(value) => AttributeValue::S(value.clone()),
    }
}

pub(crate) fn page(item: &Item) -> Result<Page> {
    let first: u64 = needed(item, "fst")?;
    let last: u64 = ItemKey::of(item)?.sk.parse().map_err(|_| damaged(item, keys::SK))?;
    let mut events = Vec::new();
    let mut position = first;
    for run in rows::list(item, "runs")? {
        let AttributeValue::M(run) = run else { return Err(damaged(item, "runs")) };
        let (version, count): (u64, u64) = (needed(run, "v")?, needed(run, "n")?);
        let stream = text(run, "s")?;
        let batch = id(run, "b")?;
        let recorded_at = Timestamp::from_micros(needed(run, "t")?);
        for offset in 0..count {
            if let Some(value) = item.get(&event_attribute(position - first)) {
                let AttributeValue::M(value) = value else { return Err(damaged(item, "e")) };
                events.push(Event {
                    id: id(value, "i")?,
                    stream: stream.clone(),
                    version: version + offset,
                    position,
                    kind: text(value, "k")?,
                    payload: if value.contains_key("p") { rows::bytes(value, "p")? } else { Bytes::new() },
                    content_type: match value.get("c") {
                        Some(_) => text(value, "c")?,
                        None => USUAL_CONTENT_TYPE.to_owned(),
                    },
                    metadata: metadata(value)?,
                    recorded_at,
                    batch,
                });
            }
            position += 1;
        }
    }
    if position != last + 1 {
        return Err(damaged(item, "runs"));
    }
    Ok(Page { first, last, events })
}

fn metadata(event: &Item) -> Result<Metadata> {
    let Some(found) = event.get("m") else { return Ok(Metadata::new()) };
    let scalar = |(key, value): (&String, &AttributeValue)| {
        let scalar = match value {
            AttributeValue::Bool(value) => Scalar::Bool(*value),
            AttributeValue::N(digits) => Scalar::Integer(digits.parse().ok()?),
            AttributeValue::B(bytes) => Scalar::Float(f64::from_be_bytes(bytes.as_ref().try_into().ok()?)),
            AttributeValue::S(text) => Scalar::Text(text.clone()),
            _ => return None,
        };
        Some((key.strip_prefix('_')?.to_owned(), scalar))
    };
    let AttributeValue::M(found) = found else { return Err(damaged(event, "m")) };
    found.iter().map(scalar).collect::<Option<_>>().ok_or_else(|| damaged(event, "m"))
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Namespace;
    use uuid::Uuid;

    use super::*;

    fn events(from: u64, sizes: &[usize]) -> Vec<Event> {
        let event = |(position, size): (u64, &usize)| Event {
            id: Uuid::nil(),
            stream: "s".to_owned(),
            version: position,
            position,
            kind: "K".to_owned(),
            payload: Bytes::from(vec![0; *size]),
            content_type: "t".to_owned(),
            metadata: Metadata::new(),
            recorded_at: Timestamp::EPOCH,
            batch: Uuid::nil(),
        };
        (from..).zip(sizes).map(event).collect()
    }

    fn check(from: u64, sizes: &[usize], expected: &[usize]) {
        let events = events(from, sizes);
        let pages = paginate(&events).unwrap();
        assert_eq!(pages.iter().map(|page| page.len()).collect::<Vec<_>>(), expected, "{sizes:?}");
    }

    #[test]
    fn events_share_a_page_as_far_as_it_takes_them() {
        check(1, &[], &[]);
        check(1, &[10; 500], &[500]);
        check(1, &[200_000, 180_000, 10, 300_000, 350_000], &[3, 1, 1]);
        check(1, &[358_400, 10], &[2]);
    }

    #[test]
    fn no_page_lies_across_two_chunks() {
        check(CHUNK - 3, &[10; 10], &[3, 7]);
    }

    #[test]
    fn an_event_that_no_item_holds_is_too_large() {
        let error = paginate(&events(1, &[10, 405_001])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_pointer_names_the_pages_of_its_events() {
        let events = events(1, &[200_000, 180_000, 10, 300_000]);
        let pages = paginate(&events).unwrap();
        let pointer = |range: std::ops::Range<usize>| pointer(&events[range], &pages).unwrap().pages;
        assert_eq!(pointer(0..4), [3, 4]);
        assert_eq!(pointer(0..3), [3]);
        assert_eq!(pointer(3..4), [4]);
    }

    #[test]
    fn the_estimated_size_of_a_page_is_not_less_than_the_item_s() {
        let at = Partition::new(Namespace::default(), 0);
        let metadata = Metadata::from([
            ("whole".to_owned(), Scalar::Integer(i64::MIN)),
            ("part".to_owned(), Scalar::Float(0.5)),
            ("is".to_owned(), Scalar::Bool(true)),
            (String::new(), Scalar::Text("text".to_owned())),
        ]);
        let events: Vec<Event> = (1..=500)
            .map(|n| Event {
                id: Uuid::new_v4(),
                stream: if n <= 250 { "a".to_owned() } else { "b".to_owned() },
                version: n,
                position: n,
                kind: "K".to_owned(),
                payload: Bytes::from_static(b"payload"),
                content_type: "t".to_owned(),
                metadata: metadata.clone(),
                recorded_at: Timestamp::MAX,
                batch: Uuid::nil(),
            })
            .collect();
        let estimated: usize =
            events.iter().map(event_size).sum::<usize>() + run_size(&events[0]) + run_size(&events[250]);
        let item = page_item(&at, &events);
        assert!(rows::item_size(&item) <= estimated + 100, "{} of {estimated}", rows::item_size(&item));
        assert_eq!(page(&item).unwrap().events, events);
    }
}
