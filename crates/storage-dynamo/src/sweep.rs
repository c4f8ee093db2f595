//! Reclaiming: the contents of trimmed events and payloads that were left over, found by the index, and, where DynamoDB does not do it
//! itself, expired records, found by a scan of the table.

use evenkeel_core::{Partition, Result, Timestamp, Version};
use futures_util::future::try_join_all;
use uuid::Uuid;

use crate::client::{Dynamo, Forwards, Of, Query, send};
use crate::keys::{self, ItemKey};
use crate::pages;
use crate::rows::{self, Item, StreamHead, binary_id, number};
use crate::write::{Action, Guard, Outcome, Resent, Write};

const SWEEPING: &str = "sweeping";

/// How many streams are looked at in one go.
const STREAMS: usize = 25;

/// How many events of a page are emptied by one request.
const AT_ONCE: usize = 100;

/// How many payloads are found at a time.
const PAYLOADS: usize = 1000;

/// How many records or payloads are removed at the same time.
const ABREAST: usize = 16;

/// Empties trimmed events, at most `limit`; returns how many.
pub(crate) async fn events(dynamo: &Dynamo, at: &Partition, limit: usize) -> Result<usize> {
    let query = Query {
        of: Of::DueIndex,
        condition: "queue = :queue",
        values: vec![(":queue", keys::text(keys::trims(at)))],
        forwards: Forwards::Yes,
        limit: STREAMS,
    };
    let mut swept = 0;
    for item in dynamo.query(&query, SWEEPING).await?.items {
        if swept == limit {
            break;
        }
        let key = ItemKey::of(&item)?;
        let Some(item) = dynamo.get(&key, SWEEPING).await? else { continue };
        let head = rows::stream_head(&item)?;
        if head.swept < head.trimmed {
            swept += stream(dynamo, at, &key, &head, limit - swept).await?;
        }
    }
    Ok(swept)
}

/// Empties trimmed events of one stream; returns how many.
async fn stream(
    dynamo: &Dynamo,
    at: &Partition,
    key: &ItemKey,
    head: &StreamHead,
    limit: usize,
) -> Result<usize> {
    let most = head.swept.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX));
    let query = Query {
        of: Of::Table,
        condition: "pk = :pk AND sk BETWEEN :from AND :to",
        values: vec![
            (":pk", keys::text(key.pk.clone())),
            (":from", keys::text(keys::place(head.swept + 1))),
            (":to", keys::text(keys::place(u64::MAX))),
        ],
        forwards: Forwards::Yes,
        limit,
    };
    let found = dynamo.query(&query, SWEEPING).await?;
    let mut swept_through = head.swept;
    for pointer in found.items.iter().map(rows::pointer) {
        let pointer = pointer?;
        let last = pointer.last.min(head.trimmed).min(most);
        // Nothing left, or a pointer that cannot be seen yet.
        if last <= swept_through || pointer.first > swept_through + 1 {
            break;
        }
        let position = |version: u64| pointer.position + (version - pointer.first);
        empty(dynamo, at, &pointer.pages, position(swept_through + 1), position(last)).await?;
        swept_through = last;
    }
    if swept_through == head.swept {
        return Ok(0);
    }
    note(dynamo, at, key, head, swept_through).await
}

/// Removes the contents of the events between two positions from the pages that they are in.
/// Doing so twice changes nothing.
async fn empty(dynamo: &Dynamo, at: &Partition, pages: &[u64], first: u64, last: u64) -> Result<()> {
    for &page in pages {
        let key = keys::page(at, page);
        let Some(item) = dynamo.get(&key, SWEEPING).await? else { continue };
        let begin: u64 = rows::needed(&item, "fst")?;
        let positions: Vec<u64> = (first.max(begin)..=last.min(page)).collect();
        for some in positions.chunks(AT_ONCE) {
            let names: Vec<String> =
                some.iter().map(|position| pages::event_attribute(position - begin)).collect();
            let request = || {
                let request = dynamo.client.update_item().table_name(&dynamo.table);
                let request = request.set_key(Some(key.attributes()));
                send!(dynamo, update_item, request.update_expression(format!("REMOVE {}", names.join(", "))))
            };
            dynamo.repeat(SWEEPING, request).await?;
        }
    }
    Ok(())
}

