use evenkeel_core::{
    Batch, Error, ErrorKind, Job, JobPage, Jobs, Record, Result, Scan, Store, StoreExt, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::task::Task;
use crate::{Attempt, DocumentUrl, Flare, Health, Notice, Outcome, Told, places};

/// How many things are counted before the count is "at least".
const MOST_COUNTED: usize = 10_000;

/// How many things are read at a time.
const PAGE: usize = 500;

/// What the cursors of deliveries that were given up begin with; no document's id does.
const GIVEN_UP: &str = "exhausted/";

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// In the list's order; may be fewer than asked for, even none, with more to come.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<String>,
}

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The document.
    pub url: String,
    /// How it stands.
    pub state: DeliveryState,
    /// When it is made or tried again; `None` where it was tried for the last time.
    pub due: Option<Timestamp>,
    /// How often it was begun.
    pub attempt: u32,
}

/// How a delivery that waits stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It was not begun yet.
    Pending,
    /// Somebody makes it right now.
    UnderWay,
    /// It failed, and is tried again.
    Retrying,
    /// It was tried for the last time.
    Exhausted,
}

/// How many deliveries stand how, counted up to 10,000 in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Those not begun yet.
    pub pending: usize,
    /// Those being made right now.
    pub under_way: usize,
    /// Those that are tried again.
    pub retrying: usize,
    /// Those that were tried for the last time.
    pub exhausted: usize,
    /// Whether there are more than were counted.
    pub is_capped: bool,
}

/// Which attempts are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptFilter {
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only at this document.
    pub url: Option<DocumentUrl>,
}

impl Flare {
    /// A page of the deliveries that wait for a subscription.
    ///
    /// # Errors
    /// `NotFound` where there is no such subscription; those of the store.
    pub async fn deliveries(
        &self,
        subscription: &str,
        state: Option<DeliveryState>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<Waiting>> {
        let subscriber = self.shared.subscriber_of(subscription).await?;
        let now = self.shared.now();
        // What was given up comes after what waits, and is marked in the cursor.
        let (given_up, after) = match after {
            Some(cursor) => match cursor.strip_prefix(GIVEN_UP) {
                Some("") => (true, None),
                Some(after) => (true, Some(after.to_owned())),
                None => (false, Some(cursor)),
            },
            None => (state == Some(DeliveryState::Exhausted), None),
        };
        let queue = if given_up { places::exhausted(subscription) } else { subscriber.queue.clone() };
        let JobPage { jobs, cursor } =
            self.shared.store.jobs(&subscriber.at, Jobs::Page { queue, after, limit }).await?;
        let waiting = jobs.into_iter().map(|(_, job)| Waiting::new(&job, now));
        let items = waiting.filter(|waiting| state.is_none_or(|state| waiting.state == state)).collect();
        let cursor = match (given_up, cursor) {
            (true, cursor) => cursor.map(|cursor| format!("{GIVEN_UP}{cursor}")),
            (false, None) if state.is_none() => Some(GIVEN_UP.to_owned()),
            (false, cursor) => cursor,
        };
        Ok(Page { items, cursor })
    }

    /// How many deliveries of a subscription stand how.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn counts(&self, subscription: &str) -> Result<Counts> {
        let (mut counts, mut counted, mut after) = (Counts::default(), 0, None);
        loop {
            let page = self.deliveries(subscription, None, after, PAGE).await?;
            for waiting in &page.items {
                *match waiting.state {
                    DeliveryState::Pending => &mut counts.pending,
                    DeliveryState::UnderWay => &mut counts.under_way,
                    DeliveryState::Retrying => &mut counts.retrying,
                    DeliveryState::Exhausted => &mut counts.exhausted,
                } += 1;
            }
            counted += page.items.len();
            after = page.cursor;
            counts.is_capped = counted >= MOST_COUNTED && after.is_some();
            if after.is_none() || counts.is_capped {
                return Ok(counts);
            }
        }
    }

    /// A page of a subscription's attempts, the latest first. They are kept for as long as
    /// [`history`](Self::history) says.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn attempts(
        &self,
        subscription: &str,
        filter: &AttemptFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<Attempt>> {
        let scan = Scan::new(places::ATTEMPTS, subscription, limit, self.shared.now()).backwards();
        let mut page = self.scan(subscription, Scan { after, ..scan }, Attempt::decode).await?;
        page.items.retain(|attempt| filter.takes(attempt));
        Ok(page)
    }

