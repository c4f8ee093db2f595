//! Payloads that have items of their own: what is pushed to a leased job, and is too long for the item of
//! that.
//!
//! A job refers to it by an id that no other has; when the lease ends it becomes the job's own payload by
//! the reference alone. It is written before the job refers to it and removed once no job
//! does, in requests of their own: a transaction has no room for both items of each job. One that is
//! left over, because the commit it was for failed or its process died, is found by the index and swept.
//! Only the sweep removes what no job has referred to yet: it sees to it that none will.

use evenkeel_core::{Error, ErrorKind, Partition, Result, Timestamp};
use futures_util::future::{join_all, try_join_all};

use crate::client::{Dynamo, send};
use crate::keys::{self, ItemKey, QUEUE, READY};
use crate::read::not_yet;
use crate::rows::{self, Item, StoredJob, VERSION, number};

/// How many payloads are read, written or removed at the same time.
const ABREAST: usize = 16;

/// How often a job is looked at, where it lets go of a payload each time before that is read.
const LOOKS: u32 = 8;

/// The payloads that changes of jobs write beside them, and those that they leave behind.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    written: Vec<Item>,
    left: Vec<ItemKey>,
}

impl Payloads {
    /// Notes what a job becomes, or that it goes.
    pub(crate) fn note(
        &mut self,
        at: &Partition,
        key: &ItemKey,
        before: &StoredJob,
        after: Option<&StoredJob>,
        now: Timestamp,
    ) {
        let is = after.map(|after| after.apart).unwrap_or_default();
        let left = before.apart.ids().filter(|id| !is.ids().any(|kept| kept == *id));
        self.left.extend(left.map(|id| keys::payload(key, id)));
        let pushed = after.and_then(|after| after.job.pending.as_ref());
        // Nothing but what is pushed is written so.
        let new = is.pending.filter(|id| before.apart.pending != Some(*id));
        if let Some((id, pushed)) = new.zip(pushed) {
            let mut item = keys::payload(key, id).attributes();
            rows::set(&mut item, "val", rows::binary(&pushed.payload));
            rows::set(&mut item, QUEUE, keys::text(keys::payloads(at)));
            rows::set(&mut item, READY, number(now.as_micros()));
            self.written.push(item);
        }
    }

    /// Writes what jobs are to refer to.
    ///
    /// # Errors
    /// `Unavailable` where that cannot be done; no job refers to any of it.
    pub(crate) async fn write(&self, dynamo: &Dynamo) -> Result<()> {
        for some in self.written.chunks(ABREAST) {
            let writes = some.iter().map(|item| {
                let request = || {
                    let request = dynamo.client.put_item().table_name(&dynamo.table);
                    send!(dynamo, put_item, request.set_item(Some(item.clone())))
                };
                // Written twice it is the same, and what is left over is swept.
                dynamo.repeat("writing a payload", request)
            });
            try_join_all(writes).await?;
        }
        Ok(())
    }

    /// Removes what the jobs no longer refer to. What fails is left to be swept.
    pub(crate) async fn clean_up(self, dynamo: &Dynamo) {
        for some in self.left.chunks(ABREAST) {
            let removals = some.iter().map(|key| {
                let request = dynamo.client.delete_item().table_name(&dynamo.table);
                send!(dynamo, delete_item, request.set_key(Some(key.attributes())))
            });
            for error in join_all(removals).await.into_iter().filter_map(Result::err) {
                tracing::debug!(error = &error as &dyn std::error::Error, "a payload is left to be swept");
            }
        }
    }
}

/// A job's item with the payloads that it refers to; as it stands by now, where it was changed meanwhile.
pub(crate) async fn fetch(
    dynamo: &Dynamo,
    key: &ItemKey,
    mut item: Option<Item>,
    what: &'static str,
) -> Result<Option<Item>> {
    for _ in 0..LOOKS {
        let Some(mut found) = item else { return Ok(None) };
        let mut missing = false;
        for id in rows::apart(&found)?.ids() {
            let payload = dynamo.get(&keys::payload(key, id), what).await?;
            match payload.and_then(|mut payload| payload.remove("val")) {
                Some(payload) => rows::set_fetched(&mut found, id, payload)?,
                None => missing = true,
            }
        }
        if !missing {
            return Ok(Some(found));
        }
        item = dynamo.get(key, what).await?;
        let is_same = |now: &Item| now.get(VERSION) == found.get(VERSION);
        if item.as_ref().is_some_and(is_same) {
            let message = "the payload that a job refers to is missing: was the table restored in part?";
            return Err(Error::new(ErrorKind::Corrupt, message).with("id", format_args!("{:?}", key.sk)));
        }
    }
    Err(not_yet("a job is written over and over").with("id", format_args!("{:?}", key.sk)))
}

/// The items of jobs with the payloads that they refer to, without those that are gone by now.
pub(crate) async fn fetch_all(dynamo: &Dynamo, items: Vec<Item>, what: &'static str) -> Result<Vec<Item>> {
    let mut fetched = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let some = items.by_ref().take(ABREAST).map(|item| async move {
            let key = ItemKey::of(&item)?;
            fetch(dynamo, &key, Some(item), what).await
        });
        fetched.extend(try_join_all(some).await?.into_iter().flatten());
    }
    Ok(fetched)
}
