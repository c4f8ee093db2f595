use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::{Job, Key, Record};

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, coarsely enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was named does not exist.
    NotFound,
    /// What was to be created exists already.
    AlreadyExists,
    /// An expectation of a batch did not hold; nothing was written. Carries a [`Conflict`].
    Conflict,
    /// The lease token is no longer the job's; nothing was written. Carries a [`Conflict`].
    LeaseLost,
    /// The request can never succeed as it stands; nothing was sent.
    InvalidInput,
    /// The request is beyond a limit of the store; nothing was sent.
    TooLarge,
    /// The store cannot do this at all.
    Unsupported,
    /// The store could not be reached or was too busy. Nothing was written.
    Unavailable,
    /// The store was lost while it committed: the batch was applied whole, or not at all.
    OutcomeUnknown,
    /// What is stored is not what was written.
    Corrupt,
    /// The store is not set up for this use.
    Config,
    /// None of the others; a bug somewhere.
    Unexpected,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::LeaseLost => "lease lost",
            Self::InvalidInput => "invalid input",
            Self::TooLarge => "too large",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome unknown",
            Self::Corrupt => "corrupt",
            Self::Config => "misconfigured",
            Self::Unexpected => "unexpected",
        })
    }
}

/// Whether the same call may succeed later. Independent of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// The same call fails again.
    Never,
    /// The same call may succeed at once.
    Now,
    /// The same call may succeed after this long.
    After(Duration),
}

/// Why a store operation failed.
///
/// Displayed as `kind: message (key: value, ...)`; the cause, where there is one, is its source.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    retry: RetryHint,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    conflict: Option<Conflict>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` with the kind's usual retry hint: `Now` for `Unavailable` and
    /// `OutcomeUnknown`, `Never` for the rest.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => RetryHint::Now,
            _ => RetryHint::Never,
        };
        let message = message.into();
        Self {
            inner: Box::new(Inner {
                kind,
                retry,
                message,
                context: Vec::new(),
                conflict: None,
                source: None,
            }),
        }
    }

    /// Adds a named value to the message.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.inner.context.push((key, value.to_string()));
        self
    }

    /// Replaces the retry hint.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryHint) -> Self {
        self.inner.retry = retry;
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error for another who waited for the same thing. Its cause becomes text; a conflict,
    /// which is one caller's own, is left out.
    #[must_use]
    pub fn repeated(&self) -> Self {
        let Inner { kind, retry, message, context, conflict: _, source } = &*self.inner;
        let source = source.as_ref().map(|source| BoxError::from(source.to_string()));
        let (message, context) = (message.clone(), context.clone());
        Self {
            inner: Box::new(Inner { kind: *kind, retry: *retry, message, context, conflict: None, source }),
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> RetryHint {
        self.inner.retry
    }

    /// The message without kind and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The expectation that failed and what stood there, for `Conflict` and `LeaseLost`.
    #[must_use]
    pub fn conflict(&self) -> Option<&Conflict> {
        self.inner.conflict.as_ref()
    }

    /// The conflict itself, or the error back where it is none: "claim it or see who has it" as
    /// one expression.
    ///
    /// # Errors
    /// The error itself where it carries no conflict.
    pub fn into_conflict(mut self) -> Result<Conflict, Self> {
        self.inner.conflict.take().ok_or(self)
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        let (kind, message) = match &conflict.found {
            Found::Record { key, record: Some(_) } => {
                (ErrorKind::Conflict, format!("record {key} is not as expected"))
            }
            Found::Record { key, record: None } => {
                (ErrorKind::Conflict, format!("record {key} does not exist"))
            }
            Found::Stream { stream, version } => {
                (ErrorKind::Conflict, format!("stream {stream:?} is at version {version}"))
            }
            Found::Job { queue, id, job: Some(job) } => {
                (ErrorKind::LeaseLost, format!("job {id:?} of queue {queue:?} is at attempt {}", job.attempt))
            }
            Found::Job { queue, id, job: None } => {
                (ErrorKind::LeaseLost, format!("job {id:?} of queue {queue:?} is gone"))
            }
            Found::Occupied { queue, id, .. } => {
                (ErrorKind::Conflict, format!("job {id:?} of queue {queue:?} exists already"))
            }
        };
        let mut error = Self::new(kind, message);
        error.inner.conflict = Some(conflict);
        error
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
        if let Some(source) = &self.inner.source {
            write!(f, ": {source:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// The first operation of a batch, in the batch's order, whose expectation did not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Its place in [`Batch::ops`](crate::Batch::ops).
    pub op: usize,
    /// What stood there instead.
    pub found: Found,
}

/// What a failed expectation found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The live record at the key, or none.
    Record {
        /// The key.
        key: Key,
        /// What is stored there; `None` also where it has expired.
        record: Option<Record>,
    },
    /// The version of the stream; 0 where it does not exist.
    Stream {
        /// The stream's name.
        stream: String,
        /// Its version.
        version: u64,
    },
    /// The job under another lease, or none.
    Job {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
        /// Its state; `None` where there is no such job.
        job: Option<Job>,
    },
    /// A job where none was expected.
    Occupied {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
        /// Its state.
        job: Job,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_kind_message_and_context() {
        let error = Error::new(ErrorKind::TooLarge, "the value is too long")
            .with("key", "a/b/c")
            .with("bytes", 400)
            .with_source(std::io::Error::other("cause"));
        assert_eq!(error.to_string(), "too large: the value is too long (key: a/b/c, bytes: 400)");
        assert_eq!(error.retry(), RetryHint::Never);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cause");
    }

    #[test]
    fn only_a_conflict_turns_into_one() {
        let plain = Error::new(ErrorKind::Unavailable, "gone fishing");
        assert_eq!(plain.into_conflict().unwrap_err().kind(), ErrorKind::Unavailable);

        let found = Found::Stream { stream: "s".into(), version: 3 };
        let error = Error::from(Conflict { op: 1, found: found.clone() });
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.into_conflict().unwrap(), Conflict { op: 1, found });
    }
}
