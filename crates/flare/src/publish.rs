use std::sync::Arc;

use bytes::Bytes;
use evenkeel_core::{Batch, Error, ErrorKind, Expect, Found, Record, Result, Store, StoreExt, Version};

use crate::catalog::{Entry, Snapshot, Subscriber};
use crate::delivery::Delivery;
use crate::express::Place;
use crate::flare::Shared;
use crate::recent::KnownTold;
use crate::task::Task;
use crate::{Document, DocumentUrl, Flare, Revision, Status, places};

/// How often a publication looks again after somebody else changed what it had read.
const MOST_LOOKS: usize = 10;

/// How many subscribers are told by the publication's own commit. Each costs two operations of a
/// batch; more are told by a task.
const MOST_INLINE: usize = 40;

/// How many subscribers are told past their queues by one publication. Each costs three operations.
const MOST_EXPRESS: usize = 10;

/// What must be so for a publication to take place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The document is live and, where revisions are given, at one of them.
    Match(Option<Vec<Revision>>),
    /// The document is not live or, where revisions are given, at none of them.
    NoneMatch(Option<Vec<Revision>>),
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Published {
    /// The document did not live before.
    Created(Document),
    /// It is newer than what was there.
    Updated(Document),
    /// It is not newer than what is there, and changed nothing.
    Stale(Document),
}

impl Published {
    /// The document as it is stored now.
    #[must_use]
    pub const fn document(&self) -> &Document {
        match self {
            Self::Created(document) | Self::Updated(document) | Self::Stale(document) => document,
        }
    }
}

impl Precondition {
    fn check(&self, url: &DocumentUrl, found: Option<&Document>) -> Result<()> {
        let live = found.filter(|document| !document.is_deleted());
        let is_among = |revisions: &Option<Vec<Revision>>| {
            live.is_some_and(|live| {
                revisions.as_ref().is_none_or(|revisions| revisions.contains(&live.revision))
            })
        };
        let holds = match self {
            Self::None => true,
            Self::Match(revisions) => is_among(revisions),
            Self::NoneMatch(revisions) => !is_among(revisions),
        };
        if holds {
            return Ok(());
        }
        let stands = live.map_or_else(|| "none".to_owned(), |live| live.revision.to_string());
        Err(Error::new(ErrorKind::Conflict, "the document is not as the precondition says")
            .with("url", url)
            .with("revision", stands))
    }
}

impl Flare {
    /// Publishes a document: keeps it, and lets every subscriber of its resource know.
    ///
    /// # Behavior
    /// - A document that is not newer than what is stored, or than what was deleted, changes nothing.
    /// - The document and the duty to tell its subscribers are one commit. Who subscribes shortly
    ///   after it may be told, too.
    /// - Dropping the future does not take back a commit that has begun.
    ///
    /// # Errors
    /// `NotFound` where no resource has such documents; `InvalidInput` where the content does not
    /// say its revision; `TooLarge` beyond what the store takes; `Conflict` where the precondition
    /// does not hold; those of the store.
    pub async fn publish(
        &self,
        url: &DocumentUrl,
        content: Bytes,
        precondition: &Precondition,
    ) -> Result<Published> {
        let shared = &*self.shared;
        let mut snapshot = shared.catalog().await?;
        // Where nothing is to be checked the commit looks by itself.
        let mut guess = (*precondition == Precondition::None).then(|| shared.guess(url));
        let (mut found, mut way) = (None, Way::Express);
        for _ in 0..MOST_LOOKS {
            let Some(entry) = shared.entry_of(&mut snapshot, url).await? else {
                return Err(no_resource(url));
            };
            let revision = entry.resource.change.revision_of(&content)?;
            let is_newer =
                |standing: &Standing| standing.document().is_none_or(|document| document.revision < revision);
            let standing = match (found.take(), guess.take().filter(is_newer)) {
                (Some(found), _) => found,
                (None, Some(guess)) => guess,
                (None, None) => shared.standing(&entry, url).await?,
            };
            precondition.check(url, standing.document())?;
            if let Some(document) = standing.document().filter(|_| !is_newer(&standing)) {
                return Ok(Published::Stale(document.clone()));
            }
            let document = Document {
                url: url.clone(),
                revision,
                updated_at: shared.now(),
                content: Some(content.clone()),
            };
            let published = match standing.document() {
                Some(found) if !found.is_deleted() => Published::Updated(document),
                _ => Published::Created(document),
            };
            match shared.store_document(&entry, published.document(), standing.version(), way).await? {
                Commit::Done => return Ok(published),
                Commit::Found(standing) => found = Some(standing),
                Commit::NotExpress => (found, way) = (Some(standing), Way::Queue),
                Commit::LookAgain => snapshot = shared.catalog_now().await?,
            }
        }
        Err(contended(url))
    }

