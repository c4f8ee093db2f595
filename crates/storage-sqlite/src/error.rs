use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Result, RetryHint};

/// Adds the mapping of a driver's errors to evenkeel's.
pub(crate) trait SqlResult<T> {
    /// Maps the error of a statement that is not a `COMMIT`; `doing` says what failed.
    fn or_store_error(self, doing: &'static str) -> Result<T>;
}

impl<T, E: DriverError> SqlResult<T> for std::result::Result<T, E> {
    fn or_store_error(self, doing: &'static str) -> Result<T> {
        self.map_err(|error| parse_sqlite_error(error, doing))
    }
}

/// An error of sqlx or rusqlite.
pub(crate) trait DriverError: std::error::Error + Send + Sync + 'static {
    /// SQLite's result code, extended or not, where it is SQLite that failed.
    fn code(&self) -> Option<u32>;

    /// What it is where it was not SQLite.
    fn without_code(&self) -> (ErrorKind, &'static str);
}

impl DriverError for sqlx::Error {
    fn code(&self) -> Option<u32> {
        self.as_database_error().map(|error| error.code().and_then(|code| code.parse().ok()).unwrap_or(0))
    }

    fn without_code(&self) -> (ErrorKind, &'static str) {
        use ErrorKind::{Config, Corrupt, Unavailable, Unexpected};
        match self {
            Self::Configuration(_) => (Config, "the database url is not valid"),
            Self::Io(_) => (Unavailable, "the database file could not be reached"),
            Self::PoolTimedOut => (Unavailable, "no connection became free in time"),
            Self::PoolClosed => (Unavailable, "the store is closed"),
            Self::WorkerCrashed => (Unavailable, "the connection's thread died"),
            Self::ColumnDecode { .. } | Self::Decode(_) => (Corrupt, "a row has an unexpected value"),
            _ => (Unexpected, "sqlx failed"),
        }
    }
}

impl DriverError for rusqlite::Error {
    fn code(&self) -> Option<u32> {
        self.sqlite_error().map(|error| u32::try_from(error.extended_code).unwrap_or(0))
    }

    fn without_code(&self) -> (ErrorKind, &'static str) {
        (ErrorKind::Unexpected, "rusqlite failed")
    }
}

/// The error of a statement within a transaction: whatever it was, nothing is written.
pub(crate) fn parse_sqlite_error(error: impl DriverError, doing: &'static str) -> Error {
    use ErrorKind::{Config, Corrupt, TooLarge, Unavailable, Unexpected, Unsupported};
    let code = error.code().map(primary);
    let (kind, message) = match code {
        Some(3 | 14 | 23) => (Config, "the database file cannot be opened"),
        Some(5 | 6) => (Unavailable, "the database is locked by another connection"),
        Some(7) => (Unavailable, "sqlite is out of memory"),
        Some(8) => (Unsupported, "the database is read-only"),
        Some(9) => (Unavailable, "the statement was interrupted"),
        Some(10) => (Unavailable, "sqlite could not read or write the disk"),
        Some(11) => (Corrupt, "the database file is damaged"),
        Some(13) => (Unavailable, "the disk is full"),
        Some(18) => (TooLarge, "the value is beyond sqlite's limit"),
        Some(26) => (Corrupt, "the file is not a sqlite database"),
        Some(_) => (Unexpected, "sqlite failed"),
        None => error.without_code(),
    };
    let parsed = Error::new(kind, message).with("while", doing);
    let parsed =
        if code == Some(13) { parsed.with_retry(RetryHint::After(Duration::from_secs(1))) } else { parsed };
    parsed.with_source(error)
}

/// The error of a `COMMIT`: unless SQLite says that it did not begin, it may have happened.
pub(crate) fn parse_commit_error(error: impl DriverError) -> Error {
    match error.code().map(primary) {
        Some(5 | 6) => parse_sqlite_error(error, "committing"),
        _ => Error::new(ErrorKind::OutcomeUnknown, "sqlite failed while it committed").with_source(error),
    }
}

/// What an extended result code is a case of.
const fn primary(code: u32) -> u32 {
    code & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Coded(u32);

    impl std::fmt::Display for Coded {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "code {}", self.0)
        }
    }

    impl std::error::Error for Coded {}

    impl sqlx::error::DatabaseError for Coded {
        fn message(&self) -> &'static str {
            "constructed"
        }

        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.to_string().into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    fn coded(code: u32) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Coded(code)))
    }

    #[test]
    fn each_result_code_has_its_kind() {
        use ErrorKind::*;
        for (code, name, kind) in [
            (1, "ERROR", Unexpected),
            (3, "PERM", Config),
            (5, "BUSY", Unavailable),
            (6, "LOCKED", Unavailable),
            (7, "NOMEM", Unavailable),
            (8, "READONLY", Unsupported),
            (9, "INTERRUPT", Unavailable),
            (10, "IOERR", Unavailable),
            (11, "CORRUPT", Corrupt),
            (13, "FULL", Unavailable),
            (14, "CANTOPEN", Config),
            (18, "TOOBIG", TooLarge),
            (19, "CONSTRAINT", Unexpected),
            (23, "AUTH", Config),
            (26, "NOTADB", Corrupt),
            (261, "BUSY_RECOVERY", Unavailable),
            (517, "BUSY_SNAPSHOT", Unavailable),
            (778, "IOERR_WRITE", Unavailable),
            (1032, "READONLY_DBMOVED", Unsupported),
        ] {
            assert_eq!(parse_sqlite_error(coded(code), "testing").kind(), kind, "SQLITE_{name}");
        }
        assert_eq!(parse_sqlite_error(sqlx::Error::PoolTimedOut, "testing").kind(), Unavailable);
    }

    #[test]
    fn a_failed_commit_has_an_unknown_outcome_unless_it_never_began() {
        assert_eq!(parse_commit_error(coded(5)).kind(), ErrorKind::Unavailable);
        for code in [10, 13, 778] {
            assert_eq!(parse_commit_error(coded(code)).kind(), ErrorKind::OutcomeUnknown, "{code}");
        }
        assert_eq!(parse_commit_error(sqlx::Error::WorkerCrashed).kind(), ErrorKind::OutcomeUnknown);
    }
}
