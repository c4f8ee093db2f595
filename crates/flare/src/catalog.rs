use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, Merge, Partition, Record, Result, Scan, Store, StoreExt, Timestamp,
    Version,
};
use serde::de::DeserializeOwned;

use crate::flare::Shared;
use crate::plan::Plan;
use crate::routes::Routes;
use crate::{Document, DocumentUrl, Mode, Resource, Subscription, places};

/// For how long what is remembered is used without asking the store whether it changed.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How many definitions are read at a time.
const PAGE: usize = 500;

/// What this process remembers of resources and subscriptions.
///
/// What decides a commit is fenced by the version of the resource's record, which every change of
/// its subscriptions rewrites; so a memory that is old costs a second look, never a change missed.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// How many times reading the store began.
    begun: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    /// Held while the store is read, so that many who need it read once.
    loading: tokio::sync::Mutex<()>,
}

/// Resources and subscriptions as they were at one time.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Which time of reading the store it is of, from 1.
    nth: u64,
    version: Option<Version>,
    read_at: Option<Timestamp>,
    routes: Routes<Arc<Entry>>,
    resources: HashMap<String, Arc<Entry>>,
    subscribers: HashMap<String, Arc<Subscriber>>,
}

/// A resource and who wants to hear of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) resource: Resource,
    /// Of the resource's record.
    pub(crate) version: Version,
    /// By id.
    pub(crate) subscribers: Vec<Arc<Subscriber>>,
}

/// A subscription, ready for use.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) subscription: Subscription,
    /// Of the subscription's record.
    pub(crate) version: Version,
    /// Or why there is none, so that nothing can be delivered for now.
    plan: Result<Plan>,
    /// Where its deliveries are.
    pub(crate) at: Partition,
    /// The queue of its deliveries.
    pub(crate) queue: String,
}

impl Snapshot {
    pub(crate) fn resource_of(&self, url: &DocumentUrl) -> Option<&Arc<Entry>> {
        self.routes.find(url)
    }

    pub(crate) fn resource(&self, id: &str) -> Option<&Arc<Entry>> {
        self.resources.get(id)
    }

    pub(crate) fn subscriber(&self, id: &str) -> Option<&Arc<Subscriber>> {
        self.subscribers.get(id)
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.resources.values()
    }
}

impl Subscriber {
    /// What its messages look like.
    ///
    /// # Errors
    /// Why that cannot be said, as where the vault lacks the key of its secret.
    pub(crate) fn plan(&self) -> Result<&Plan> {
        self.plan.as_ref().map_err(Error::repeated)
    }

    /// Whether its messages are sent, rather than fetched.
    pub(crate) fn is_pushed(&self) -> bool {
        self.subscription.delivery.mode == Mode::Push
    }

    /// Writes into `batch` that the subscriber is to be told of a document. A delivery that waits
    /// already stays as it is: what it sends is decided when it does.
    pub(crate) fn tell_in(&self, batch: &mut Batch, (id, url): (&str, &DocumentUrl)) {
        let now = batch.now();
        batch.push(&self.queue, id, now, url.as_str().to_owned(), Merge::Keep);
    }

    /// Whether the subscription is about a document like this.
    pub(crate) fn wants(&self, document: &Document) -> bool {
        let (Some(filter), Some(content)) = (&self.subscription.filter, &document.content) else {
            return true;
        };
        // A document may have numbers, texts and depths that are beyond a filter; none matches them.
        serde_json::from_slice(content).is_ok_and(|content| filter.matches(&content))
    }

    /// Writes into `batch` that the subscription has deliveries to be made.
    pub(crate) fn wake_in(&self, batch: &mut Batch) {
        // Whether it is active the pump asks: what is known here may be old.
        if self.is_pushed() {
            let now = batch.now();
            batch.push(places::PUMPS, &self.subscription.id, now, "", Merge::Sooner);
        }
    }
}

impl Shared {
    /// What is remembered, at most a second old.
    pub(crate) async fn catalog(&self) -> Result<Arc<Snapshot>> {
        let now = self.now();
        let snapshot = self.catalog.current();
        match snapshot.read_at {
            Some(read_at) if now < read_at + FRESH_FOR => Ok(snapshot),
            _ => self.load(|current| !Arc::ptr_eq(current, &snapshot)).await,
        }
    }

