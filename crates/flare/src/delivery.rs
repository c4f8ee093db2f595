use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::{
    Batch, Conflict, Error, ErrorKind, Expect, Found, Key, LeasedJob, Merge, Partition, Record, Result,
    Store, Timestamp, Version,
};

use crate::attempt::Failure;
use crate::catalog::Subscriber;
use crate::decision::decide;
use crate::flare::Shared;
use crate::message::{Message, Telling};
use crate::net::{Reply, SendError, Transport, Waiting};
use crate::retry_policy::{next_wait, with_jitter};
use crate::told::{Failing, Last};
use crate::{Action, Document, DocumentUrl, Notice, NoticeKind, Outcome, Told, places};

/// A delivery that this process holds, and what it is decided on.
pub(crate) struct Delivery {
    pub(crate) job: LeasedJob,
    pub(crate) told: Option<(Told, Version)>,
    pub(crate) document: Option<Document>,
}

impl Shared {
    /// Reads what the leased jobs are decided on.
    pub(crate) async fn deliveries(
        &self,
        subscriber: &Subscriber,
        jobs: Vec<LeasedJob>,
    ) -> Result<Vec<Delivery>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (now, subscription) = (self.now(), &subscriber.subscription);
        let keys: Vec<_> = jobs.iter().map(|job| places::told(&subscription.id, &job.id)).collect();
        let told = self.store.get(&subscriber.at, now, &keys);
        let documents = self.documents(&subscription.resource, &jobs, now);
        let (told, documents) = tokio::try_join!(told, documents)?;
        let delivery = |((job, told), document): ((LeasedJob, Option<Record>), _)| {
            Ok(Delivery { job, told: told.as_ref().map(told_of).transpose()?, document })
        };
        jobs.into_iter().zip(told).zip(documents).map(delivery).collect()
    }

    /// The documents of the jobs, in their order, read partition by partition.
    async fn documents(
        &self,
        resource: &str,
        jobs: &[LeasedJob],
        now: Timestamp,
    ) -> Result<Vec<Option<Document>>> {
        let mut wanted = BTreeMap::<Partition, (Vec<usize>, Vec<Key>)>::new();
        for (index, job) in jobs.iter().enumerate() {
            let url = document_of(job)?;
            let (indexes, keys) = wanted.entry(places::document_partition(&self.store, &url)).or_default();
            indexes.push(index);
            keys.push(places::document(resource, &url));
        }
        let mut documents = vec![None; jobs.len()];
        for (at, (indexes, keys)) in wanted {
            for (index, record) in indexes.into_iter().zip(self.store.get(&at, now, &keys).await?) {
                documents[index] = record.map(|record| Document::decode(&record.value)).transpose()?;
            }
        }
        Ok(documents)
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
    /// The subscriber answered 410 Gone.
    Gone,
    /// Its lease was lost, or its end could not be recorded: whoever leases it next does it again.
    Lost,
}

impl Delivery {
    /// Whether a subscriber that was told nothing, as far as we know, may have been.
    ///
    /// A lease before this one may have sent something and died before it could say so.
    fn may_have_begun(&self) -> bool {
        self.job.attempt > 1 || self.told.as_ref().is_some_and(|(told, _)| told.begun.is_some())
    }

    /// What is to be sent, if anything.
    pub(crate) fn message(&self, subscriber: &Subscriber) -> Result<Option<Message>> {
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

    /// Sends what is to be sent, and records what came of it.
    ///
    /// Dropped before the end, the delivery is made again by whoever leases it next, with the same
    /// message id.
    pub(crate) async fn make(
        self,
        shared: &Shared,
        subscriber: &Subscriber,
        transport: &dyn Transport,
    ) -> Ended {
        let ended = match self.message(subscriber) {
            Ok(None) => self.settle(shared, subscriber).await,
            Ok(Some(message)) => self.attempt(shared, subscriber, transport, message).await,
            Err(error) => Err(error),
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
        shared.store.commit(batch).await?;
        Ok(Ended::Settled)
    }

    async fn attempt(
        self,
        shared: &Shared,
        subscriber: &Subscriber,
        transport: &dyn Transport,
        message: Message,
    ) -> Result<Ended> {
        let began = shared.now();
        if began >= self.job.until {
            return Ok(Ended::Lost);
        }
        let request = message.request(subscriber, began)?;
        // The rest of the lease is for recording what came of it.
        let limit = self.job.until.since(began) * 4 / 5;
        let late = Err(SendError::TimedOut { waiting_for: Waiting::Answer, limit });
        let sent = shared.settings.clock.timeout_at(began + limit, transport.send(request)).await;
        let result = sent.unwrap_or(late);
        let answer = Answer { result, began, ended: shared.now() };
        self.record(shared, subscriber, &message.telling, answer).await
    }

    /// The attempt, what was told and the next try are one commit.
    pub(crate) async fn record(
        mut self,
        shared: &Shared,
        subscriber: &Subscriber,
        telling: &Telling,
        answer: Answer,
    ) -> Result<Ended> {
        let mut was_asked = self.told.as_ref().is_some_and(|(told, _)| told.again);
        loop {
            if let Some((told, _)) = &mut self.told {
                told.again &= !was_asked;
            }
            was_asked = false;
            let mut batch = Batch::new(subscriber.at.clone(), answer.ended);
            let ended = self.record_in(&mut batch, shared, subscriber, telling, &answer);
            let error = match shared.store.commit(batch).await {
                Ok(_) => return Ok(ended),
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

    fn record_in(
        &self,
        batch: &mut Batch,
        shared: &Shared,
        subscriber: &Subscriber,
        telling: &Telling,
        answer: &Answer,
    ) -> Ended {
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
        let mut outcome = subscriber.plan.judge(answer.status());
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
        match (outcome, telling.action) {
            (Outcome::Delivered | Outcome::Discarded, Action::Delete) => batch.delete(key, expect),
            _ => batch.put(key, told.encode(), expect),
        };
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
        match outcome {
            Outcome::Delivered | Outcome::Discarded => Ended::Succeeded,
            Outcome::Failed | Outcome::Exhausted if answer.status() == Some(410) => Ended::Gone,
            Outcome::Failed | Outcome::Exhausted => Ended::Failed,
        }
    }
}

/// What came back, and when.
pub(crate) struct Answer {
    pub(crate) result: std::result::Result<Reply, SendError>,
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
        let error = self.result.as_ref().err()?;
        Some(Failure { kind: error.kind().to_owned(), message: error.to_string() })
    }

    pub(crate) fn text(&self) -> String {
        match &self.result {
            Ok(reply) => format!("status {}", reply.status),
            Err(error) => error.to_string(),
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
