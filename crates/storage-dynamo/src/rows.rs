//! Items as values of the contract, and back.
//!
//! No attribute that an expression names has a name that DynamoDB reserves, as `ttl` is: so they are
//! named as they are.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use evenkeel_core::{
    Error, ErrorKind, Hold, Job, Key, Partition, Pending, Record, Result, Timestamp, Token, Version,
};
use uuid::Uuid;

use crate::keys::{self, ItemKey, QUEUE, READY};

/// An item of the table.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The most bytes that are put into one item. DynamoDB takes 409,600.
pub(crate) const MOST: usize = 405_000;

/// The attribute by which DynamoDB reclaims expired records.
pub(crate) const TTL: &str = "ttl";

/// By what a job refers to its payload, where that has an item of its own.
const VALUE_REF: &str = "vref";

/// By what a job refers to the payload that was pushed to it, where that has one.
const PENDING_REF: &str = "pref";

/// What the version of a record, or the revision of a job, is called.
pub(crate) const VERSION: &str = "ver";

/// How long after its expiry DynamoDB may reclaim a record; `None` where it never does.
pub(crate) type Reclaim = Option<Duration>;

pub(crate) fn record_item(at: &Partition, key: &Key, record: &Record, reclaim: Reclaim) -> Item {
    let mut item = keys::record(at, key).attributes();
    set(&mut item, VERSION, binary_id(record.version.0));
    set(&mut item, "val", binary(&record.value));
    if let Some(expires_at) = record.expires_at {
        set(&mut item, "exp", number(expires_at.as_micros()));
        if let Some(ttl) = reclaim.and_then(|after| ttl(expires_at, after)) {
            set(&mut item, TTL, number(ttl));
        }
    }
    item
}

/// The epoch second at which DynamoDB may reclaim what expires at `expires_at`, rounded up.
fn ttl(expires_at: Timestamp, after: Duration) -> Option<i64> {
    let seconds = (expires_at + after).as_micros().checked_add(999_999)?.div_euclid(1_000_000);
    (seconds > 0).then_some(seconds)
}

pub(crate) fn record(item: &Item) -> Result<Record> {
    Ok(Record {
        value: bytes(item, "val")?,
        version: Version(id(item, VERSION)?),
        expires_at: maybe(item, "exp")?.map(Timestamp::from_micros),
    })
}

/// A job as it is stored: whoever writes it gives it another revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredJob {
    pub(crate) job: Job,
    pub(crate) revision: Uuid,
    pub(crate) apart: Apart,
}

/// Which payloads of a job have items of their own, by the ids of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Apart {
    pub(crate) own: Option<Uuid>,
    pub(crate) pending: Option<Uuid>,
}

impl Apart {
    pub(crate) fn ids(self) -> impl Iterator<Item = Uuid> {
        self.own.into_iter().chain(self.pending)
    }
}

impl StoredJob {
    /// What is stored of a job that has all its payloads in its item.
    ///
    /// # Errors
    /// `TooLarge` where what was pushed to it has no room there.
    pub(crate) fn whole(key: &ItemKey, job: Job, revision: Uuid) -> Result<Self> {
        let is_too_long = |pushed: &Bytes| is_too_long(pushed.len(), job.payload.len(), key);
        if pushed(&job).is_some_and(is_too_long) {
            let message = "what is pushed to a job has no room in its item";
            return Err(Error::new(ErrorKind::TooLarge, message).with("id", format_args!("{:?}", key.sk)));
        }
        Ok(Self { job, revision, apart: Apart::default() })
    }

    /// What is stored once the job is as given: each payload where it is, and what was pushed where it
    /// fits.
    pub(crate) fn becoming(&self, key: &ItemKey, job: Job, revision: Uuid) -> Self {
        let was_pending = |payload: &Bytes| pushed(&self.job) == Some(payload);
        let own = match &job.payload {
            payload if *payload == self.job.payload => self.apart.own,
            payload if was_pending(payload) => self.apart.pending,
            _ => None,
        };
        let beside = if own.is_some() { 0 } else { job.payload.len() };
        let pending = pushed(&job).and_then(|payload| match was_pending(payload) {
            true => self.apart.pending,
            false => is_too_long(payload.len(), beside, key).then(Uuid::new_v4),
        });
        Self { job, revision, apart: Apart { own, pending } }
    }
}

