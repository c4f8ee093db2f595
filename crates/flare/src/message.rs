use bytes::Bytes;
use evenkeel_core::{Result, Timestamp};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::attempt::micros;
use crate::catalog::Subscriber;
use crate::delivery::Answer;
use crate::envelope::Envelope;
use crate::net::Outgoing;
use crate::plan::Plan;
use crate::signing::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, signature_header};
use crate::{Action, Attempt, Captures, Document, Outcome, Revision, places};

/// What a subscriber is told, without the words.
///
/// The id is the same for the same subscription, document, revision and action, and so are the
/// message's bytes: a subscriber that has seen the id has seen the message.
#[derive(Clone, Debug)]
pub(crate) struct Telling {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) revision: Revision,
    pub(crate) action: Action,
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) telling: Telling,
    pub(crate) body: Bytes,
    captures: Captures,
}

impl Message {
    /// That `action` happened to `document`, or to what is left of it.
    pub(crate) fn new(subscriber: &Subscriber, document: &Document, action: Action) -> Result<Self> {
        let Document { url, revision, updated_at, content } = document;
        let telling = Telling::new(subscriber, url.as_str(), *revision, action, *updated_at);
        let plan = subscriber.plan()?;
        let captures = plan.captures(url)?;
        let envelope = Envelope {
            id: &telling.id,
            action: action.as_str(),
            revision: *revision,
            updated_at: *updated_at,
            document: content.as_ref().filter(|_| plan.content.document),
        };
        let body =
            if plan.content.envelope { envelope.body(&plan.data, &captures) } else { envelope.bare_body() };
        Ok(Self { telling, body, captures })
    }

    /// The request that tells it at `now`, signed.
    pub(crate) fn request(&self, subscriber: &Subscriber, now: Timestamp) -> Result<Outgoing> {
        let Telling { id, revision, action, .. } = &self.telling;
        let plan = subscriber.plan()?;
        let request = plan.request(*action, &self.captures, *revision)?;
        Ok(signed(plan, request, id, self.body.clone(), now))
    }
}

/// The request that carries `body` at `now`, signed.
pub(crate) fn signed(
    plan: &Plan,
    (method, uri, mut headers): (Method, Uri, HeaderMap),
    id: &str,
    body: Bytes,
    now: Timestamp,
) -> Outgoing {
    let seconds = now.as_micros().div_euclid(1_000_000);
    let signatures = signature_header(&plan.secrets(now), id, seconds, &body);
    let signature = HeaderValue::try_from(signatures).expect("a signature is visible ASCII");
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(id).expect("a message id is visible ASCII"));
    headers.insert(WEBHOOK_TIMESTAMP, seconds.into());
    headers.insert(WEBHOOK_SIGNATURE, signature);
    Outgoing { method, uri, headers, body }
}

impl Telling {
    /// When the document was published or deleted tells a revision from one of the same number that
    /// came after the first was forgotten.
    pub(crate) fn new(
        subscriber: &Subscriber,
        url: &str,
        revision: Revision,
        action: Action,
        updated_at: Timestamp,
    ) -> Self {
        let (number, updated_at) = (revision.to_string(), updated_at.to_string());
        let parts = [&subscriber.subscription.id, url, &number, action.as_str(), &updated_at];
        Self { id: format!("msg_{}", places::hash(&parts)), url: url.to_owned(), revision, action }
    }

    /// What became of telling it.
    pub(crate) fn attempt(&self, answer: &Answer, outcome: Outcome, tries: u32) -> Attempt {
        let Self { id, url, revision, action } = self.clone();
        Attempt {
            message: id,
            url,
            revision,
            action,
            at: answer.ended,
            took_us: micros(answer.ended.since(answer.began)),
            tries,
            outcome,
            status: answer.status(),
            error: answer.failure(),
            response: answer.response(),
        }
    }
}
