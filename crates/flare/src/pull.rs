use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use evenkeel_core::{Batch, Error, ErrorKind, Lease, LeasedJob, Result, Store, Timestamp, Token, Version};
use serde::{Deserialize, Serialize};

use crate::delivery::{Answer, Delivery, told_of};
use crate::message::{Message, Telling};
use crate::net::Reply;
use crate::plan::PULLED;
use crate::{Action, Flare, Revision, Status, places};

/// The longest time that a consumer may keep a message to itself.
const LONGEST_HOLD: Duration = Duration::from_hours(12);

/// The most messages taken at a time.
const MOST_MESSAGES: usize = 40;

/// A message that a consumer fetched instead of being sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// The `webhook-id`: the same each time the same message is fetched.
    pub id: String,
    /// The document.
    pub url: String,
    /// Which revision of it.
    pub revision: Revision,
    /// What became of it.
    pub action: Action,
    /// What a pushed message would have had as its body.
    pub body: Bytes,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Until when nobody else is given it.
    pub until: Timestamp,
    /// What acknowledges, delays or releases it.
    pub receipt: Receipt,
}

/// Proof that a consumer holds a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    job: String,
    token: Token,
    url: String,
    revision: Revision,
    action: Action,
    message: String,
    attempt: u32,
    /// The version of what was told when the message was given: a replay that is asked for later is
    /// another message.
    told: Option<Version>,
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a receipt is JSON")))
    }
}

impl std::str::FromStr for Receipt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(ErrorKind::InvalidInput, "this is not a receipt").with("receipt", text.escape_debug())
        };
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|source| refuse().with_source(source))?;
        serde_json::from_slice(&json).map_err(|source| refuse().with_source(source))
    }
}

impl Flare {
    /// Takes messages of a subscription in pull mode, and keeps them from others for `hold_for`.
    ///
    /// # Behavior
    /// - At most 40 at a time; there may be more where some are returned, even none.
    /// - A message that is neither acknowledged nor released in time is given again, with the same
    ///   id unless its document changed.
    ///
    /// # Errors
    /// `NotFound` where there is no such subscription; `InvalidInput` where it is sent its messages,
    /// or where a number is out of bounds; those of the store.
    pub async fn pull(&self, subscription: &str, max: usize, hold_for: Duration) -> Result<Vec<Pulled>> {
        let shared = &*self.shared;
        if !(1..=MOST_MESSAGES).contains(&max) {
            return Err(Error::new(ErrorKind::InvalidInput, "1 to 40 messages are taken at a time")
                .with("field", "max")
                .with("value", max));
        }
        if hold_for.is_zero() || hold_for > LONGEST_HOLD {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "messages are held for more than nothing, 12 hours at most",
            )
            .with("field", "hold")
            .with("value", format_args!("{hold_for:?}")));
        }
        let subscriber = shared.subscriber_of(subscription).await?;
        if subscriber.is_pushed() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the subscription is sent its messages, not in pull mode",
            )
            .with("subscription", subscription));
        }
        subscriber.plan()?;
        if subscriber.subscription.status != Status::Active {
            return Ok(Vec::new());
        }
        let (queue, now) = (subscriber.queue.clone(), shared.now());
        let leased = shared.store.lease(&subscriber.at, Lease { queue, max, hold_for, now }).await?;
        let mut pulled = Vec::new();
        for delivery in shared.deliveries(&subscriber, leased.jobs).await? {
            let left_out = match delivery.message(&subscriber) {
                Ok(Some(message)) => {
                    pulled.push(Pulled::new(&delivery, message));
                    continue;
                }
                Ok(None) => delivery.settle(shared, &subscriber).await.err(),
                Err(error) => delivery.fail(shared, &subscriber, &error).await.err(),
            };
            if let Some(error) = left_out {
                // The others are held already, and must reach the consumer.
                tracing::warn!(%error, subscription, "a message was left out of a pull");
            }
        }
        Ok(pulled)
    }

    /// Says that a message was taken: the subscriber is told of it.
    ///
    /// # Errors
    /// `LeaseLost` where it was held for too long and given to another since; `NotFound` where there
    /// is no such subscription; those of the store.
    pub async fn acknowledge(&self, subscription: &str, receipt: &Receipt) -> Result<()> {
        let shared = &*self.shared;
        let subscriber = shared.subscriber_of(subscription).await?;
        let key = [places::told(subscription, &receipt.job)];
        let told = shared.store.get(&subscriber.at, shared.now(), &key).await?.into_iter().next().flatten();
        let told = told.as_ref().map(told_of).transpose()?;
        let Receipt { job: id, token, url, revision, action, message, attempt, told: version } =
            receipt.clone();
        let is_asked = told.as_ref().is_some_and(|(told, found)| told.again && Some(*found) == version);
        let now = shared.now();
        let job = LeasedJob { id, payload: url.clone().into(), due: now, attempt, token, until: now };
        let delivery = Delivery::held(job, told, is_asked);
        let reply = Reply { status: PULLED, retry_after: None, body: Bytes::new(), took: Duration::ZERO };
        let answer = Answer { result: Ok(reply), began: now, ended: now };
        let told = Telling { id: message, url, revision, action };
        delivery.record(shared, &subscriber, &told, answer).await.map(drop)
    }

    /// Gives a message back, to be taken again after `delay`; zero is at once.
    ///
    /// # Errors
    /// `LeaseLost` where it was held for too long and given to another since; `NotFound` where there
    /// is no such subscription; those of the store.
    pub async fn release(&self, subscription: &str, receipt: &Receipt, delay: Duration) -> Result<()> {
        let shared = &*self.shared;
        let subscriber = shared.subscriber_of(subscription).await?;
        let mut batch = Batch::new(subscriber.at.clone(), shared.now());
        batch.retry(&subscriber.queue, &receipt.job, receipt.token, shared.now() + delay);
        shared.store.commit(batch).await.map(drop)
    }
}

impl Pulled {
    fn new(delivery: &Delivery, message: Message) -> Self {
        let LeasedJob { id: job, attempt, token, until, .. } = &delivery.job;
        let Message { telling: Telling { id, url, revision, action }, body, .. } = message;
        let receipt = Receipt {
            job: job.clone(),
            token: *token,
            url: url.clone(),
            revision,
            action,
            message: id.clone(),
            attempt: *attempt,
            told: delivery.told.as_ref().map(|(_, version)| *version),
        };
        Self { id, url, revision, action, body, attempt: *attempt, until: *until, receipt }
    }
}