/// The payload that was pushed to a leased job.
fn pushed(job: &Job) -> Option<&Bytes> {
    job.pending.as_ref().map(|pending| &pending.payload)
}

/// Whether what is pushed to a leased job has no room in its item: beside the payload there, or twice,
/// as it may count while it becomes that payload.
fn is_too_long(pushed: usize, beside: usize, key: &ItemKey) -> bool {
    // Its partition key is that of the index too.
    pushed + pushed.max(beside) + 2 * key.size() > MOST
}

pub(crate) fn job_item(key: &ItemKey, stored: &StoredJob) -> Item {
    let StoredJob { job, revision, apart } = stored;
    let mut item = key.attributes();
    set(&mut item, VERSION, binary_id(*revision));
    set(&mut item, "due", number(job.due.as_micros()));
    match apart.own {
        None => set(&mut item, "val", binary(&job.payload)),
        Some(id) => set(&mut item, VALUE_REF, binary_id(id)),
    }
    set(&mut item, "att", number(job.attempt));
    if let Some(Hold { token, until }) = job.lease {
        set(&mut item, "tok", binary_id(token.0));
        set(&mut item, "til", number(until.as_micros()));
    }
    if let Some(Pending { due, payload, sooner }) = &job.pending {
        set(&mut item, "pdue", number(due.as_micros()));
        match apart.pending {
            None => set(&mut item, "pval", binary(payload)),
            Some(id) => set(&mut item, PENDING_REF, binary_id(id)),
        }
        if let Some(sooner) = sooner {
            set(&mut item, "psoon", number(sooner.as_micros()));
        }
    }
    // Under which key a job is in the table, it is in the index.
    set(&mut item, QUEUE, keys::text(key.pk.clone()));
    set(&mut item, READY, number(job.ready_at().as_micros()));
    item
}

/// The attributes of a job that change, and what their new values are called in an expression.
const OF_JOB: [(&str, &str); 12] = [
    (VERSION, ":new"),
    ("due", ":due"),
    ("val", ":val"),
    ("att", ":att"),
    ("tok", ":tok"),
    ("til", ":til"),
    ("pdue", ":pdue"),
    ("pval", ":pval"),
    ("psoon", ":psoon"),
    (VALUE_REF, ":vref"),
    (PENDING_REF, ":pref"),
    (READY, ":ready"),
];