    /// Deletes a document: forgets its content, remembers its revision for a while, and lets every
    /// subscriber that was told of it know. Returns what is left of it, `None` where there was no
    /// such document.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub async fn delete_document(
        &self,
        url: &DocumentUrl,
        precondition: &Precondition,
    ) -> Result<Option<Document>> {
        let shared = &*self.shared;
        let mut snapshot = shared.catalog().await?;
        let (mut found, mut way) = (None, Way::Express);
        for _ in 0..MOST_LOOKS {
            let Some(entry) = shared.entry_of(&mut snapshot, url).await? else {
                return Err(no_resource(url));
            };
            let standing = match found.take() {
                Some(found) => found,
                None => shared.standing(&entry, url).await?,
            };
            precondition.check(url, standing.document())?;
            let live = standing.document().filter(|document| !document.is_deleted());
            let Some(live) = live else { return Ok(None) };
            let document = Document { updated_at: shared.now(), content: None, ..live.clone() };
            match shared.store_document(&entry, &document, standing.version(), way).await? {
                Commit::Done => return Ok(Some(document)),
                Commit::Found(standing) => found = Some(standing),
                Commit::NotExpress => (found, way) = (Some(standing), Way::Queue),
                Commit::LookAgain => snapshot = shared.catalog_now().await?,
            }
        }
        Err(contended(url))
    }

    /// The document as it was published last; `None` where it never was, or was deleted.
    ///
    /// # Errors
    /// `NotFound` where no resource has such documents; those of the store.
    pub async fn document(&self, url: &DocumentUrl) -> Result<Option<Document>> {
        let mut snapshot = self.shared.catalog().await?;
        let entry = self.shared.entry_of(&mut snapshot, url).await?.ok_or_else(|| no_resource(url))?;
        let Standing(found) = self.shared.standing(&entry, url).await?;
        Ok(found.map(|(document, _)| document).filter(|document| !document.is_deleted()))
    }

    /// Lets a publication join a commit: the document is published after `batch` is committed, and
    /// only then. Where nothing else has its revision by that time, it is as if it had been
    /// published by itself.
    ///
    /// # Errors
    /// `NotFound` where no resource has such documents; `InvalidInput` where the content does not
    /// say its revision.
    pub async fn publish_in(&self, batch: &mut Batch, url: &DocumentUrl, content: Bytes) -> Result<()> {
        let mut snapshot = self.shared.catalog().await?;
        let entry = self.shared.entry_of(&mut snapshot, url).await?.ok_or_else(|| no_resource(url))?;
        let revision = entry.resource.change.revision_of(&content)?;
        let updated_at = batch.now();
        let document = Document { url: url.clone(), revision, updated_at, content: Some(content) };
        Task::Publish.push(batch, &document.encode());
        Ok(())
    }
}

/// A document, or what is left of it, with the version of its record; `None` where there is none.
struct Standing(Option<(Document, Version)>);

impl Standing {
    fn of(record: Option<Record>) -> Result<Self> {
        let document = |record: Record| Ok((Document::decode(&record.value)?, record.version));
        record.map(document).transpose().map(Self)
    }

    fn document(&self) -> Option<&Document> {
        self.0.as_ref().map(|(document, _)| document)
    }

    fn version(&self) -> Option<Version> {
        self.0.as_ref().map(|(_, version)| *version)
    }
}

/// How subscribers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Where a pump that runs here has room, by a delivery that it holds from the start.
    Express,
    /// By a delivery in the subscriber's queue.
    Queue,
}

/// What became of a publication's commit.
enum Commit {
    Done,
    /// The document is another than was expected.
    Found(Standing),
    /// A delivery waits or is made already, or what was told is something else, or the pump is
    /// another's.
    NotExpress,
    /// Who is to be told of it has changed.
    LookAgain,
}

impl Shared {
    /// The resource that `url` belongs to. Where none is remembered the store is asked.
    async fn entry_of(&self, snapshot: &mut Arc<Snapshot>, url: &DocumentUrl) -> Result<Option<Arc<Entry>>> {
        if let Some(entry) = snapshot.resource_of(url) {
            return Ok(Some(Arc::clone(entry)));
        }
        *snapshot = self.catalog_now().await?;
        Ok(snapshot.resource_of(url).cloned())
    }

    async fn standing(&self, entry: &Entry, url: &DocumentUrl) -> Result<Standing> {
        let at = places::document_partition(&self.store, url);
        let key = places::document(&entry.resource.id, url);
        Standing::of(self.store.get_one(&at, self.now(), &key).await?)
    }

    /// What this process believes the document to be; what it never published, it takes for new.
    fn guess(&self, url: &DocumentUrl) -> Standing {
        Standing(self.recent.get(url))
    }

