//! Where things are kept: every partition key and sort key of the table.
//!
//! A name is a part of one key only, and always its last part, so that no two can collide whatever
//! characters they have.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use evenkeel_core::{Error, ErrorKind, Key, Partition, Result};
use uuid::Uuid;

use crate::rows::Item;

/// The table's partition key.
pub(crate) const PK: &str = "pk";

/// The table's sort key.
pub(crate) const SK: &str = "sk";

/// The index of what falls due: jobs by queue, streams with something to sweep, and payloads apart from
/// their jobs.
pub(crate) const DUE_INDEX: &str = "due";

/// The index's partition key.
pub(crate) const QUEUE: &str = "queue";

/// The index's sort key.
pub(crate) const READY: &str = "ready";

/// The sort key of an item that is alone under its partition key, or heads those beside it: digits
/// sort before it.
const HEAD: &str = "head";

/// How many positions of a log share a partition key.
pub(crate) const CHUNK: u64 = 4096;

/// The key of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ItemKey {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl ItemKey {
    /// The key of an item that was read.
    pub(crate) fn of(item: &Item) -> Result<Self> {
        let part = |name: &'static str| match item.get(name) {
            Some(AttributeValue::S(part)) => Ok(part.clone()),
            _ => Err(Error::new(ErrorKind::Corrupt, "an item has no key").with("attribute", name)),
        };
        Ok(Self { pk: part(PK)?, sk: part(SK)? })
    }

    /// How many bytes it has.
    pub(crate) fn size(&self) -> usize {
        self.pk.len() + self.sk.len()
    }

    /// As DynamoDB takes it.
    pub(crate) fn attributes(&self) -> Item {
        HashMap::from([
            (PK.to_owned(), AttributeValue::S(self.pk.clone())),
            (SK.to_owned(), AttributeValue::S(self.sk.clone())),
        ])
    }
}

/// A key, or a part of one, in an expression.
pub(crate) fn text(key: String) -> AttributeValue {
    AttributeValue::S(key)
}

/// The item that says what the table is.
pub(crate) fn store() -> ItemKey {
    // Every other partition key has a slash.
    ItemKey { pk: "evenkeel".to_owned(), sk: "store".to_owned() }
}

pub(crate) fn record(at: &Partition, key: &Key) -> ItemKey {
    ItemKey { pk: group(at, &key.space, &key.group), sk: key.id.clone() }
}

/// The partition key of a group of records. The length of the space says where the group begins.
pub(crate) fn group(at: &Partition, space: &str, group: &str) -> String {
    format!("{}{}:{space}/{group}", records(at), space.len())
}

/// What the partition keys of all records begin with.
pub(crate) fn records(at: &Partition) -> String {
    format!("{at}/r/")
}

pub(crate) fn job(at: &Partition, name: &str, id: &str) -> ItemKey {
    ItemKey { pk: queue(at, name), sk: id.to_owned() }
}

/// The partition key of a queue, in the table and in the index.
pub(crate) fn queue(at: &Partition, name: &str) -> String {
    format!("{at}/q/{name}")
}

/// A payload that a job refers to by an id. It follows from the job's key, and the other way around.
pub(crate) fn payload(job: &ItemKey, id: Uuid) -> ItemKey {
    // No namespace has a slash: the first such part is what makes it a job's key.
    ItemKey { pk: job.pk.replacen("/q/", "/p/", 1), sk: format!("{}/{}", id.simple(), job.sk) }
}

/// The job that a payload was written for, and its id; `None` where the key is no payload's.
pub(crate) fn job_of_payload(key: &ItemKey) -> Option<(ItemKey, Uuid)> {
    let (id, job) = key.sk.split_once('/')?;
    let job = ItemKey { pk: key.pk.replacen("/p/", "/q/", 1), sk: job.to_owned() };
    Some((job, id.parse().ok()?))
}

/// The index's partition key of the payloads that jobs refer to.
pub(crate) fn payloads(at: &Partition) -> String {
    format!("{at}/p")
}

/// The head of a partition's log.
pub(crate) fn log_head(at: &Partition) -> ItemKey {
    ItemKey { pk: format!("{at}/h"), sk: HEAD.to_owned() }
}