/// What makes a job as it is stored another: an update expression and its values. A payload that the job
/// has, or that was pushed to it, is not sent.
pub(crate) fn job_update(
    key: &ItemKey,
    before: &StoredJob,
    after: &StoredJob,
) -> (String, Vec<(&'static str, AttributeValue)>) {
    let before = job_item(key, before);
    let mut after = job_item(key, after);
    let (mut set, mut removed, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (name, placeholder) in OF_JOB {
        match after.remove(name) {
            Some(value) if name == "val" && is_moved(&before, &value) => set.push("val = pval".to_owned()),
            Some(value) if before.get(name) != Some(&value) => {
                set.push(format!("{name} = {placeholder}"));
                values.push((placeholder, value));
            }
            None if before.contains_key(name) => removed.push(name),
            _ => {}
        }
    }
    let mut update = format!("SET {}", set.join(", "));
    if !removed.is_empty() {
        update = format!("{update} REMOVE {}", removed.join(", "));
    }
    (update, values)
}

/// Whether a payload is not the one that a job has, but the one that was pushed to it.
fn is_moved(before: &Item, payload: &AttributeValue) -> bool {
    before.get("val") != Some(payload) && before.get("pval") == Some(payload)
}

/// Which payloads of a job have items of their own.
pub(crate) fn apart(item: &Item) -> Result<Apart> {
    let maybe_id = |name: &'static str| item.contains_key(name).then(|| id(item, name)).transpose();
    Ok(Apart { own: maybe_id(VALUE_REF)?, pending: maybe_id(PENDING_REF)? })
}

/// Puts a payload into the item of the job that refers to it, as if it had been there.
pub(crate) fn set_fetched(item: &mut Item, id: Uuid, payload: AttributeValue) -> Result<()> {
    let name = if apart(item)?.own == Some(id) { "val" } else { "pval" };
    set(item, name, payload);
    Ok(())
}

/// A job, once the payloads that it refers to were fetched.
pub(crate) fn job(item: &Item) -> Result<StoredJob> {
    let lease = match (item.contains_key("tok"), maybe(item, "til")?) {
        (true, Some(until)) => {
            Some(Hold { token: Token(id(item, "tok")?), until: Timestamp::from_micros(until) })
        }
        (false, None) => None,
        _ => return Err(damaged(item, "tok")),
    };
    let pending = match maybe(item, "pdue")? {
        Some(due) => Some(Pending {
            due: Timestamp::from_micros(due),
            payload: bytes(item, "pval")?,
            sooner: maybe(item, "psoon")?.map(Timestamp::from_micros),
        }),
        None => None,
    };
    let job = Job {
        due: Timestamp::from_micros(needed(item, "due")?),
        payload: bytes(item, "val")?,
        attempt: needed(item, "att")?,
        lease,
        pending,
    };
    Ok(StoredJob { job, revision: id(item, VERSION)?, apart: apart(item)? })
}

/// The head of a partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogHead {
    /// The last position.
    pub(crate) position: u64,
    /// How many streams have trimmed events whose contents are still stored.
    pub(crate) trims: u64,
}

pub(crate) fn log_head(item: &Item) -> Result<LogHead> {
    Ok(LogHead { position: needed(item, "pos")?, trims: needed(item, "cuts")? })
}

/// The head of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamHead {
    /// The version of the last event.
    pub(crate) version: u64,
    /// The version of the first event of the last append.
    pub(crate) first: u64,
    /// The position of the last event.
    pub(crate) position: u64,
    /// The batch that appended it.
    pub(crate) batch: Uuid,
    /// The version up to which events are forgotten.
    pub(crate) trimmed: u64,
    /// The version up to which their contents are gone.
    pub(crate) swept: u64,
}

pub(crate) fn stream_head(item: &Item) -> Result<StreamHead> {
    Ok(StreamHead {
        version: needed(item, "n")?,
        first: needed(item, "fst")?,
        position: needed(item, "pos")?,
        batch: id(item, "bat")?,
        trimmed: maybe(item, "cut")?.unwrap_or(0),
        swept: maybe(item, "swept")?.unwrap_or(0),
    })
}

/// Where the events of one append are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The version of the first one.
    pub(crate) first: u64,
    /// The version of the last one, which the key has.
    pub(crate) last: u64,
    /// The position of the first one.
    pub(crate) position: u64,
    /// The batch that appended them.
    pub(crate) batch: Uuid,
    /// The last positions of the pages that they are in.
    pub(crate) pages: Vec<u64>,
}

pub(crate) fn pointer_item(at: &Partition, stream: &str, pointer: &Pointer) -> Item {
    let mut item = keys::pointer(at, stream, pointer.last).attributes();
    set(&mut item, "fst", number(pointer.first));
    set(&mut item, "pos", number(pointer.position));
    set(&mut item, "bat", binary_id(pointer.batch));
    set(&mut item, "pages", AttributeValue::L(pointer.pages.iter().copied().map(number).collect()));
    item
}

