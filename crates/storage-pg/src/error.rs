use std::borrow::Cow;
use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Result, RetryHint};

/// Adds the mapping of sqlx errors to evenkeel's.
pub(crate) trait SqlxResult<T> {
    /// Maps the error of what writes nothing, or only in a transaction that is then rolled back;
    /// `doing` says what failed.
    fn or_store_error(self, doing: &'static str) -> Result<T>;

    /// Maps the error of what commits when it succeeds.
    fn or_commit_error(self, doing: &'static str) -> Result<T>;
}

impl<T> SqlxResult<T> for sqlx::Result<T> {
    fn or_store_error(self, doing: &'static str) -> Result<T> {
        self.map_err(|error| parse_pg_error(error, doing))
    }

    fn or_commit_error(self, doing: &'static str) -> Result<T> {
        self.map_err(|error| parse_commit_error(error, doing))
    }
}

/// The error that the functions raise in a transaction that would judge a stale snapshot.
pub(crate) const STRICTER_ISOLATION: &str = "EK001";

/// The error that the functions raise in another store than the one expected.
pub(crate) const OTHER_STORE: &str = "EK002";

/// What is said where the functions or tables are not there.
pub(crate) const NO_STORE: &str = "the schema has no evenkeel store";

/// The error of a statement whose transaction is not committed: whatever it was, nothing is written.
pub(crate) fn parse_pg_error(error: sqlx::Error, doing: &'static str) -> Error {
    use ErrorKind::{Config, Corrupt, Unavailable, Unexpected};
    let (kind, message) = match &error {
        // A proxy has no code of its own for this.
        sqlx::Error::Database(database) if database.message().contains("unsupported startup parameter") => {
            (Config, "a proxy refuses settings of the connection: one that pools transactions needs `pooled`")
        }
        sqlx::Error::Database(database) => parse_sqlstate(&database.code().unwrap_or(Cow::Borrowed(""))),
        sqlx::Error::Configuration(_) => (Config, "the database url is not valid"),
        sqlx::Error::Tls(_) => (Config, "the server and this client do not agree on TLS"),
        sqlx::Error::Io(_) => (Unavailable, "the server could not be reached"),
        sqlx::Error::PoolTimedOut => (Unavailable, "no connection became free in time"),
        sqlx::Error::PoolClosed => (Unavailable, "the store is closed"),
        sqlx::Error::WorkerCrashed => (Unavailable, "the connection's task died"),
        sqlx::Error::BeginFailed => (Unavailable, "the transaction could not be begun"),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            (Corrupt, "a row has an unexpected value")
        }
        _ => (Unexpected, "sqlx failed"),
    };
    let parsed = Error::new(kind, message).with("while", doing);
    let parsed = match sqlstate(&error) {
        Some(state) => parsed.with("sqlstate", &state).with_retry(retry(kind, &state)),
        None => parsed,
    };
    parsed.with_source(error)
}

/// The error of a statement that commits when it succeeds: unless the server says that it failed, it
/// may have happened.
pub(crate) fn parse_commit_error(error: sqlx::Error, doing: &'static str) -> Error {
    let certain = match &error {
        // The server reports an error in place of the commit. A connection exception, with some a
        // system error, is a proxy's word about a server that it lost, and nobody knows then.
        sqlx::Error::Database(database) => {
            let state = database.code().unwrap_or(Cow::Borrowed(""));
            !state.starts_with("08") && !matches!(&*state, "" | "40003" | "57P02" | "58000")
        }
        // From before anything was sent.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Encode(_) => true,
        _ => false,
    };
    if certain {
        return parse_pg_error(error, doing);
    }
    Error::new(ErrorKind::OutcomeUnknown, "the connection was lost before the server's answer")
        .with("while", doing)
        .with_source(error)
}

/// Whether the same statement may succeed if it is sent again at once: it met another transaction.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01"))
}

/// The code of an error that the server reported.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|database| database.code())
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn parse_sqlstate(state: &str) -> (ErrorKind, &'static str) {
    use ErrorKind::{Config, Corrupt, InvalidInput, TooLarge, Unavailable, Unexpected};
    match state {
        STRICTER_ISOLATION => (
            InvalidInput,
            "the transaction's isolation is stricter than READ COMMITTED, and judges a stale snapshot",
        ),
        OTHER_STORE => (InvalidInput, "the transaction is on another database than the store"),
        "25006" => (Unavailable, "the server is read-only: a standby, or failing over"),
        "25P02" => {
            (InvalidInput, "an earlier statement of the transaction failed, so it can only be rolled back")
        }
        "25P03" | "25P04" => (Unavailable, "the transaction was held for longer than it may"),
        "26000" | "42P05" => (
            Config,
            "prepared statements do not last: a proxy pools transactions, which needs the `pooled` setting",
        ),
        "40001" | "40P01" | "40002" | "40003" => (Unavailable, "the transaction met another one"),
        "42501" => (Config, "the role lacks a privilege"),
        "3F000" | "42P01" | "42883" | "42703" => (Config, NO_STORE),
        "3D000" => (Config, "the database does not exist"),
        "53100" => (Unavailable, "the server's disk is full"),
        "53300" => (Unavailable, "the server has too many connections"),
        "55P03" => (Unavailable, "a lock was not granted in time"),
        "57014" => (Unavailable, "the statement took too long, or was cancelled"),
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => {
            (Unavailable, "the server is shutting down or starting")
        }
        "22021" | "22P05" => (InvalidInput, "the database's encoding has no such character"),
        _ => match state.get(..2).unwrap_or_default() {
            "08" => (Unavailable, "the connection failed"),
            "28" => (Config, "the server does not accept the user or password"),
            "53" => (Unavailable, "the server lacks resources"),
            "54" => (TooLarge, "the statement is beyond a limit of the server"),
            "58" => (Unavailable, "the server could not read or write the disk"),
            "XX" if matches!(state, "XX001" | "XX002") => (Corrupt, "the server's files are damaged"),
            _ => (Unexpected, "the server reported an error"),
        },
    }
}