/// A page of the log, found by the last position in it: the first key at or after a position is
/// that of its page.
pub(crate) fn page(at: &Partition, last: u64) -> ItemKey {
    ItemKey { pk: chunk(at, last), sk: place(last) }
}

/// The partition key of the pages around a position.
pub(crate) fn chunk(at: &Partition, position: u64) -> String {
    format!("{at}/l/{}", position / CHUNK)
}

pub(crate) fn stream_head(at: &Partition, name: &str) -> ItemKey {
    ItemKey { pk: stream(at, name), sk: HEAD.to_owned() }
}

/// Where the events of one append are, found by the last version among them.
pub(crate) fn pointer(at: &Partition, name: &str, last: u64) -> ItemKey {
    ItemKey { pk: stream(at, name), sk: place(last) }
}

/// The partition key of a stream.
pub(crate) fn stream(at: &Partition, name: &str) -> String {
    format!("{at}/s/{name}")
}

/// The index's partition key of the streams that have something to sweep.
pub(crate) fn trims(at: &Partition) -> String {
    format!("{at}/t")
}

/// A position or version as a sort key.
pub(crate) fn place(number: u64) -> String {
    format!("{number:020}")
}

/// Whether a partition key is one that the functions above could make.
pub(crate) fn is_ours(pk: &str) -> bool {
    let mut parts = pk.splitn(3, '/');
    let (Some(_), index, rest) = (parts.next(), parts.next(), parts.next()) else { return false };
    let is_index = |index: &str| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let is_shape = |rest: &str| {
        ["h", "p", "t"].contains(&rest)
            || ["r/", "q/", "p/", "l/", "s/"].iter().any(|shape| rest.starts_with(shape))
    };
    pk == store().pk || (index.is_some_and(is_index) && rest.is_some_and(is_shape))
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Namespace;

    use super::*;

    fn at() -> Partition {
        Partition::new(Namespace::default(), 3)
    }

    #[test]
    fn no_two_names_share_a_key() {
        assert_ne!(group(&at(), "a/b", "c"), group(&at(), "a", "b/c"));
        assert_ne!(group(&at(), "a", "1:b/c"), group(&at(), "a/1:b", "c"));
        assert_ne!(queue(&at(), "x"), stream(&at(), "x"));
        assert_eq!(group(&at(), "shop.order", "open"), "default/3/r/10:shop.order/open");
    }

    #[test]
    fn keys_stay_within_what_dynamodb_takes() {
        let namespace = Namespace::new("n".repeat(Namespace::MAX_LEN)).unwrap();
        let at = Partition::new(namespace, 65_535);
        let part = "ä".repeat(Key::MAX_PART / 2);
        let key = record(&at, &Key::new("s".repeat(Key::MAX_SPACE), part.clone(), part.clone()));
        assert!(key.pk.len() <= 2048 && key.sk.len() <= 1024, "{key:?}");
        assert!(queue(&at, &part).len() <= 2048);
    }

    #[test]
    fn a_payload_leads_to_its_job() {
        let id = Uuid::new_v4();
        for name in ["q", "/q/", "/p/", "p/q/"] {
            let job = job(&at(), name, name);
            let payload = payload(&job, id);
            assert!(payload.pk.starts_with("default/3/p/"), "{payload:?}");
            assert_eq!(job_of_payload(&payload), Some((job, id)));
        }
        let longest = "ä".repeat(Key::MAX_PART / 2);
        assert!(payload(&job(&at(), &longest, &longest), id).sk.len() <= 1024);
        assert_eq!(job_of_payload(&log_head(&at())), None);
    }

    #[test]
    fn places_sort_as_numbers_and_before_the_head() {
        assert!(place(9) < place(10) && place(u64::MAX).as_str() < HEAD);
    }

    #[test]
    fn own_keys_are_recognised() {
        let key = Key::new("a/b", "c", "d");
        for own in [
            store().pk,
            record(&at(), &key).pk,
            queue(&at(), "q"),
            log_head(&at()).pk,
            chunk(&at(), 1),
            stream(&at(), "s"),
            trims(&at()),
            payload(&job(&at(), "q", "a"), Uuid::nil()).pk,
            payloads(&at()),
        ] {
            assert!(is_ours(&own), "{own}");
        }
        for other in ["order#17", "shop/order/17", "default/3", "default/3/x", "default//r/x", "evenkeel2"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
