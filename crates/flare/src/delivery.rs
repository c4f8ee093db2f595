use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::{
    Batch, Conflict, Error, ErrorKind, Expect, Found, Key, LeasedJob, Merge, Partition, Record, Result,
    Store, Timestamp, Version,
};
use futures_util::future::try_join_all;

use crate::attempt::Failure;
use crate::catalog::Subscriber;
use crate::decision::decide;
use crate::flare::Shared;
use crate::message::{Message, Telling};
use crate::net::{Reply, SendError, Transport, Waiting};
use crate::pump::Seat;
use crate::retry_policy::{next_wait, with_jitter};
use crate::told::{Failing, Last};
use crate::{Action, Document, DocumentUrl, Notice, NoticeKind, Outcome, Revision, Told, places};

/// How many deliveries one commit gives back.
const MOST_GIVEN_BACK: usize = 40;

/// A delivery that this process holds, and what it is decided on.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) job: LeasedJob,
    pub(crate) told: Option<(Told, Version)>,
    pub(crate) document: Option<Document>,
    /// Whether it tells once more what was told.
    pub(crate) is_asked: bool,
    /// Why there is nothing that could be told: what is stored of it cannot be read.
    trouble: Option<Error>,
}

impl Shared {
    /// Reads what the leased jobs are decided on. Where the store does not tell, they are given back.
    pub(crate) async fn deliveries(
        &self,
        subscriber: &Subscriber,
        jobs: Vec<LeasedJob>,
    ) -> Result<Vec<Delivery>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (now, subscription) = (self.now(), &subscriber.subscription);
        let urls: Vec<_> = jobs.iter().map(document_of).collect();
        let told = jobs.iter().map(|job| (subscriber.at.clone(), places::told(&subscription.id, &job.id)));
        let documents = urls.iter().flatten().map(|url| {
            let at = places::document_partition(&self.store, url);
            (at, places::document(&subscription.resource, url))
        });
        match self.records(told.chain(documents).collect(), now).await {
            Ok(mut told) => {
                let mut documents = told.split_off(jobs.len()).into_iter();
                let mut document = |url: Result<DocumentUrl>| {
                    let record = url.map(|_| documents.next().flatten())?;
                    record.map(|record| Document::decode(&record.value)).transpose()
                };
                let jobs = jobs.into_iter().zip(told).zip(urls);
                Ok(jobs.map(|((job, told), url)| Delivery::new(job, told, document(url))).collect())
            }
            Err(error) => {
                self.give_back(subscriber, &jobs).await;
                Err(error)
            }
        }
    }

    /// Lets others have what was leased, rather than wait until the lease is over.
    async fn give_back(&self, subscriber: &Subscriber, jobs: &[LeasedJob]) {
        for jobs in jobs.chunks(MOST_GIVEN_BACK) {
            let now = self.now();
            let mut batch = Batch::new(subscriber.at.clone(), now);
            for job in jobs {
                batch.retry(&subscriber.queue, &job.id, job.token, now);
            }
            if let Err(error) = self.store.commit(batch).await {
                let subscription = &subscriber.subscription.id;
                tracing::warn!(%error, subscription, "deliveries wait until their lease is over");
            }
        }
    }

    /// The records at the keys, in their order, with one call a partition.
    async fn records(&self, wanted: Vec<(Partition, Key)>, now: Timestamp) -> Result<Vec<Option<Record>>> {
        let mut records = vec![None; wanted.len()];
        let mut partitions = BTreeMap::<Partition, (Vec<usize>, Vec<Key>)>::new();
        for (index, (at, key)) in wanted.into_iter().enumerate() {
            let (indexes, keys) = partitions.entry(at).or_default();
            indexes.push(index);
            keys.push(key);
        }
        let reads = partitions.iter().map(|(at, (_, keys))| self.store.get(at, now, keys));
        let found = try_join_all(reads).await?;
        for ((indexes, _), found) in partitions.into_values().zip(found) {
            for (index, record) in indexes.into_iter().zip(found) {
                records[index] = record;
            }
        }
        Ok(records)
    }
}

