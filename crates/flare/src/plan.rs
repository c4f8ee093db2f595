use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::envelope::Data;
use crate::interpolate::Text;
use crate::net::{check_header_name, target};
use crate::signing::{Secret, Vault};
use crate::subscription::Key;
use crate::{
    Action, Captures, Content, DeliveryPolicy, Mode, Outcome, Resource, Revision, Subscription, Template,
};

/// The status that stands for an acknowledgement in pull mode.
pub(crate) const PULLED: u16 = 200;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// A subscription, read once: what its messages look like.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is sent for each action; `None` in pull mode.
    requests: Option<Requests>,
    pub(crate) content: Content,
    pub(crate) data: Data,
    template: Template,
}

#[derive(Debug)]
struct Requests {
    create: Request,
    update: Request,
    delete: Request,
    keys: Vec<(Secret, Option<Timestamp>)>,
}

/// What is sent for an action.
#[derive(Debug)]
struct Request {
    method: Method,
    url: Text,
    headers: Vec<(HeaderName, Text)>,
}

impl Plan {
    /// Checks every rule of a subscription.
    ///
    /// # Errors
    /// `InvalidInput` naming the field and its value; `Config` where a secret cannot be unsealed.
    pub(crate) fn new(
        subscription: &Subscription,
        resource: &Resource,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<Self> {
        let template = &resource.endpoint;
        let policy = &subscription.delivery;
        let requests = match policy.mode {
            Mode::Push => Some(Requests {
                create: Request::new(subscription, Action::Create, template)?,
                update: Request::new(subscription, Action::Update, template)?,
                delete: Request::new(subscription, Action::Delete, template)?,
                keys: open_keys(subscription, vault, now)?,
            }),
            Mode::Pull if subscription.endpoint != Default::default() => {
                return Err(invalid(
                    "a subscription in pull mode has no endpoint",
                    "endpoint",
                    "an endpoint",
                ));
            }
            Mode::Pull => None,
        };
        match policy.mode {
            Mode::Push if policy.success.is_empty() => {
                return Err(invalid("there is a status of success", "delivery.success", "[]"));
            }
            Mode::Pull if !policy.success.is_empty() || !policy.discard.is_empty() => {
                return Err(invalid("in pull mode there are no statuses", "delivery.success", "statuses"));
            }
            Mode::Push | Mode::Pull => {}
        }
        let statuses = [("delivery.success", &policy.success), ("delivery.discard", &policy.discard)];
        for (field, statuses) in statuses {
            if let Some(status) = statuses.iter().find(|status| !(100..=599).contains(*status)) {
                return Err(invalid("a status is within 100 to 599", field, status));
            }
        }
        if let Some(status) = policy.discard.iter().find(|status| policy.success.contains(status)) {
            return Err(invalid(
                "a status is of success or to discard, not both",
                "delivery.discard",
                status,
            ));
        }
        if let Some(concurrency) = policy.concurrency.filter(|concurrency| !(1..=256).contains(concurrency)) {
            return Err(invalid(
                "1 to 256 deliveries are under way at once",
                "delivery.concurrency",
                concurrency,
            ));
        }
        if let Some(rate) = policy.rate.filter(|rate| !(0.001..=1_000_000.0).contains(rate)) {
            return Err(invalid("a rate is within 0.001 to 1,000,000 a second", "delivery.rate", rate));
        }
        policy.retry.as_ref().map_or(Ok(()), |retry| retry.check())?;
        if !subscription.content.envelope && !subscription.data.is_empty() {
            return Err(invalid("data stands in the envelope", "data", "data without an envelope"));
        }
        Ok(Self {
            requests,
            content: subscription.content,
            data: Data::new(&subscription.data, template)?,
            template: template.clone(),
        })
    }

    /// What the wildcards stand for in a document's URL.
    pub(crate) fn captures(&self, document: &crate::DocumentUrl) -> Result<Captures> {
        self.template.captures(document).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "a document is not of its resource").with("url", document)
        })
    }

    /// Captures for a message that is about no document: every wildcard stands for `text`.
    pub(crate) fn captures_of(&self, text: &str) -> Captures {
        self.template.captures_of(text)
    }

    /// The secrets that sign at `now`, the one in use first.
    pub(crate) fn secrets(&self, now: Timestamp) -> Vec<Secret> {
        let signs = |(_, until): &&(Secret, Option<Timestamp>)| until.is_none_or(|until| now < until);
        self.sent().keys.iter().filter(signs).map(|(secret, _)| secret.clone()).collect()
    }

    /// Method, URL and headers of a message, without those of its signature.
    pub(crate) fn request(
        &self,
        action: Action,
        captures: &Captures,
        revision: Revision,
    ) -> Result<(Method, http::Uri, HeaderMap)> {
        let requests = self.sent();
        let request = match action {
            Action::Create => &requests.create,
            Action::Update => &requests.update,
            Action::Delete => &requests.delete,
        };
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 4);
        for (name, value) in &request.headers {
            let value = HeaderValue::try_from(value.render(captures, revision))
                .expect("a rendered header is visible ASCII");
            headers.append(name, value);
        }
        Ok((request.method.clone(), target(&request.url.render(captures, revision))?, headers))
    }

    fn sent(&self) -> &Requests {
        self.requests.as_ref().expect("only a subscription that is sent to has requests")
    }
}

impl DeliveryPolicy {
    /// What an answer with this status comes to; none at all is a failure, too.
    pub(crate) fn judge(&self, status: Option<u16>) -> Outcome {
        match status {
            Some(PULLED) if self.mode == Mode::Pull => Outcome::Delivered,
            Some(status) if self.success.contains(&status) => Outcome::Delivered,
            Some(status) if self.discard.contains(&status) => Outcome::Discarded,
            _ => Outcome::Failed,
        }
    }
}

/// The secrets that sign, and until when. One that is over need not be readable: its vault key may be
/// gone, too.
fn open_keys(
    subscription: &Subscription,
    vault: &Vault,
    now: Timestamp,
) -> Result<Vec<(Secret, Option<Timestamp>)>> {
    let signing = subscription.keys.iter().filter(|key| key.signs_at(now));
    let open = |key: &Key| Ok((vault.open(&key.sealed, &subscription.id)?.parse()?, key.until));
    signing.map(open).collect()
}

impl Request {
    fn new(subscription: &Subscription, action: Action, template: &Template) -> Result<Self> {
        let endpoint = &subscription.endpoint;
        let url = endpoint.url_for(action).ok_or_else(|| {
            invalid("every action has a url", "endpoint.url", format_args!("none for {action}"))
        })?;
        let method = endpoint.method_for(action).ok_or_else(|| {
            invalid("every action has a method", "endpoint.method", format_args!("none for {action}"))
        })?;
        let method = METHODS.into_iter().find(|known| known.as_str() == method).ok_or_else(|| {
            invalid("a method is GET, POST, PUT, PATCH or DELETE", "endpoint.method", method.escape_debug())
        })?;
        let mut headers = Vec::new();
        for (name, value) in endpoint.headers_for(action).into_iter().flatten() {
            let name = check_header_name("endpoint.headers", name)?;
            let field = format!("endpoint.headers.{name}");
            headers.push((name, Text::header(&field, value, template)?));
        }
        if !headers.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
            let json = Text::header("endpoint.headers", "application/json", template)?;
            headers.push((header::CONTENT_TYPE, json));
        }
        Ok(Self { method, url: Text::url("endpoint.url", url, template)?, headers })
    }
}

fn invalid(message: &'static str, field: &'static str, value: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with("field", field).with("value", value)
}
