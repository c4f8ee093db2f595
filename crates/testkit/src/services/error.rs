use std::fmt;
use std::io;

/// What kept a server from starting, in words that help to mend it.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(String);

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// An error of the operating system, with what was attempted.
    pub(super) fn io(attempted: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self(format!("{attempted}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As it is displayed: the log in it is to be read when a test unwraps.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<Error> for String {
    fn from(Error(message): Error) -> Self {
        message
    }
}