/// The document that a delivery is about.
pub(crate) fn document_of(job: &LeasedJob) -> Result<DocumentUrl> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "a delivery's job is not one").with("job", &job.id);
    let url = std::str::from_utf8(&job.payload).map_err(|source| corrupt().with_source(source))?;
    DocumentUrl::parse(url).map_err(|source| corrupt().with_source(source))
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There was nothing to send.
    Settled,
    /// The subscriber answered as it does when all is well.
    Succeeded,
    Failed,
    /// There was something to send, and no message could be made of it; the subscriber has no part in that.
    Unsent,
    /// The subscriber, which was last made active at this time, answered 410 Gone.
    Gone {
        resumed_at: Option<Timestamp>,
    },
    /// Its lease was lost, or its end could not be recorded: whoever leases it next does it again.
    Lost,
}

impl Delivery {
    fn new(job: LeasedJob, told: Option<Record>, document: Result<Option<Document>>) -> Self {
        let mut trouble = None;
        let told = told.map(|record| {
            told_of(&record).unwrap_or_else(|error| {
                trouble = Some(error);
                // What it said is lost; once the failure is recorded, the subscriber is told anew.
                (Told::nothing(String::from_utf8_lossy(&job.payload).into_owned()), record.version)
            })
        });
        let document = document.unwrap_or_else(|error| {
            trouble = Some(error);
            None
        });
        let is_asked = told.as_ref().is_some_and(|(told, _)| told.again);
        Self { job, told, document, is_asked, trouble }
    }

    /// One that was leased when it was published, by whoever knew what was told before.
    pub(crate) fn of(job: LeasedJob, told: Option<(Told, Version)>, document: Document) -> Self {
        Self { job, told, document: Some(document), is_asked: false, trouble: None }
    }

    /// One that its consumer holds, to be recorded.
    pub(crate) fn held(job: LeasedJob, told: Option<(Told, Version)>, is_asked: bool) -> Self {
        Self { job, told, document: None, is_asked, trouble: None }
    }

    /// Whether a subscriber that was told nothing, as far as we know, may have been.
    ///
    /// A lease before this one may have sent something and died before it could say so.
    fn may_have_begun(&self) -> bool {
        self.job.attempt > 1 || self.told.as_ref().is_some_and(|(told, _)| told.begun.is_some())
    }

