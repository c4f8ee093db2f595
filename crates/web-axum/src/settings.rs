use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::OriginalUri;
use bytes::Bytes;
use evenkeel_core::Timestamp;
use evenkeel_idempotency::{Fingerprint, OnInterrupted, OnRunning, Operation, Scope};
use http::{HeaderName, Method, StatusCode, Uri, request, response};

use crate::problem::Kind;
use crate::{Problem, headers, payload};

/// Whether a key must be written as the draft standard says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySyntax {
    /// A quoted string, or its text alone where that has no space, comma, semicolon, quote or
    /// backslash.
    #[default]
    Lenient,
    /// A quoted string.
    Strict,
}

/// What to do with a request without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// Refuse it with 400.
    #[default]
    Refuse,
    /// Let it through; nothing keeps it from running twice, and a handler that asks for a
    /// [`Tx`](crate::Tx) fails.
    RunUnprotected,
}

/// What to do while the store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Refuse with 503: no request runs that might run twice.
    #[default]
    Refuse,
    /// Run the request; nothing keeps it from running twice, and a handler that asks for a
    /// [`Tx`](crate::Tx) fails.
    RunUnprotected,
}

/// Whether `Set-Cookie` is part of a stored answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// It is left out: a session is not to be handed out again by accident.
    #[default]
    Drop,
    /// It is replayed.
    Replay,
}

/// What an answer means for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// It is final: stored, and committed with what the handler wrote through its [`Tx`](crate::Tx).
    Commit,
    /// It is final, but what the handler wrote is taken back.
    RollBack,
    /// It is passed on and not stored, what the handler wrote is taken back, and the operation may
    /// run again.
    Release,
}

impl Finality {
    /// How answers are judged by default: 2xx and 3xx commit; 4xx roll back, except those that a
    /// retry may well not get again (401, 403, 408, 409, 413, 415, 425, 429), which release the
    /// operation as everything else does.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=399 => Self::Commit,
            401 | 403 | 408 | 409 | 413 | 415 | 425 | 429 => Self::Release,
            400..=499 => Self::RollBack,
            _ => Self::Release,
        }
    }
}

/// A constant where a layer takes a function of the request.
///
/// ```
/// # use std::time::Duration;
/// # use evenkeel_core::MemoryStore;
/// # use evenkeel_idempotency::{Idempotency, Scope};
/// use evenkeel_web_axum::{IdempotencyLayer, value};
///
/// let layer = IdempotencyLayer::new(Idempotency::new(MemoryStore::new()), value(Scope::Global))
///     .expiration(value(Duration::from_secs(3600)));
/// ```
pub fn value<T: Clone + Send + Sync + 'static>(
    value: T,
) -> impl Fn(&request::Parts) -> Result<T, Problem> + Send + Sync + 'static {
    move |_| Ok(value.clone())
}

pub(crate) type OfRequest<T> = Arc<dyn Fn(&request::Parts) -> Result<T, Problem> + Send + Sync>;
pub(crate) type OfBody = Arc<dyn Fn(&request::Parts, &Bytes) -> Result<Bytes, Problem> + Send + Sync>;
pub(crate) type OfAnswer = Arc<dyn Fn(&response::Parts) -> Finality + Send + Sync>;

/// How a layer reads requests and judges answers.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) scope: OfRequest<Scope>,
    pub(crate) key: Option<OfRequest<Option<String>>>,
    pub(crate) key_syntax: KeySyntax,
    pub(crate) missing_key: MissingKey,
    pub(crate) target: OfRequest<String>,
    pub(crate) beside: Option<OfRequest<String>>,
    pub(crate) payload: OfBody,
    pub(crate) fingerprint_headers: Vec<HeaderName>,
    pub(crate) reference_time: Option<OfRequest<Timestamp>>,
    pub(crate) timeout: Option<OfRequest<Duration>>,
    pub(crate) expiration: Option<OfRequest<Duration>>,
    pub(crate) methods: Vec<Method>,
    pub(crate) request_limit: usize,
    pub(crate) response_limit: usize,
    pub(crate) on_running: Option<OnRunning>,
    pub(crate) on_interrupted: Option<OnInterrupted>,
    pub(crate) on_unavailable: OnUnavailable,
    pub(crate) cookies: Cookies,
    pub(crate) finality: OfAnswer,
}

