use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use evenkeel_core::RetryHint;

use crate::Identity;

/// The result of a call on [`Idempotency`](crate::Idempotency).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another attempt is still running. The error's [retry hint](Error::retry) says when to ask
    /// again.
    Running,
    /// The key was used before with another fingerprint.
    Mismatch,
    /// The operation is past its expiration, on arrival or when its result came.
    Expired,
    /// An earlier attempt was cut off, what it did is unknown, and the policy is not to run again.
    Interrupted,
    /// The attempt that was waited for failed.
    Failed,
    /// The work panicked. The operation may run again.
    Panicked,
    /// The attempt reached the operation's timeout. The operation may run again.
    TimedOut,
    /// The operation finished, but its answer was not stored.
    AnswerNotStored,
    /// Another attempt took over, or the operation was released: this one recorded nothing.
    LeaseLost,
    /// The call can never succeed as it stands.
    InvalidInput,
    /// The store failed.
    Store(evenkeel_core::ErrorKind),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "still running",
            Self::Mismatch => "mismatch",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed out",
            Self::AnswerNotStored => "answer not stored",
            Self::LeaseLost => "lease lost",
            Self::InvalidInput => "invalid input",
            Self::Store(kind) => return write!(f, "store: {kind}"),
        })
    }
}

/// Why an operation has no answer.
///
/// Displayed as `kind: message (key: value, ...)`; the store's error, where there is one, is its
/// source.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    retry: RetryHint,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    store: Option<evenkeel_core::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = match kind {
            ErrorKind::Failed | ErrorKind::Panicked | ErrorKind::TimedOut | ErrorKind::LeaseLost => {
                RetryHint::Now
            }
            _ => RetryHint::Never,
        };
        Self {
            inner: Box::new(Inner { kind, retry, message: message.into(), context: Vec::new(), store: None }),
        }
    }

    pub(crate) fn of(identity: &Identity, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, message).about(identity)
    }

    pub(crate) fn about(self, identity: &Identity) -> Self {
        self.with("target", format_args!("{:?}", identity.target))
            .with("key", format_args!("{:?}", identity.key))
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.inner.context.push((key, value.to_string()));
        self
    }

    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.inner.retry = RetryHint::After(delay);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call may succeed later; the store's own hint where the store failed.
    #[must_use]
    pub fn retry(&self) -> RetryHint {
        self.inner.retry
    }

    /// The message without kind and context. For [`ErrorKind::Failed`] it is what the failed
    /// attempt recorded.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The store's error, where the store failed.
    #[must_use]
    pub fn store(&self) -> Option<&evenkeel_core::Error> {
        self.inner.store.as_ref()
    }
}

impl From<evenkeel_core::Error> for Error {
    fn from(error: evenkeel_core::Error) -> Self {
        let kind = match error.kind() {
            evenkeel_core::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            kind => ErrorKind::Store(kind),
        };
        let mut wrapped = Self::new(kind, error.message().to_owned());
        wrapped.inner.retry = error.retry();
        wrapped.inner.store = Some(error);
        wrapped
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.kind, self.inner.message)?;
        for (i, (key, value)) in self.inner.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.inner.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(store) = &self.inner.store {
            write!(f, ": {store:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.store.as_ref().map(|store| store as _)
    }
}

/// Why [`run`](crate::Idempotency::run) has no value.
#[derive(Debug)]
pub enum RunError<E> {
    /// The work itself failed. The failure is recorded and the operation may run again.
    Handler(E),
    /// The work did not run, or its result could not be recorded.
    Idempotency(Error),
}

impl<E> From<Error> for RunError<E> {
    fn from(error: Error) -> Self {
        Self::Idempotency(error)
    }
}

impl<E: fmt::Display> fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => error.fmt(f),
            Self::Idempotency(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for RunError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handler(error) => error.source(),
            Self::Idempotency(error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    #[test]
    fn an_error_names_the_operation() {
        let identity = Identity::new(Scope::Global, "[POST]/charges", "k-1");
        let error = Error::of(&identity, ErrorKind::Mismatch, "the key was used with another request");
        assert_eq!(
            error.to_string(),
            "mismatch: the key was used with another request (target: \"[POST]/charges\", key: \"k-1\")"
        );
    }

    #[test]
    fn a_store_error_keeps_its_kind_hint_and_source() {
        let wait = RetryHint::After(Duration::from_secs(2));
        let down = evenkeel_core::Error::new(evenkeel_core::ErrorKind::Unavailable, "gone").with_retry(wait);
        let error = Error::from(down);
        assert_eq!(error.kind(), ErrorKind::Store(evenkeel_core::ErrorKind::Unavailable));
        assert_eq!(error.retry(), wait);
        assert_eq!(error.store().unwrap().message(), "gone");
        assert!(std::error::Error::source(&error).is_some());
    }
}
