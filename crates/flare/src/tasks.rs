use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{
    Batch, ErrorKind, Expect, Jobs, Key, LeasedJob, Merge, Partition, Result, Scan, Store, StoreExt,
    Timestamp,
};

use crate::catalog::Subscriber;
use crate::flare::Shared;
use crate::publish::Precondition;
use crate::task::{Task, Which};
use crate::{Document, DocumentUrl, Flare, Told, places};

/// How many things a task does in a page. Each costs at most two operations of a batch.
const PAGE: usize = 40;

/// The longest wait before a task that failed is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Flare {
    /// Does a page of the task in `job`, and leaves the next in its place.
    pub(crate) async fn work_on(&self, at: &Partition, job: LeasedJob) {
        let result = match Task::decode(&job.payload) {
            Ok((task, body)) => self.page_of(task, body).await,
            Err(error) => Err(error),
        };
        let shared = &self.shared;
        let mut batch = Batch::new(at.clone(), shared.now());
        match result {
            Ok(next) => {
                batch.ack(places::TASKS, job.id, job.token);
                if let Some(next) = next {
                    next.push(&mut batch, b"");
                }
            }
            Err(error) => {
                tracing::warn!(%error, attempt = job.attempt, "a task of flare failed, and is tried again");
                let wait = Duration::from_secs(1) * (1 << job.attempt.min(12));
                batch.retry(places::TASKS, job.id, job.token, shared.now() + wait.min(LONGEST_WAIT));
            }
        }
        if let Err(error) = shared.store.commit(batch).await {
            // Whoever leases the task next does the page again, which changes nothing.
            tracing::warn!(%error, "the end of a task's page was not recorded");
        }
    }

    async fn page_of(&self, task: Task, body: Bytes) -> Result<Option<Task>> {
        let shared = &*self.shared;
        match task {
            Task::FanOut { resource, url, after } => shared.fan_out(resource, url, after).await,
            Task::Publish => {
                self.publish_from(&body).await?;
                Ok(None)
            }
            Task::Backfill { subscription, partition, after } => {
                shared.backfill(subscription, partition, after).await
            }
            Task::Rearm { subscription, which, after } => shared.rearm(subscription, which, after).await,
            Task::Replay { subscription, since, after } => shared.replay(subscription, since, after).await,
            Task::Forget { subscription, page } => shared.forget(subscription, page).await,
            Task::Purge { resource, partition, page } => shared.purge(resource, partition, page).await,
        }
    }

    async fn publish_from(&self, body: &Bytes) -> Result<()> {
        let Document { url, content, .. } = Document::decode(body)?;
        match self.publish(&url, content.unwrap_or_default(), &Precondition::None).await {
            // Its resource was deleted in the meantime, or made anew with other rules.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                tracing::warn!(%error, %url, "a publication that joined a commit came to nothing");
                Ok(())
            }
            result => result.map(drop),
        }
    }
}

impl Shared {
    async fn fan_out(
        &self,
        resource: String,
        url: DocumentUrl,
        after: Option<String>,
    ) -> Result<Option<Task>> {
        let snapshot = self.catalog_now().await?;
        let Some(entry) = snapshot.resource(&resource) else { return Ok(None) };
        let begins = entry.subscribers.partition_point(|subscriber| {
            after.as_ref().is_some_and(|after| subscriber.subscription.id <= *after)
        });
        let page = &entry.subscribers[begins..entry.subscribers.len().min(begins + PAGE)];
        let mut batches = BTreeMap::<&Partition, Batch>::new();
        let id = places::document_id(&url);
        for subscriber in page {
            let now = self.now();
            let batch =
                batches.entry(&subscriber.at).or_insert_with(|| Batch::new(subscriber.at.clone(), now));
            subscriber.tell_in(batch, (&id, &url));
            subscriber.wake_in(batch);
        }
        for batch in batches.into_values() {
            self.store.commit(batch).await?;
        }
        let is_last = begins + page.len() == entry.subscribers.len();
        let last = page.last().filter(|_| !is_last);
        Ok(last.map(|last| Task::FanOut { resource, url, after: Some(last.subscription.id.clone()) }))
    }

    async fn backfill(
        &self,
        subscription: String,
        partition: u32,
        after: Option<String>,
    ) -> Result<Option<Task>> {
        let snapshot = self.catalog_now().await?;
        let Some(subscriber) = snapshot.subscriber(&subscription) else { return Ok(None) };
        let from = &self.store.partitions()[usize::try_from(partition).expect("a u32 fits a usize")];
        let scan = Scan::new(places::DOCUMENTS, subscriber.subscription.resource.clone(), PAGE, self.now());
        let page = self.store.scan(from, Scan { after, ..scan }).await?;
        let mut batch = Batch::new(subscriber.at.clone(), self.now());
        for (id, record) in &page.records {
            let document = match Document::decode(&record.value) {
                Ok(document) => document,
                Err(error) => {
                    // The others are to be told all the same.
                    tracing::warn!(%error, subscription, document = id, "a document was left out of a backfill");
                    continue;
                }
            };
            if !document.is_deleted() {
                subscriber.tell_in(&mut batch, (id.as_str(), &document.url));
            }
        }
        subscriber.wake_in(&mut batch);
        self.store.commit(batch).await?;
        let partition = if page.cursor.is_some() { partition } else { partition + 1 };
        let goes_on = partition < self.store.info().partitions;
        Ok(goes_on.then_some(Task::Backfill { subscription, partition, after: page.cursor }))
    }