    /// What the store holds now.
    pub(crate) async fn catalog_now(&self) -> Result<Arc<Snapshot>> {
        let begun = self.catalog.begun.load(Ordering::SeqCst);
        self.load(|current| current.nth > begun).await
    }

    /// Marks in `batch` that the definitions change.
    pub(crate) fn change_catalog(batch: &mut Batch) {
        batch.put(places::catalog_version(), "", Expect::Any);
    }

    /// Reads the store, unless somebody else did so, well enough, while this one waited.
    async fn load(&self, is_new_enough: impl Fn(&Arc<Snapshot>) -> bool + Send) -> Result<Arc<Snapshot>> {
        let _loading = self.catalog.loading.lock().await;
        let old = self.catalog.current();
        if is_new_enough(&old) {
            return Ok(old);
        }
        let nth = self.catalog.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (at, now) = (places::catalog(&self.store), self.now());
        // Read before what it is the version of, so that it is never newer than that.
        let found = self.store.get_one(&at, now, &places::catalog_version()).await?;
        let version = found.map(|record| record.version);
        let mut new = Snapshot { nth, version, read_at: Some(now), ..Snapshot::default() };
        if old.read_at.is_some() && old.version == version {
            new.routes = old.routes.clone();
            new.resources.clone_from(&old.resources);
            new.subscribers.clone_from(&old.subscribers);
        } else {
            let resources = Scan::new(places::RESOURCES, places::ALL, PAGE, now);
            for (id, record) in self.all(&at, resources).await? {
                let entry = match old.resources.get(&id) {
                    Some(entry) if entry.version == record.version => Arc::clone(entry),
                    _ => Arc::new(self.entry(&at, &record).await?),
                };
                new.add(entry);
            }
        }
        let new = Arc::new(new);
        *self.catalog.lock() = Arc::clone(&new);
        Ok(new)
    }

    async fn entry(&self, at: &Partition, record: &Record) -> Result<Entry> {
        let resource: Resource = decode(record)?;
        let subscriptions = Scan::new(places::SUBSCRIPTIONS, resource.id.clone(), PAGE, self.now());
        let subscribers = self.all(at, subscriptions).await?;
        let subscriber = |(_, record): (String, Record)| self.subscriber(&resource, &record).map(Arc::new);
        let subscribers = subscribers.into_iter().map(subscriber).collect::<Result<_>>()?;
        Ok(Entry { resource, version: record.version, subscribers })
    }

    fn subscriber(&self, resource: &Resource, record: &Record) -> Result<Subscriber> {
        let mut subscription: Subscription = decode(record)?;
        let plan = Plan::new(&subscription, resource, &self.settings.vault, self.now());
        let plan = plan.map_err(|error| error.with("subscription", &subscription.id));
        subscription.problem = plan.as_ref().err().map(ToString::to_string);
        let at = places::subscription_partition(&self.store, &subscription.id);
        let queue = places::deliveries(&subscription.id);
        Ok(Subscriber { subscription, version: record.version, plan, at, queue })
    }

    async fn all(&self, at: &Partition, mut scan: Scan) -> Result<Vec<(String, Record)>> {
        let mut all = Vec::new();
        loop {
            let page = self.store.scan(at, scan.clone()).await?;
            all.extend(page.records);
            let Some(cursor) = page.cursor else { return Ok(all) };
            scan = scan.after(cursor);
        }
    }
}

impl Snapshot {
    fn add(&mut self, entry: Arc<Entry>) {
        // The store keeps a second resource from having the same endpoint.
        let _ = self.routes.insert(&entry.resource.endpoint, Arc::clone(&entry));
        for subscriber in &entry.subscribers {
            self.subscribers.insert(subscriber.subscription.id.clone(), Arc::clone(subscriber));
        }
        self.resources.insert(entry.resource.id.clone(), entry);
    }
}

impl Catalog {
    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode<T: DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.value).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "a definition's record is not one").with_source(source)
    })
}