/// Notes how far a stream is swept; returns by how much.
async fn note(
    dynamo: &Dynamo,
    at: &Partition,
    key: &ItemKey,
    head: &StreamHead,
    swept_through: u64,
) -> Result<usize> {
    let is_done = swept_through == head.trimmed;
    let update = match is_done {
        true => "SET swept = :swept REMOVE queue, ready",
        false => "SET swept = :swept",
    };
    let guard = Guard::new(
        "cut = :cut AND swept = :was",
        [(":cut", number(head.trimmed)), (":was", number(head.swept))],
    );
    let mut writes = vec![Write {
        key: key.clone(),
        action: Action::Update(update.into(), vec![(":swept", number(swept_through))]),
        guard: Some(guard),
        resent: Resent::Unclear,
    }];
    if is_done {
        writes.push(Write {
            key: keys::log_head(at),
            action: Action::Update("SET cuts = cuts - :one".into(), vec![(":one", number(1))]),
            guard: Some(Guard::new("cuts > :none", [(":none", number(0))])),
            resent: Resent::Unclear,
        });
    }
    match dynamo.write(writes).await? {
        Outcome::Written => Ok(usize::try_from(swept_through - head.swept).unwrap_or(usize::MAX)),
        // Another sweeps too, or more was trimmed.
        Outcome::Cancelled(_) => Ok(0),
    }
}

/// Removes payloads that no job refers to and that were written before an instant, at most `limit`;
/// returns how many.
pub(crate) async fn payloads(
    dynamo: &Dynamo,
    at: &Partition,
    written_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let query = Query {
        of: Of::DueIndex,
        condition: "queue = :queue AND ready < :before",
        values: vec![
            (":queue", keys::text(keys::payloads(at))),
            (":before", number(written_before.as_micros())),
        ],
        forwards: Forwards::Yes,
        limit: PAYLOADS,
    };
    let (mut removed, mut after) = (0, None);
    while removed < limit {
        let found = dynamo.query_after(&query, after, SWEEPING).await?;
        let mut items = found.items.iter();
        while removed < limit && items.len() > 0 {
            let some = items.by_ref().take(ABREAST.min(limit - removed));
            let gone = try_join_all(some.map(|item| remove_payload(dynamo, item))).await?;
            removed += gone.into_iter().filter(|gone| *gone).count();
        }
        after = found.items.into_iter().next_back();
        if !found.more {
            break;
        }
    }
    Ok(removed)
}

/// Removes a payload, unless a job refers to it; whether it did.
async fn remove_payload(dynamo: &Dynamo, item: &Item) -> Result<bool> {
    let key = ItemKey::of(item)?;
    let Some((job, id)) = keys::job_of_payload(&key) else { return Err(rows::damaged(item, keys::SK)) };
    if let Some(item) = dynamo.get(&job, SWEEPING).await? {
        if rows::apart(&item)?.ids().any(|other| other == id) {
            return Ok(false);
        }
        // A commit may be under way by which the job is to refer to it: that one begins anew.
        let revision = Uuid::new_v4();
        let touch = Write {
            key: job,
            action: Action::Update("SET ver = :new".into(), vec![(":new", binary_id(revision))]),
            guard: Some(Guard::new("ver = :ver", [(":ver", binary_id(rows::id(&item, rows::VERSION)?))])),
            resent: Resent::Recognised(revision),
        };
        if let Outcome::Cancelled(_) = dynamo.write(vec![touch]).await? {
            return Ok(false);
        }
    }
    let remove = Write { key, action: Action::Delete, guard: None, resent: Resent::Unclear };
    dynamo.write(vec![remove]).await?;
    Ok(true)
}

/// Removes records of a partition that expired before an instant, at most `limit`; returns how many.
pub(crate) async fn records(
    dynamo: &Dynamo,
    at: &Partition,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let values: Item = Item::from([
        (":records".to_owned(), keys::text(keys::records(at))),
        (":before".to_owned(), number(expired_before.as_micros())),
    ]);
    let mut removed = 0;
    let mut from = None;
    while removed < limit {
        let request = || {
            let request = dynamo
                .client
                .scan()
                .table_name(&dynamo.table)
                .consistent_read(true)
                .filter_expression("begins_with(pk, :records) AND exp < :before")
                .projection_expression("pk, sk, ver")
                .set_expression_attribute_values(Some(values.clone()))
                .set_exclusive_start_key(from.clone());
            send!(dynamo, scan, request)
        };
        let found = dynamo.repeat(SWEEPING, request).await?;
        let mut expired = found.items.unwrap_or_default();
        expired.truncate(limit - removed);
        for some in expired.chunks(ABREAST) {
            let gone = try_join_all(some.iter().map(|item| remove(dynamo, item))).await?;
            removed += gone.into_iter().filter(|gone| *gone).count();
        }
        from = found.last_evaluated_key.filter(|key| !key.is_empty());
        if from.is_none() {
            break;
        }
    }
    Ok(removed)
}

/// Removes a record as it was found; whether it was still so.
async fn remove(dynamo: &Dynamo, item: &Item) -> Result<bool> {
    let version = Version(rows::id(item, rows::VERSION)?);
    let write = Write {
        key: ItemKey::of(item)?,
        action: Action::Delete,
        guard: Some(Guard::new("ver = :ver", [(":ver", binary_id(version.0))])),
        resent: Resent::Unclear,
    };
    Ok(matches!(dynamo.write(vec![write]).await?, Outcome::Written))
}
