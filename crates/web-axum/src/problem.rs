use std::fmt;
use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use evenkeel_core::{ErrorKind as StoreErrorKind, RetryHint};
use evenkeel_idempotency::{Error, ErrorKind};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// An error as an HTTP response: `application/problem+json` of RFC 9457.
///
/// Its `type` is an address in the project's documentation that ends in the problem's name; see
/// the table of [problem types](https://github.com/evenkeel/evenkeel/blob/main/docs/problems.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

impl Problem {
    const TYPES: &str = "https://github.com/evenkeel/evenkeel/blob/main/docs/problems.md";

    /// A request that cannot be read (400), for the functions that configure a layer.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// A caller that is not known (401), for the function that finds the scope.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, detail)
    }

    /// A caller that is known and may not do this (403).
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    /// Something that is not there (404).
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// A request that was given up, and may have been carried out (503).
    #[must_use]
    pub fn not_known(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotKnown, detail)
    }

    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, status: kind.status(), detail: detail.into(), retry_after: None }
    }

    /// The response's status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of its `type`, such as `key-missing`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// What is wrong with this request in particular.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The response, with any body that can be made of bytes.
    #[must_use]
    pub fn into_http<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(Bytes::from(self.to_json().to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(delay) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
        }
        response
    }
}

impl Problem {
    /// Says when to ask again.
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The body of the response.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "type": format!("{}#{}", Self::TYPES, self.name()),
            "title": self.kind.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        })
    }
}

/// Rounded up, so that nobody comes back early, and at least one.
fn whole_seconds(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.into_http()
    }
}

/// What the claim or the end of an operation came to, where that is an error.
impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Running => Kind::StillRunning,
            ErrorKind::Mismatch => Kind::PayloadMismatch,
            ErrorKind::Expired => Kind::Expired,
            ErrorKind::Interrupted => Kind::OutcomeUnknown,
            ErrorKind::Failed => Kind::AttemptFailed,
            ErrorKind::TimedOut => Kind::TimedOut,
            ErrorKind::Panicked => Kind::HandlerPanicked,
            ErrorKind::AnswerNotStored => Kind::AnswerNotStored,
            ErrorKind::LeaseLost => Kind::TakenOver,
            ErrorKind::InvalidInput => return Self::bad_request(error.message()),
            _ => Kind::StoreFailed,
        };
        // Messages of the store and of other callers' attempts are for logs, not for clients.
        let mut problem = Self::new(kind, kind.advice());
        problem.retry_after = match (kind, error.retry()) {
            (_, RetryHint::After(delay)) => Some(delay),
            (Kind::StillRunning | Kind::AttemptFailed | Kind::TakenOver | Kind::StoreFailed, _) => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        };
        problem
    }
}

/// What a call on a store, on a capability came to, where that is an error. What concerns the caller is
/// in the detail; the rest goes to the log.
impl From<evenkeel_core::Error> for Problem {
    fn from(error: evenkeel_core::Error) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::NotFound => Kind::NotFound,
            StoreErrorKind::AlreadyExists => Kind::AlreadyExists,
            StoreErrorKind::Conflict => Kind::Conflict,
            StoreErrorKind::LeaseLost => Kind::LeaseLost,
            StoreErrorKind::InvalidInput => Kind::BadRequest,
            StoreErrorKind::TooLarge => Kind::TooLarge,
            StoreErrorKind::Unavailable => Kind::Unavailable,
            StoreErrorKind::OutcomeUnknown => Kind::NotKnown,
            _ => Kind::Failed,
        };
        if kind.status().is_server_error() {
            tracing::error!(?error, "a request failed");
        }
        // A conflict that carries what was found is about records, of which callers know nothing.
        if kind.status().is_server_error() || error.conflict().is_some() {
            let problem = Self::new(kind, kind.advice());
            return match error.retry() {
                RetryHint::After(delay) => problem.retry_after(delay),
                RetryHint::Now => problem.retry_after(Duration::ZERO),
                RetryHint::Never => problem,
            };
        }
        let text = error.to_string();
        let detail = text.strip_prefix(&format!("{}: ", error.kind())).unwrap_or(&text);
        Self::new(kind, detail)
    }
}