    /// What is to be sent, if anything.
    ///
    /// # Errors
    /// Why no message can be made of it, now and until something else is changed.
    pub(crate) fn message(&self, subscriber: &Subscriber) -> Result<Option<Message>> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.repeated());
        }
        let told = self.told.as_ref().map(|(told, _)| told);
        let Some(action) = decide(told, self.may_have_begun(), self.document.as_ref()) else {
            return Ok(None);
        };
        match (&self.document, action) {
            (Some(document), Action::Create | Action::Update) => {
                subscriber.wants(document).then(|| Message::new(subscriber, document, action)).transpose()
            }
            (Some(document), Action::Delete) => Message::new(subscriber, document, action).map(Some),
            (None, _) => {
                self.forgotten(told)?.map(|document| Message::new(subscriber, &document, action)).transpose()
            }
        }
    }

    /// What can be said of a document of which nothing is left: what the subscriber was told.
    fn forgotten(&self, told: Option<&Told>) -> Result<Option<Document>> {
        let Some(last) = told.and_then(|told| told.last) else { return Ok(None) };
        let url = document_of(&self.job)?;
        Ok(Some(Document { url, revision: last.revision, updated_at: last.at, content: None }))
    }

    /// Sends what is to be sent, and records what came of it. It gives up its `seat` among those under way
    /// as soon as the subscriber has taken it.
    ///
    /// Dropped before the end, the delivery is made again by whoever leases it next, with the same
    /// message id.
    pub(crate) async fn make(
        self,
        shared: &Shared,
        subscriber: &Subscriber,
        transport: &dyn Transport,
        seat: &mut Option<Seat>,
    ) -> Ended {
        let ended = match self.message(subscriber) {
            Ok(None) => self.settle(shared, subscriber).await,
            Ok(Some(message)) => self.attempt(shared, subscriber, transport, message, seat).await,
            Err(error) => self.fail(shared, subscriber, &error).await,
        };
        ended.unwrap_or_else(|error| {
            tracing::warn!(%error, subscription = %subscriber.subscription.id, "a delivery was not recorded");
            Ended::Lost
        })
    }

    pub(crate) async fn settle(self, shared: &Shared, subscriber: &Subscriber) -> Result<Ended> {
        let mut batch = Batch::new(subscriber.at.clone(), shared.now());
        batch.ack(&subscriber.queue, &self.job.id, self.job.token);
        if let Some((told, version)) = self.told.filter(|(told, _)| told.again) {
            let key = places::told(&subscriber.subscription.id, &self.job.id);
            batch.put(key, Told { again: false, ..told }.encode(), Expect::Version(version));
        }
        shared.settlements.commit(batch).await?;
        Ok(Ended::Settled)
    }

    async fn attempt(
        self,
        shared: &Shared,
        subscriber: &Subscriber,
        transport: &dyn Transport,
        message: Message,
        seat: &mut Option<Seat>,
    ) -> Result<Ended> {
        let began = shared.now();
        if began >= self.job.until {
            return Ok(Ended::Lost);
        }
        let request = match message.request(subscriber, began) {
            Ok(request) => request,
            Err(error) => return self.fail(shared, subscriber, &error).await,
        };
        // The rest of the lease is for recording what came of it.
        let limit = self.job.until.since(began) * 4 / 5;
        let late = Err(SendError::TimedOut { waiting_for: Waiting::Answer, limit });
        let sent = shared.settings.clock.timeout_at(began + limit, transport.send(request)).await;
        let result = sent.unwrap_or(late).map_err(|error| Failure::from(&error));
        let answer = Answer { result, began, ended: shared.now() };
        if let Outcome::Delivered | Outcome::Discarded =
            subscriber.subscription.delivery.judge(answer.status())
        {
            *seat = None;
        }
        self.record(shared, subscriber, &message.telling, answer).await
    }

    /// Records a try that failed before anything was sent: the policy tries again what may be put right,
    /// and gives up what is not.
    pub(crate) async fn fail(self, shared: &Shared, subscriber: &Subscriber, error: &Error) -> Result<Ended> {
        let now = shared.now();
        let answer = Answer { result: Err(Failure::no_message(error)), began: now, ended: now };
        let telling = self.telling(subscriber);
        tracing::warn!(%error, subscription = %subscriber.subscription.id, url = %telling.url, "there is no message to send");
        self.record(shared, subscriber, &telling, answer).await.map(|_| Ended::Unsent)
    }

    /// What would be told, as far as that is known.
    fn telling(&self, subscriber: &Subscriber) -> Telling {
        let told = self.told.as_ref().map(|(told, _)| told);
        let last = told.and_then(|told| told.last.map(|last| last.revision).or(told.begun));
        let document = self.document.as_ref().map(|document| (document.revision, document.updated_at));
        let (revision, updated_at) =
            document.unwrap_or_else(|| (last.unwrap_or_else(|| Revision::from(0)), Timestamp::EPOCH));
        let action = decide(told, self.may_have_begun(), self.document.as_ref()).unwrap_or(Action::Create);
        let url = String::from_utf8_lossy(&self.job.payload);
        Telling::new(subscriber, &url, revision, action, updated_at)
    }

    /// The attempt, what was told and the next try are one commit.
    pub(crate) async fn record(
        mut self,
        shared: &Shared,
        subscriber: &Subscriber,
        telling: &Telling,
        answer: Answer,
    ) -> Result<Ended> {
        loop {
            if let Some((told, _)) = &mut self.told {
                told.again &= !self.is_asked;
            }
            self.is_asked = false;
            let mut batch = Batch::new(subscriber.at.clone(), answer.ended);
            let (ended, told) = self.record_in(&mut batch, shared, subscriber, telling, &answer);
            let error = match shared.settlements.commit(batch).await {
                Ok(committed) => {
                    let name = (subscriber.subscription.id.clone(), self.job.id);
                    if ended == Ended::Succeeded {
                        shared.recent_told.put(name, told.map(|told| (told, committed.version)));
                    } else {
                        shared.recent_told.forget(&name);
                    }
                    return Ok(ended);
                }
                Err(error) => error,
            };
            // A replay was asked for while this was sent; it is kept for the next time.
            match error.into_conflict()? {
                Conflict { found: Found::Record { record, .. }, .. } => {
                    self.told = record.map(|record| told_of(&record)).transpose()?;
                }
                conflict => return Err(conflict.into()),
            }
        }
    }

    /// How the delivery ended, and what its subscriber was told then.
    fn record_in(
        &self,
        batch: &mut Batch,
        shared: &Shared,
        subscriber: &Subscriber,
        telling: &Telling,
        answer: &Answer,
    ) -> (Ended, Option<Told>) {
        let subscription = &subscriber.subscription;
        let (id, token, now) = (&self.job.id, self.job.token, answer.ended);
        let key = places::told(&subscription.id, id);
        let expect = self.told.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        let mut told = match &self.told {
            Some((told, _)) => told.clone(),
            None => Told::nothing(telling.url.clone()),
        };
        let was_exhausted = told.is_exhausted();
        let mut tries = told.failing.map_or(0, |failing| failing.tries) + 1;
        let mut outcome = subscription.delivery.judge(answer.status());
        match outcome {
            Outcome::Delivered | Outcome::Discarded => {
                batch.ack(&subscriber.queue, id, token);
                let status = answer.status().unwrap_or_default();
                let Telling { revision, action, .. } = *telling;
                told.last = Some(Last { revision, action, at: now, status });
                (told.failing, told.begun) = (None, None);
            }
            Outcome::Failed | Outcome::Exhausted => {
                let took = now.since(answer.began);
                let failing = told.failed(telling.revision, now, took, subscription.resumed_at);
                tries = failing.tries;
                told.begun = Some(telling.revision);
                let elapsed = now.since(failing.since);
                let wait =
                    next_wait(subscription.delivery.retry.as_ref(), tries, elapsed, answer.retry_after());
                if let Some(wait) = wait {
                    batch.retry(&subscriber.queue, id, token, now + with_jitter(wait));
                } else {
                    outcome = Outcome::Exhausted;
                    told.failing = Some(Failing { exhausted: true, ..failing });
                    batch.ack(&subscriber.queue, id, token);
                }
            }
        }
        let attempt = telling.attempt(answer, outcome, tries);
        let expires_at = now + shared.settings.history;
        batch.put_until(attempt.key(&subscription.id), attempt.encode(), Expect::Any, expires_at);
        let exhausted = places::exhausted(&subscription.id);
        match (was_exhausted, told.is_exhausted()) {
            // To recover moves the job away and leaves the mark.
            (_, true) => batch.push(exhausted, id, Timestamp::MAX, telling.url.clone(), Merge::Keep),
            (true, false) => batch.cancel(exhausted, id),
            (false, false) => batch,
        };
        if outcome == Outcome::Exhausted {
            let notice = Notice {
                subscription: subscription.id.clone(),
                kind: NoticeKind::Exhausted,
                at: now,
                message: format!("{} failed {tries} times; the last: {}", telling.url, answer.text()),
            };
            batch.put_until(notice.key(id), notice.encode(), Expect::Any, expires_at);
        }
        let ended = match outcome {
            Outcome::Delivered | Outcome::Discarded => Ended::Succeeded,
            Outcome::Failed | Outcome::Exhausted if answer.status() == Some(410) => {
                Ended::Gone { resumed_at: subscription.resumed_at }
            }
            Outcome::Failed | Outcome::Exhausted => Ended::Failed,
        };
        if (ended, telling.action) == (Ended::Succeeded, Action::Delete) {
            batch.delete(key, expect);
            return (ended, None);
        }
        batch.put(key, told.encode(), expect);
        (ended, Some(told))
    }
}

/// What came back, and when.
pub(crate) struct Answer {
    pub(crate) result: std::result::Result<Reply, Failure>,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
}

impl Answer {
    pub(crate) fn status(&self) -> Option<u16> {
        self.result.as_ref().ok().map(|reply| reply.status)
    }

    fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok().and_then(|reply| reply.retry_after)
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.result.as_ref().err().cloned()
    }

    pub(crate) fn text(&self) -> String {
        match &self.result {
            Ok(reply) => format!("status {}", reply.status),
            Err(failure) => failure.message.clone(),
        }
    }

    pub(crate) fn response(&self) -> String {
        let body = self.result.as_ref().map(|reply| &*reply.body).unwrap_or_default();
        String::from_utf8_lossy(body).into_owned()
    }
}

/// What a record says was told, with the version to expect when it is written back.
pub(crate) fn told_of(record: &Record) -> Result<(Told, Version)> {
    Ok((Told::decode(record)?, record.version))
}