fn retry(kind: ErrorKind, state: &str) -> RetryHint {
    match (kind, state) {
        // What a person or a failover has to change first.
        (ErrorKind::Unavailable, "25006" | "53100" | "57P03") => RetryHint::After(Duration::from_secs(1)),
        (ErrorKind::Unavailable, _) => RetryHint::Now,
        _ => RetryHint::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Coded(&'static str);

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

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
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

    fn coded(code: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Coded(code)))
    }

    fn broken_pipe() -> sqlx::Error {
        sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into())
    }

    /// The code, its name, the kind of an error before the commit, and of one in its place.
    #[test]
    fn each_sqlstate_has_its_kind() {
        use ErrorKind::*;
        for (code, name, kind, committing) in [
            ("08000", "connection_exception", Unavailable, OutcomeUnknown),
            ("08006", "connection_failure", Unavailable, OutcomeUnknown),
            ("08P01", "protocol_violation", Unavailable, OutcomeUnknown),
            ("22021", "character_not_in_repertoire", InvalidInput, InvalidInput),
            ("23505", "unique_violation", Unexpected, Unexpected),
            ("25006", "read_only_sql_transaction", Unavailable, Unavailable),
            ("25P02", "in_failed_sql_transaction", InvalidInput, InvalidInput),
            ("25P03", "idle_in_transaction_session_timeout", Unavailable, Unavailable),
            ("26000", "invalid_sql_statement_name", Config, Config),
            ("28000", "invalid_authorization_specification", Config, Config),
            ("28P01", "invalid_password", Config, Config),
            ("3D000", "invalid_catalog_name", Config, Config),
            ("3F000", "invalid_schema_name", Config, Config),
            ("40001", "serialization_failure", Unavailable, Unavailable),
            ("40003", "statement_completion_unknown", Unavailable, OutcomeUnknown),
            ("40P01", "deadlock_detected", Unavailable, Unavailable),
            ("42501", "insufficient_privilege", Config, Config),
            ("42601", "syntax_error", Unexpected, Unexpected),
            ("42883", "undefined_function", Config, Config),
            ("42P01", "undefined_table", Config, Config),
            ("42P05", "duplicate_prepared_statement", Config, Config),
            ("53100", "disk_full", Unavailable, Unavailable),
            ("53200", "out_of_memory", Unavailable, Unavailable),
            ("53300", "too_many_connections", Unavailable, Unavailable),
            ("54000", "program_limit_exceeded", TooLarge, TooLarge),
            ("55P03", "lock_not_available", Unavailable, Unavailable),
            ("57014", "query_canceled", Unavailable, Unavailable),
            ("57P01", "admin_shutdown", Unavailable, Unavailable),
            ("57P02", "crash_shutdown", Unavailable, OutcomeUnknown),
            ("57P03", "cannot_connect_now", Unavailable, Unavailable),
            ("58030", "io_error", Unavailable, Unavailable),
            ("EK001", "a stricter isolation", InvalidInput, InvalidInput),
            ("EK002", "another store", InvalidInput, InvalidInput),
            ("XX000", "internal_error", Unexpected, Unexpected),
            ("XX001", "data_corrupted", Corrupt, Corrupt),
        ] {
            assert_eq!(parse_pg_error(coded(code), "testing").kind(), kind, "{code} {name}");
            assert_eq!(parse_commit_error(coded(code), "testing").kind(), committing, "{code} {name}");
        }
    }

    #[test]
    fn only_what_was_certainly_not_sent_is_unavailable_in_a_commit() {
        use ErrorKind::*;
        for (error, kind) in [
            (sqlx::Error::PoolTimedOut, Unavailable),
            (sqlx::Error::PoolClosed, Unavailable),
            (broken_pipe(), OutcomeUnknown),
            (sqlx::Error::Protocol("cut off".into()), OutcomeUnknown),
            (sqlx::Error::WorkerCrashed, OutcomeUnknown),
        ] {
            assert_eq!(parse_commit_error(error, "testing").kind(), kind);
        }
        assert_eq!(parse_pg_error(broken_pipe(), "testing").kind(), Unavailable);
    }

    #[test]
    fn only_meeting_another_transaction_is_worth_sending_again_at_once() {
        assert!(is_transient(&coded("40001")) && is_transient(&coded("40P01")));
        assert!(!is_transient(&coded("57014")) && !is_transient(&broken_pipe()));
        let full = parse_pg_error(coded("53100"), "testing");
        assert_eq!(full.retry(), RetryHint::After(Duration::from_secs(1)));
        assert_eq!(parse_pg_error(coded("28P01"), "testing").retry(), RetryHint::Never);
    }
}