    async fn rearm(&self, subscription: String, which: Which, after: Option<String>) -> Result<Option<Task>> {
        let snapshot = self.catalog_now().await?;
        let Some(subscriber) = snapshot.subscriber(&subscription) else { return Ok(None) };
        let given_up = places::exhausted(&subscription);
        let queue = if which == Which::GivenUp { given_up.clone() } else { subscriber.queue.clone() };
        let page = self.store.jobs(&subscriber.at, Jobs::Page { queue, after, limit: PAGE }).await?;
        let mut batch = Batch::new(subscriber.at.clone(), self.now());
        let now = batch.now();
        for (id, job) in page.jobs.into_iter().filter(|(_, job)| job.due > now && job.lease.is_none()) {
            if which == Which::GivenUp {
                batch.cancel(&given_up, &id);
            }
            batch.push(&subscriber.queue, id, now, job.payload, Merge::Sooner);
        }
        subscriber.wake_in(&mut batch);
        self.store.commit(batch).await?;
        let next = match (which, page.cursor) {
            (which, Some(cursor)) => Some((which, Some(cursor))),
            (Which::GivenUp, None) => Some((Which::Waiting, None)),
            (Which::Waiting, None) => None,
        };
        Ok(next.map(|(which, after)| Task::Rearm { subscription, which, after }))
    }

    async fn replay(
        &self,
        subscription: String,
        since: Timestamp,
        after: Option<String>,
    ) -> Result<Option<Task>> {
        let snapshot = self.catalog_now().await?;
        let Some(subscriber) = snapshot.subscriber(&subscription) else { return Ok(None) };
        let scan = Scan::new(places::TOLD, subscription.clone(), PAGE, self.now());
        let page = self.store.scan(&subscriber.at, Scan { after, ..scan }).await?;
        for (document, record) in &page.records {
            match Told::decode(record) {
                Ok(told) if told.last.is_some_and(|last| last.at >= since) => {
                    self.tell_again(subscriber, document).await?;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, subscription, document, "a document was left out of a replay")
                }
            }
        }
        Ok(page.cursor.map(|cursor| Task::Replay { subscription, since, after: Some(cursor) }))
    }

    /// Lets a subscriber be told once more what it was told last of a document; whether it was told
    /// anything.
    pub(crate) async fn tell_again(&self, subscriber: &Subscriber, document: &str) -> Result<bool> {
        let key = places::told(&subscriber.subscription.id, document);
        loop {
            let now = self.now();
            let Some(record) = self.store.get_one(&subscriber.at, now, &key).await? else { return Ok(false) };
            let told = Told::decode(&record)?;
            if told.last.is_none() {
                return Ok(false);
            }
            let told = Told { again: true, ..told };
            let mut batch = Batch::new(subscriber.at.clone(), now);
            batch.put(key.clone(), told.encode(), Expect::Version(record.version));
            batch.push(&subscriber.queue, document, now, told.url, Merge::Sooner);
            subscriber.wake_in(&mut batch);
            match self.store.commit(batch).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                result => return result.map(|_| true),
            }
        }
    }

    /// Forgets a page of deliveries and of what was told. What has an end of its own is left to it.
    async fn forget(&self, subscription: String, page: u32) -> Result<Option<Task>> {
        if self.catalog_now().await?.subscriber(&subscription).is_some() {
            return Ok(None);
        }
        let at = places::subscription_partition(&self.store, &subscription);
        let mut batch = Batch::new(at.clone(), self.now());
        let mut goes_on = false;
        for queue in [places::deliveries(&subscription), places::exhausted(&subscription)] {
            let look = Jobs::Page { queue: queue.clone(), after: None, limit: PAGE / 2 };
            let found = self.store.jobs(&at, look).await?;
            goes_on |= found.cursor.is_some();
            for (id, _) in found.jobs {
                batch.cancel(&queue, id);
            }
        }
        let told = Scan::new(places::TOLD, subscription.clone(), PAGE, self.now());
        let found = self.store.scan(&at, told).await?;
        goes_on |= found.cursor.is_some();
        for (id, _) in found.records {
            batch.delete(places::told(&subscription, &id), Expect::Any);
        }
        batch.cancel(places::PUMPS, &subscription);
        batch.delete(places::health(&subscription), Expect::Any);
        batch.delete(places::sign(&subscription), Expect::Any);
        self.store.commit(batch).await?;
        Ok(goes_on.then_some(Task::Forget { subscription, page: page + 1 }))
    }

    async fn purge(&self, resource: String, partition: u32, page: u32) -> Result<Option<Task>> {
        let at = self.store.partitions()[usize::try_from(partition).expect("a u32 fits a usize")].clone();
        let scan = Scan::new(places::DOCUMENTS, resource.clone(), PAGE, self.now());
        let found = self.store.scan(&at, scan).await?;
        let mut batch = Batch::new(at, self.now());
        for (id, _) in found.records {
            batch.delete(Key::new(places::DOCUMENTS, resource.clone(), id), Expect::Any);
        }
        self.store.commit(batch).await?;
        let partition = if found.cursor.is_some() { partition } else { partition + 1 };
        let goes_on = partition < self.store.info().partitions;
        Ok(goes_on.then_some(Task::Purge { resource, partition, page: page + 1 }))
    }
}