macro_rules! kinds {
    ($($(#[$only:meta])? $kind:ident $status:ident $name:literal $title:literal $advice:literal)*) => {
        /// Every problem there is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$only])? $kind),* }

        impl Kind {
            #[cfg(test)]
            const ALL: &[Self] = &[$($(#[$only])? Self::$kind),*];

            const fn status(self) -> StatusCode {
                match self { $($(#[$only])? Self::$kind => StatusCode::$status),* }
            }

            const fn name(self) -> &'static str {
                match self { $($(#[$only])? Self::$kind => $name),* }
            }

            const fn title(self) -> &'static str {
                match self { $($(#[$only])? Self::$kind => $title),* }
            }

            /// What a client should know where nothing more particular can be said.
            pub(crate) const fn advice(self) -> &'static str {
                match self { $($(#[$only])? Self::$kind => $advice),* }
            }
        }
    };
}

kinds! {
    BadRequest BAD_REQUEST "bad-request" "The request cannot be read"
        "the request cannot be read"
    Unauthenticated UNAUTHORIZED "unauthenticated" "The caller is not known"
        "the caller is not known"
    Forbidden FORBIDDEN "forbidden" "The caller may not do this"
        "the caller may not do this"
    NotFound NOT_FOUND "not-found" "There is no such thing"
        "there is no such thing"
    #[cfg(feature = "api")]
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "The path has no such method"
        "the path has no such method"
    AlreadyExists CONFLICT "already-exists" "There is one already"
        "there is one already"
    Conflict CONFLICT "conflict" "It is not in a state for this"
        "it was changed by another request at the same time; look at it again"
    LeaseLost CONFLICT "lease-lost" "It is held by another"
        "it was held for too long, and has been given to another since"
    #[cfg(feature = "flare")]
    PreconditionFailed PRECONDITION_FAILED "precondition-failed" "The precondition does not hold"
        "the precondition does not hold"
    TooLarge PAYLOAD_TOO_LARGE "too-large" "It is too large to be kept"
        "it is larger than the store takes"
    Unavailable SERVICE_UNAVAILABLE "unavailable" "The store is not available"
        "the store cannot be reached or is too busy; nothing was done, and the request may be sent again"
    NotKnown SERVICE_UNAVAILABLE "not-known" "Whether it was done is not known"
        "the store was lost while the request was carried out; look at what became of it, or send it again"
    Failed INTERNAL_SERVER_ERROR "failed" "The request could not be processed"
        "the service failed; the reason is in its log"
    KeyMissing BAD_REQUEST "key-missing" "An idempotency key is required"
        "send an Idempotency-Key header: a quoted string of 1 to 255 printable characters, the same for every retry of this request"
    KeyMalformed BAD_REQUEST "key-malformed" "The idempotency key cannot be read"
        "an idempotency key is one quoted string of 1 to 255 printable ASCII characters"
    HeaderMalformed BAD_REQUEST "header-malformed" "An idempotency header cannot be read"
        "an idempotency header cannot be read"
    BodyTooLarge PAYLOAD_TOO_LARGE "body-too-large" "The request's body is too large"
        "the body is too large to be compared with that of a retry"
    BodyUnreadable BAD_REQUEST "body-unreadable" "The request's body cannot be read"
        "the body ended early or is malformed"
    PayloadMismatch UNPROCESSABLE_ENTITY "payload-mismatch" "The idempotency key was used for another request"
        "the key was used before with another payload; a new request needs a new key"
    StillRunning CONFLICT "still-running" "The request is still being processed"
        "an earlier request with this key is still being processed; send it again later for its answer"
    OutcomeUnknown CONFLICT "outcome-unknown" "The outcome of an earlier attempt is unknown"
        "an earlier attempt was cut off, what it did is unknown, and it is not run again until somebody decides"
    Expired GONE "expired" "The request has expired"
        "the time in which this request may take effect is over; it did not"
    AnswerNotStored GONE "answer-not-stored" "The answer was too large to keep"
        "the request was processed and answered, and is not processed again; its answer was too large to be kept"
    AttemptFailed SERVICE_UNAVAILABLE "attempt-failed" "The attempt failed"
        "the attempt that this request waited for failed; it may be sent again"
    TimedOut SERVICE_UNAVAILABLE "timed-out" "The request took too long"
        "the request reached its timeout; its writes were taken back and it may be sent again"
    TakenOver SERVICE_UNAVAILABLE "taken-over" "Another attempt took over"
        "this attempt took too long and another took over; send it again for that one's answer"
    StoreFailed SERVICE_UNAVAILABLE "store-failed" "Idempotency is not available"
        "the request cannot be protected from running twice at the moment; it may be sent again with the same key"
    HandlerPanicked INTERNAL_SERVER_ERROR "handler-panicked" "The request could not be processed"
        "the handler panicked; its writes were taken back and the request may be sent again"
    TransactionKept INTERNAL_SERVER_ERROR "transaction-kept" "The request could not be processed"
        "the handler answered while its transaction was still in use; its writes were taken back"
    TransactionRefused INTERNAL_SERVER_ERROR "transaction-refused" "The request could not be processed"
        "the handler's transaction cannot be had"
    #[cfg(feature = "choreograph")]
    RunRefused INTERNAL_SERVER_ERROR "run-refused" "The request could not be processed"
        "the handler's run cannot be had"
    AnswerUnreadable BAD_GATEWAY "answer-unreadable" "The answer could not be read"
        "the handler's answer broke off; its writes were taken back and the request may be sent again"
    RecordCorrupt INTERNAL_SERVER_ERROR "record-corrupt" "The stored answer cannot be read"
        "the request was processed, but the stored answer cannot be read"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_documented_with_its_status() {
        let docs = include_str!("../../../docs/problems.md");
        for kind in Kind::ALL {
            let row = format!("| <a id=\"{0}\"></a>`{0}` | {1} |", kind.name(), kind.status().as_u16());
            assert!(docs.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_problem_has_type_title_status_and_detail() {
        let response: Response<Bytes> = Problem::bad_request("no \"such\" thing").into_http();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(json["type"], format!("{}#bad-request", Problem::TYPES));
        assert_eq!(json["title"], "The request cannot be read");
        assert_eq!(json["status"], 400);
        assert_eq!(json["detail"], "no \"such\" thing");
    }

    #[test]
    fn a_stores_error_tells_its_caller_what_concerns_it() {
        use evenkeel_core::Error;
        for (kind, status, name, detail) in [
            (StoreErrorKind::NotFound, 404, "not-found", "gone fishing (place: pond)"),
            (StoreErrorKind::AlreadyExists, 409, "already-exists", "gone fishing (place: pond)"),
            (StoreErrorKind::Conflict, 409, "conflict", "gone fishing (place: pond)"),
            (StoreErrorKind::LeaseLost, 409, "lease-lost", "gone fishing (place: pond)"),
            (StoreErrorKind::InvalidInput, 400, "bad-request", "gone fishing (place: pond)"),
            (StoreErrorKind::TooLarge, 413, "too-large", "gone fishing (place: pond)"),
            (StoreErrorKind::Unavailable, 503, "unavailable", Kind::Unavailable.advice()),
            (StoreErrorKind::OutcomeUnknown, 503, "not-known", Kind::NotKnown.advice()),
            (StoreErrorKind::Unsupported, 500, "failed", Kind::Failed.advice()),
            (StoreErrorKind::Corrupt, 500, "failed", Kind::Failed.advice()),
            (StoreErrorKind::Config, 500, "failed", Kind::Failed.advice()),
            (StoreErrorKind::Unexpected, 500, "failed", Kind::Failed.advice()),
        ] {
            let problem = Problem::from(Error::new(kind, "gone fishing").with("place", "pond"));
            assert_eq!((problem.status().as_u16(), problem.name(), problem.detail()), (status, name, detail));
            let response: Response<Bytes> = problem.into_http();
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503, "{kind}");
        }
    }

    #[test]
    fn waiting_is_in_whole_seconds_and_never_too_short() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_500, 30)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