    /// Keeps the document, and the duty to tell its subscribers, in one commit.
    async fn store_document(
        &self,
        entry: &Entry,
        document: &Document,
        expected: Option<Version>,
        way: Way,
    ) -> Result<Commit> {
        let (url, now) = (&document.url, self.now());
        let at = places::document_partition(&self.store, url);
        let mut batch = Batch::new(at, now);
        let expect = expected.map_or(Expect::Absent, Expect::Version);
        let key = places::document(&entry.resource.id, url);
        match &document.content {
            Some(_) => batch.put(key.clone(), document.encode(), expect),
            None => batch.put_until(key.clone(), document.encode(), expect, now + self.settings.tombstones),
        };
        let express = self.tell_in(&mut batch, entry, document, expected, way);
        // Told by the commit itself: a publisher that goes away takes no delivery with it.
        let then = |outcome: Result<(), ErrorKind>| {
            express.into_iter().for_each(|(place, delivery)| place.settle(outcome, delivery));
        };
        let error = match self.publications.commit_then(batch, then).await {
            Ok(committed) => {
                self.recent.put_document(document, committed.version);
                return Ok(Commit::Done);
            }
            Err(error) => error,
        };
        match error.into_conflict()?.found {
            Found::Record { key: found, record } if found == key => Standing::of(record).map(Commit::Found),
            Found::Record { key: found, .. } if found.space == places::RESOURCES => Ok(Commit::LookAgain),
            _ => {
                let id = places::document_id(url);
                for subscriber in &entry.subscribers {
                    self.recent_told.forget(&(subscriber.subscription.id.clone(), id.clone()));
                }
                Ok(Commit::NotExpress)
            }
        }
    }

    /// Writes into `batch` that the subscribers of `entry` are to be told of the document; the
    /// deliveries that pumps of this process hold once it is committed.
    ///
    /// In a store of one partition the deliveries themselves are written, under the condition that
    /// nobody subscribed or left meanwhile. Elsewhere, or where they are many, a task does it.
    fn tell_in(
        &self,
        batch: &mut Batch,
        entry: &Entry,
        document: &Document,
        expected: Option<Version>,
        way: Way,
    ) -> Vec<(Place, Delivery)> {
        let (url, mut express) = (&document.url, Vec::new());
        let is_at_home = self.store.info().partitions == 1;
        if !is_at_home || entry.subscribers.len() > MOST_INLINE {
            Task::FanOut { resource: entry.resource.id.clone(), url: url.clone(), after: None }
                .push(batch, b"");
            return express;
        }
        batch.check(places::resource(&entry.resource.id), Expect::Version(entry.version));
        let id = places::document_id(url);
        let way = if entry.subscribers.len() > MOST_EXPRESS { Way::Queue } else { way };
        for subscriber in &entry.subscribers {
            // That it is paused is among what must be unchanged.
            let is_active = subscriber.subscription.status == Status::Active;
            if way == Way::Express
                && is_active
                && let Some(known) = self.known_told(subscriber, &id, expected)
                && let Some(pump) = self.pumps.get(&subscriber.subscription.id)
                && let Some(place) = pump.reserve(subscriber, batch.now())
            {
                let delivery = place.tell_in(batch, (&id, document), known);
                express.push((place, delivery));
                continue;
            }
            subscriber.tell_in(batch, (&id, url));
            if is_active {
                subscriber.wake_in(batch);
            }
        }
        express
    }

    /// What a subscriber was told of a document, as far as this process knows: of one that did not
    /// exist, nothing.
    fn known_told(&self, subscriber: &Subscriber, id: &str, expected: Option<Version>) -> Option<KnownTold> {
        let name = (subscriber.subscription.id.clone(), id.to_owned());
        self.recent_told.get(&name).or_else(|| expected.is_none().then_some(None))
    }
}

fn no_resource(url: &DocumentUrl) -> Error {
    Error::new(ErrorKind::NotFound, "no resource has a document with this url").with("url", url)
}

fn contended(url: &DocumentUrl) -> Error {
    Error::new(ErrorKind::Unavailable, "the document changed each time it was looked at").with("url", url)
}

#[cfg(test)]
mod tests {
    use evenkeel_core::MemoryStore;

    use super::*;
    use crate::{Change, NewResource, Template};

    #[tokio::test]
    async fn what_another_process_published_meanwhile_is_seen() {
        let store = MemoryStore::new();
        let (one, other) = (Flare::new(store.clone()), Flare::new(store));
        let endpoint = Template::parse("https://api.example.com/orders/{order}").unwrap();
        let change = Change::new("v", "").unwrap();
        one.create_resource(NewResource { endpoint, change }).await.unwrap();
        let url = DocumentUrl::parse("https://api.example.com/orders/17").unwrap();
        let publish = async |by: &Flare, revision: i64| {
            let content = Bytes::from(format!(r#"{{"v": {revision}}}"#));
            by.publish(&url, content, &Precondition::None).await.unwrap()
        };
        let revision_of = |published: &Published| published.document().revision;

        assert!(matches!(publish(&one, 1).await, Published::Created(_)));
        assert!(matches!(publish(&other, 2).await, Published::Updated(_)));
        assert!(matches!(publish(&one, 3).await, Published::Updated(_)));
        let stale = publish(&other, 2).await;
        assert!(matches!(&stale, Published::Stale(_)) && revision_of(&stale) == Revision::from(3));
        assert_eq!(stale.document().content.as_deref(), Some(br#"{"v": 3}"#.as_slice()));

        other.delete_document(&url, &Precondition::None).await.unwrap();
        assert!(matches!(publish(&one, 3).await, Published::Stale(_)), "its revision is remembered");
        assert!(matches!(publish(&one, 4).await, Published::Created(_)));
        assert!(matches!(publish(&other, 5).await, Published::Updated(_)));
    }
}