pub(crate) fn pointer(item: &Item) -> Result<Pointer> {
    let pages = match item.get("pages") {
        Some(AttributeValue::L(pages)) => pages
            .iter()
            .map(|page| parse(page).ok_or_else(|| damaged(item, "pages")))
            .collect::<Result<_>>()?,
        _ => return Err(damaged(item, "pages")),
    };
    Ok(Pointer {
        first: needed(item, "fst")?,
        last: ItemKey::of(item)?.sk.parse().map_err(|_| damaged(item, keys::SK))?,
        position: needed(item, "pos")?,
        batch: id(item, "bat")?,
        pages,
    })
}

/// About how many bytes DynamoDB counts for an item.
pub(crate) fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

pub(crate) fn value_size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len() / 2 + 2,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|digits| digits.len() / 2 + 2).sum(),
        AttributeValue::Bs(binaries) => binaries.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::M(map) => 3 + map.len() + item_size(map),
        AttributeValue::L(list) => 3 + list.iter().map(|value| 1 + value_size(value)).sum::<usize>(),
        _ => 1,
    }
}

pub(crate) fn set(item: &mut Item, name: &'static str, value: AttributeValue) {
    item.insert(name.to_owned(), value);
}

pub(crate) fn number(number: impl std::fmt::Display + Copy) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn binary_id(id: Uuid) -> AttributeValue {
    AttributeValue::B(Blob::new(id.as_bytes().as_slice()))
}

pub(crate) fn binary(bytes: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes.as_ref()))
}

/// A number that every item of its kind has.
pub(crate) fn needed<T: FromStr>(item: &Item, name: &'static str) -> Result<T> {
    maybe(item, name)?.ok_or_else(|| damaged(item, name))
}

/// A number that an item may have.
pub(crate) fn maybe<T: FromStr>(item: &Item, name: &'static str) -> Result<Option<T>> {
    item.get(name).map(|value| parse(value).ok_or_else(|| damaged(item, name))).transpose()
}

fn parse<T: FromStr>(value: &AttributeValue) -> Option<T> {
    value.as_n().ok()?.parse().ok()
}

/// Text that every item of its kind has.
pub(crate) fn text(item: &Item, name: &'static str) -> Result<String> {
    item.get(name).and_then(|value| value.as_s().ok()).cloned().ok_or_else(|| damaged(item, name))
}

/// An id that every item of its kind has.
pub(crate) fn id(item: &Item, name: &'static str) -> Result<Uuid> {
    let bytes = item.get(name).and_then(|value| value.as_b().ok());
    bytes.and_then(|bytes| Uuid::from_slice(bytes.as_ref()).ok()).ok_or_else(|| damaged(item, name))
}

/// Bytes that every item of its kind has.
pub(crate) fn bytes(item: &Item, name: &'static str) -> Result<Bytes> {
    let bytes = item.get(name).and_then(|value| value.as_b().ok());
    bytes.map(|bytes| Bytes::copy_from_slice(bytes.as_ref())).ok_or_else(|| damaged(item, name))
}

/// A list that every item of its kind has.
pub(crate) fn list<'a>(item: &'a Item, name: &'static str) -> Result<&'a [AttributeValue]> {
    item.get(name).and_then(|value| value.as_l().ok()).map(Vec::as_slice).ok_or_else(|| damaged(item, name))
}

/// The error of an item that is not as it was written.
pub(crate) fn damaged(item: &Item, attribute: &'static str) -> Error {
    let error =
        Error::new(ErrorKind::Corrupt, "an item has an unexpected value").with("attribute", attribute);
    match ItemKey::of(item) {
        Ok(key) => error.with("pk", key.pk).with("sk", key.sk),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_reclaimed_by_dynamodb_no_earlier_than_it_may() {
        let second = |n: i64| Timestamp::from_micros(n * 1_000_000);
        let after = Duration::from_secs(30);
        assert_eq!(ttl(second(1_000), after), Some(1_030));
        assert_eq!(ttl(second(1_000) + Duration::from_micros(1), after), Some(1_031));
        assert_eq!(ttl(second(-1_000), after), None);
        assert_eq!(ttl(Timestamp::MAX, after), None);
    }
}