    /// A page of what a subscriber was told last, document by document.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn told(&self, subscription: &str, after: Option<String>, limit: usize) -> Result<Page<Told>> {
        let scan = Scan::new(places::TOLD, subscription, limit, self.shared.now());
        self.scan(subscription, Scan { after, ..scan }, Told::decode).await
    }

    /// What a subscriber was told last of one document.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn told_of(&self, subscription: &str, url: &DocumentUrl) -> Result<Option<Told>> {
        let subscriber = self.shared.subscriber_of(subscription).await?;
        let key = places::told(subscription, &places::document_id(url));
        let record = self.shared.store.get_one(&subscriber.at, self.shared.now(), &key).await?;
        record.as_ref().map(Told::decode).transpose()
    }

    /// How a subscription fares.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn health(&self, subscription: &str) -> Result<Health> {
        let subscriber = self.shared.subscriber_of(subscription).await?;
        let key = places::health(subscription);
        let record = self.shared.store.get_one(&subscriber.at, self.shared.now(), &key).await?;
        Health::decode(record.as_ref()).map(|(health, _)| health)
    }

    /// The latest notices, those after (that is, before) `after` where it is given, with what to go
    /// on after.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn notices(&self, after: Option<String>, limit: usize) -> Result<Page<Notice>> {
        let scan = Scan::new(places::NOTICES, places::ALL, limit, self.shared.now()).backwards();
        let records = self.shared.store.scan_merged(Scan { after, ..scan }).await?;
        let cursor = (records.len() == limit).then(|| records.last().map(|last| last.id.clone())).flatten();
        let items = records.iter().map(|merged| Notice::decode(&merged.record)).collect::<Result<_>>()?;
        Ok(Page { items, cursor })
    }

    /// Tells a subscriber once more what it was told last of a document, with the same id; of one
    /// that has changed since, it is told what it is now. Whether it was told anything.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn replay(&self, subscription: &str, url: &DocumentUrl) -> Result<bool> {
        let subscriber = self.shared.subscriber_of(subscription).await?;
        self.shared.tell_again(&subscriber, &places::document_id(url)).await
    }

    /// Tells a subscriber once more what it was told at `since` or later, as
    /// [`replay`](Self::replay) does.
    ///
    /// # Errors
    /// As for [`deliveries`](Self::deliveries).
    pub async fn replay_since(&self, subscription: &str, since: Timestamp) -> Result<()> {
        let subscriber = self.shared.subscriber_of(subscription).await?;
        let mut batch = Batch::new(subscriber.at.clone(), self.shared.now());
        Task::Replay { subscription: subscription.to_owned(), since, after: None }.push(&mut batch, b"");
        self.shared.store.commit(batch).await.map(drop)
    }

    async fn scan<T>(
        &self,
        subscription: &str,
        scan: Scan,
        decode: impl Fn(&Record) -> Result<T>,
    ) -> Result<Page<T>> {
        if scan.limit == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "a limit is at least 1").with("field", "limit"));
        }
        let subscriber = self.shared.subscriber_of(subscription).await?;
        let page = self.shared.store.scan(&subscriber.at, scan).await?;
        let items = page.records.iter().map(|(_, record)| decode(record)).collect::<Result<_>>()?;
        Ok(Page { items, cursor: page.cursor })
    }
}

impl Waiting {
    fn new(job: &Job, now: Timestamp) -> Self {
        let state = match job {
            job if job.lease.is_some_and(|hold| hold.until > now) => DeliveryState::UnderWay,
            job if job.due == Timestamp::MAX => DeliveryState::Exhausted,
            job if job.attempt > 0 => DeliveryState::Retrying,
            _ => DeliveryState::Pending,
        };
        let due = (job.due != Timestamp::MAX).then_some(job.due);
        let url = String::from_utf8_lossy(&job.payload).into_owned();
        Self { url, state, due, attempt: job.attempt }
    }
}

impl AttemptFilter {
    fn takes(&self, attempt: &Attempt) -> bool {
        self.outcome.is_none_or(|outcome| attempt.outcome == outcome)
            && self.url.as_ref().is_none_or(|url| attempt.url == url.as_str())
    }
}
