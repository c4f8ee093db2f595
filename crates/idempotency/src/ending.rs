//! How an attempt ends: finished alone, finished with the user's writes, or failed.

use bytes::Bytes;
use evenkeel_core::{Batch, Store, Timestamp, Transactional, Tx, Version};

use crate::error::Result;
use crate::ownership::{Held, Ownership};
use crate::record::{Entry, list, put_record};
use crate::send::{Insist, Sent, beaten};
use crate::state::{Ending, Failure, Stored};
use crate::{Answer, Content, ErrorKind};

/// The end of an attempt, ready to be written.
struct Prepared {
    encoded: Bytes,
    answer: Answer,
}

const LATE: Failure<'static> =
    Failure { ending: Ending::TooLate, message: "the result came after the operation's expiration" };

impl<S: Store + Clone> Ownership<S> {
    /// Records the answer.
    pub(crate) async fn finish(&self, content: Content) -> Result<Answer> {
        let mut held = self.close().await?;
        let now = self.engine().now();
        if held.tracked.is_expired(now) {
            self.record_failure(&mut held, LATE).await?;
            return Err(self.error(ErrorKind::Expired, LATE.message));
        }
        let prepared = match self.prepare(&mut held, &content, now).await {
            Ok(prepared) => prepared,
            Err(error) => {
                // The work is done and must not run again, with or without its answer.
                tracing::warn!(%error, "an answer could not be offloaded and is not stored");
                self.prepare(&mut held, &Content::NotStored { bytes: content.bytes() }, now).await?
            }
        };
        let mut batch = Batch::new(self.place().at.clone(), now);
        self.write_end(&mut batch, &held, prepared.encoded);
        match self.send(batch, Insist::OnSuccess).await? {
            Sent::Applied => {}
            Sent::Beaten(_) => return Err(self.lease_lost()),
        }
        self.wake();
        Ok(prepared.answer)
    }

    /// Records a failure.
    pub(crate) async fn fail(&self, failure: Failure<'_>) -> Result<()> {
        let mut held = self.close().await?;
        self.record_failure(&mut held, failure).await
    }

    /// Wakes those who wait for the attempt in this process.
    fn wake(&self) {
        self.engine().waiters.wake(&self.place().id);
    }

    async fn record_failure(&self, held: &mut Held, failure: Failure<'_>) -> Result<()> {
        match self.try_failure(held, failure).await? {
            Sent::Applied => Ok(()),
            Sent::Beaten(_) => Err(self.lease_lost()),
        }
    }

    async fn try_failure(&self, held: &mut Held, failure: Failure<'_>) -> Result<Sent> {
        let now = self.engine().now();
        held.tracked.fail(failure, now);
        let mut batch = Batch::new(self.place().at.clone(), now);
        self.write_end(&mut batch, held, held.tracked.encode());
        let sent = self.send(batch, Insist::OnSuccess).await?;
        self.wake();
        Ok(sent)
    }

    fn write_end(&self, batch: &mut Batch, held: &Held, encoded: Bytes) {
        let (place, engine) = (self.place(), self.engine());
        put_record(batch, place, &held.tracked, encoded, held.version, engine);
        list(batch, place, Some(Entry::running(place)), &held.tracked, engine);
    }

    /// Decides where the answer goes, and puts it there unless that is the record.
    async fn prepare(&self, held: &mut Held, content: &Content, now: Timestamp) -> Result<Prepared> {
        let settings = &self.engine().settings;
        let limit = self.engine().store.info().limits.value;
        let tracked = &mut held.tracked;
        tracked.finish(now);
        let answer = |content| Answer { content, attempt: self.attempt, finished_at: now };

        let inline = settings.offload.as_ref().map_or(limit, |offload| offload.threshold());
        if let Content::Stored(bytes) = content
            && bytes.len() <= inline
        {
            tracked.result = Some(Stored::inline(bytes));
            let encoded = tracked.encode();
            if encoded.len() <= limit {
                return Ok(Prepared { encoded, answer: answer(content.clone()) });
            }
        }
        let (stored, content) = match (content, &settings.offload) {
            (Content::Stored(bytes), Some(offload)) => {
                let group = format!("{}.{}", self.place().id, held.version.0);
                let until = tracked.kept_until(settings.retention);
                let chunks = offload.write(group, bytes, until, &*settings.clock).await?;
                (Stored::Chunks(chunks), content.clone())
            }
            (content, _) => {
                let bytes = content.bytes();
                (Stored::Omitted { bytes }, Content::NotStored { bytes })
            }
        };
        tracked.result = Some(stored);
        Ok(Prepared { encoded: tracked.encode(), answer: answer(content) })
    }
}

impl<S: Transactional + Clone> Ownership<S> {
    /// Commits the answer with the user's writes, or takes them back and records a failure.
    pub(crate) async fn finish_in(&self, mut tx: Tx<S::Conn>, content: Content) -> Result<Answer> {
        // Renewals are over or held back by now, so this does not wait for a commit that waits for
        // the transaction.
        let mut held = match self.close().await {
            Ok(held) => held,
            Err(error) => {
                self.engine().store.rollback(tx).await;
                return Err(error);
            }
        };
        let now = self.engine().now();
        if held.tracked.is_expired(now) {
            self.engine().store.rollback(tx).await;
            self.record_failure(&mut held, LATE).await?;
            return Err(self.error(ErrorKind::Expired, LATE.message));
        }
        let prepared = match self.prepare(&mut held, &content, now).await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.engine().store.rollback(tx).await;
                let message = error.to_string();
                let failure = Failure { ending: Ending::Reported, message: &message };
                self.record_failure(&mut held, failure).await?;
                return Err(error);
            }
        };
        tx.batch().set_now(now);
        self.write_end(tx.batch(), &held, prepared.encoded);
        let version = tx.batch().version();
        let outcome = match self.engine().store.finish(tx).await {
            Ok(_) => Ok(Sent::Applied),
            Err(error) => beaten(error, self.place(), version),
        };
        match outcome {
            Ok(Sent::Applied) => self.wake(),
            Ok(Sent::Beaten(_)) => return Err(self.lease_lost()),
            Err(error) => self.take_back(&mut held, error, version).await?,
        }
        Ok(prepared.answer)
    }

    /// Records the failure of a commit, unless it succeeded after all.
    ///
    /// The failure goes over the version that the transaction expected: once it is written, the
    /// transaction can never be applied, however late its commit arrives.
    async fn take_back(&self, held: &mut Held, error: evenkeel_core::Error, version: Version) -> Result<()> {
        let message = error.to_string();
        match self.try_failure(held, Failure { ending: Ending::Reported, message: &message }).await {
            Ok(Sent::Beaten(Some(record))) if record.version == version => Ok(()),
            Ok(Sent::Beaten(_)) => Err(self.lease_lost()),
            Ok(Sent::Applied) if error.kind() == evenkeel_core::ErrorKind::OutcomeUnknown => {
                let kind = evenkeel_core::ErrorKind::Unavailable;
                let known =
                    evenkeel_core::Error::new(kind, "the store was lost in the commit, which was taken back");
                Err(known.with_source(error).into())
            }
            Ok(Sent::Applied) => Err(error.into()),
            Err(second) => {
                tracing::warn!(error = %second, "a failure was not recorded");
                Err(error.into())
            }
        }
    }
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Self::Stored(bytes) => u64::try_from(bytes.len()).expect("a usize fits a u64"),
            Self::NotStored { bytes } => *bytes,
        }
    }
}