const MEBIBYTE: usize = 1024 * 1024;

impl Settings {
    pub(crate) fn new(scope: OfRequest<Scope>) -> Self {
        Self {
            scope,
            key: None,
            key_syntax: KeySyntax::default(),
            missing_key: MissingKey::default(),
            target: Arc::new(|parts| Ok(format!("[{}]{}", parts.method, original_uri(parts).path()))),
            beside: None,
            payload: Arc::new(payload::exact),
            fingerprint_headers: Vec::new(),
            reference_time: None,
            timeout: None,
            expiration: None,
            methods: vec![Method::POST, Method::PATCH],
            request_limit: MEBIBYTE,
            response_limit: MEBIBYTE,
            on_running: None,
            on_interrupted: None,
            on_unavailable: OnUnavailable::default(),
            cookies: Cookies::default(),
            finality: Arc::new(|parts| Finality::of(parts.status)),
        }
    }

    /// The operation that a request asks for, but for its fingerprint; `None` where it may pass
    /// without a key.
    pub(crate) fn operation(&self, parts: &request::Parts) -> Result<Option<Operation>, Problem> {
        let key = match &self.key {
            Some(key) => key(parts)?,
            None => headers::key(&parts.headers, self.key_syntax)?,
        };
        let Some(key) = key else {
            return match self.missing_key {
                MissingKey::Refuse => Err(Problem::new(Kind::KeyMissing, Kind::KeyMissing.advice())),
                MissingKey::RunUnprotected => Ok(None),
            };
        };
        let mut operation = Operation::new((self.scope)(parts)?, (self.target)(parts)?, key);
        if let Some(beside) = &self.beside {
            operation = operation.beside(beside(parts)?);
        }
        let reference_time = match &self.reference_time {
            Some(reference_time) => Some(reference_time(parts)?),
            None => headers::reference_time(&parts.headers)?,
        };
        if let Some(reference_time) = reference_time {
            operation = operation.reference_time(reference_time);
        }
        let timeout = match &self.timeout {
            Some(timeout) => Some(timeout(parts)?),
            None => headers::timeout(&parts.headers)?,
        };
        if let Some(timeout) = timeout {
            operation = operation.timeout(timeout);
        }
        let expiration = match &self.expiration {
            Some(expiration) => Some(expiration(parts)?),
            None => headers::expiration(&parts.headers)?,
        };
        if let Some(expiration) = expiration {
            operation = operation.expiration(expiration);
        }
        if let Some(policy) = self.on_running {
            operation = operation.on_running(policy);
        }
        if let Some(policy) = self.on_interrupted {
            operation = operation.on_interrupted(policy);
        }
        Ok(Some(operation))
    }

    /// What a retry must repeat: method, target with query, the chosen headers, and the payload.
    pub(crate) fn fingerprint(&self, parts: &request::Parts, body: &Bytes) -> Result<Fingerprint, Problem> {
        let payload = (self.payload)(parts, body)?;
        let target = original_uri(parts).path_and_query().map_or("", |target| target.as_str());
        let mut fingerprint = Fingerprint::builder().part(parts.method.as_str()).part(target);
        for name in &self.fingerprint_headers {
            for value in parts.headers.get_all(name) {
                fingerprint = fingerprint.part(name).part(value);
            }
        }
        Ok(fingerprint.part(payload).finish())
    }
}

/// The address that the client asked for: a nested axum router sees only the end of it.
fn original_uri(parts: &request::Parts) -> &Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("key_syntax", &self.key_syntax)
            .field("missing_key", &self.missing_key)
            .field("methods", &self.methods)
            .field("request_limit", &self.request_limit)
            .field("response_limit", &self.response_limit)
            .field("on_unavailable", &self.on_unavailable)
            .finish_non_exhaustive()
    }
}
