use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::attempt::Failure;
use crate::envelope::Envelope;
use crate::message::signed;
use crate::net::{SendError, Transport, Waiting};
use crate::{Action, Flare, Outcome, Revision};

/// What a test message says that happened, and what the wildcards stand for in it.
const PING: &str = "ping";

/// The longest wait for an answer through a transport that sets no limit itself.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What came of a test message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ping {
    /// The `webhook-id` that was sent.
    pub id: String,
    /// What such an answer comes to: `Delivered`, `Discarded` or `Failed`.
    pub outcome: Outcome,
    /// The status answered, where there was an answer.
    pub status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<Failure>,
    /// From the beginning to the end of the answer, or to when it was clear that there is none.
    pub took: Duration,
    /// The first 16 KiB of the answer's body; bytes that are not UTF-8 are replaced.
    pub response: String,
}

impl Flare {
    /// Sends a subscriber a test message through `transport`, at once and beside its deliveries, and
    /// waits for the answer.
    ///
    /// # Behavior
    /// - It goes where a `create` goes, signed like one; wildcards stand for `ping`, and the revision is
    ///   0. With an envelope its action is `ping`; without one its body is empty.
    /// - It is sent whatever the subscription's status is, and changes neither that nor its health: it
    ///   is no attempt at a delivery, and is not listed as one.
    /// - Dropping the future abandons the request.
    ///
    /// # Errors
    /// `NotFound` where there is no such subscription; `InvalidInput` where it fetches its messages; why no
    /// message can be made of it; those of the store. That there was no answer is none.
    pub async fn ping(&self, subscription: &str, transport: &dyn Transport) -> Result<Ping> {
        let shared = &*self.shared;
        let subscriber = shared.subscriber_of(subscription).await?;
        if !subscriber.is_pushed() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a subscription in pull mode fetches its messages; nothing can be sent to it",
            )
            .with("subscription", subscription));
        }
        let plan = subscriber.plan()?;
        let (begun, revision, captures) = (shared.now(), Revision::from(0), plan.captures_of(PING));
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let envelope = Envelope { id: &id, action: PING, revision, updated_at: begun, document: None };
        let body = if plan.content.envelope { envelope.body(&plan.data, &captures) } else { Bytes::new() };
        let request = plan.request(Action::Create, &captures, revision)?;
        let sending = transport.send(signed(plan, request, &id, body, begun));
        let answered = shared.settings.clock.timeout_at(begun + LONGEST_WAIT, sending).await;
        let late = SendError::TimedOut { waiting_for: Waiting::Answer, limit: LONGEST_WAIT };
        let (status, error, body) = match answered.unwrap_or(Err(late)) {
            Ok(reply) => (Some(reply.status), None, reply.body),
            Err(error) => (None, Some(Failure::from(&error)), Bytes::new()),
        };
        let outcome = subscriber.subscription.delivery.judge(status);
        let response = String::from_utf8_lossy(&body).into_owned();
        Ok(Ping { id, outcome, status, error, took: shared.now().since(begun), response })
    }
}
