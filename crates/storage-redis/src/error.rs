use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, RetryHint};
use redis::RedisError;

/// How long to wait before asking a server again that has something to finish first.
pub(crate) const SOON: RetryHint = RetryHint::After(Duration::from_millis(100));

/// How long to wait before asking a server again that needs help.
const LATER: RetryHint = RetryHint::After(Duration::from_secs(1));

/// The error of a command. `lost` is its kind where the connection was lost before the answer:
/// `OutcomeUnknown` for a command that writes, `Unavailable` for another.
///
/// What the server itself says comes before it has written anything: it refuses a script whole. But
/// where a script breaks off, it may have written: an error from within one is of the kind of a lost
/// answer, where that is `OutcomeUnknown`.
pub(crate) fn parse_redis_error(error: RedisError, lost: ErrorKind, doing: &'static str) -> Error {
    use ErrorKind::{Config, Corrupt, OutcomeUnknown, Unavailable, Unexpected};
    let says = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
    let (kind, retry, message) = match error.code() {
        Some(_) if lost == OutcomeUnknown && says("on @user_script:") => {
            (OutcomeUnknown, RetryHint::Now, "the script broke off")
        }
        Some("LOADING") => (Unavailable, LATER, "the server is still loading its data"),
        Some("BUSY") => (Unavailable, LATER, "the server is busy with a script"),
        Some("CLUSTERDOWN") => (Unavailable, LATER, "the cluster is down"),
        Some("MASTERDOWN") => (Unavailable, LATER, "the replica has lost its master"),
        Some("READONLY") => (Unavailable, LATER, "the server is a replica"),
        Some("NOREPLICAS") => (Unavailable, LATER, "the server has too few replicas to write"),
        Some("MISCONF") => (Unavailable, LATER, "the server cannot save to its disk"),
        Some("OOM") => (Unavailable, LATER, "the server is out of memory"),
        Some("TRYAGAIN") => (Unavailable, SOON, "the partition is moving to another server"),
        Some("MOVED" | "ASK") => (Unavailable, SOON, "the partition has moved to another server"),
        Some("NOAUTH" | "WRONGPASS") => (Config, RetryHint::Never, "the server wants another password"),
        Some("NOPERM") => (Config, RetryHint::Never, "the user may not run the command"),
        Some("NOPROTO") => (Config, RetryHint::Never, "the server does not speak RESP3"),
        Some("WRONGTYPE") => (Corrupt, RetryHint::Never, "a key of the store holds something else"),
        Some("ERR") if says("max number of clients") => {
            (Unavailable, LATER, "the server has too many clients")
        }
        Some("ERR") if says("unknown command") => (Config, RetryHint::Never, "the server lacks a command"),
        Some("ERR") if says("DB index is out of range") => {
            (Config, RetryHint::Never, "the server has no such database")
        }
        Some(_) => (Unexpected, RetryHint::Never, "redis failed"),
        None => return parse_client_error(error, lost, doing),
    };
    Error::new(kind, message).with_retry(retry).with("while", doing).with_source(error)
}

/// An error that the server did not send.
fn parse_client_error(error: RedisError, lost: ErrorKind, doing: &'static str) -> Error {
    let (kind, message) = match error.kind() {
        redis::ErrorKind::Io if error.is_timeout() => (lost, "the server did not answer in time"),
        redis::ErrorKind::Io if error.is_connection_refusal() => (lost, "the server cannot be reached"),
        redis::ErrorKind::AuthenticationFailed => (ErrorKind::Config, "the server wants another password"),
        redis::ErrorKind::InvalidClientConfig | redis::ErrorKind::RESP3NotSupported => {
            (ErrorKind::Config, "the connection cannot be made so")
        }
        _ => (lost, "the connection was lost"),
    };
    Error::new(kind, message).with("while", doing).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        let line = format!("-{line}\r\n");
        redis::parse_redis_value(line.as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn each_error_of_a_server_has_its_kind() {
        use ErrorKind::*;
        for (line, kind) in [
            ("LOADING Redis is loading the dataset in memory", Unavailable),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                Unavailable,
            ),
            ("CLUSTERDOWN The cluster is down", Unavailable),
            ("CLUSTERDOWN Hash slot not served", Unavailable),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Unavailable),
            ("READONLY You can't write against a read only replica.", Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
                Unavailable,
            ),
            ("MISCONF Errors writing to the AOF file: No space left on device", Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable),
            ("MOVED 3999 127.0.0.1:6381", Unavailable),
            ("ASK 3999 127.0.0.1:6381", Unavailable),
            ("ERR max number of clients reached", Unavailable),
            ("NOAUTH Authentication required.", Config),
            ("WRONGPASS invalid username-password pair or user is disabled.", Config),
            ("NOPERM this user has no permissions to run the 'evalsha' command", Config),
            ("NOPROTO unsupported protocol version", Config),
            ("ERR unknown command 'WAITAOF', with args beginning with: '1' '0' '0' ", Config),
            ("ERR DB index is out of range", Config),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Corrupt),
            ("CROSSSLOT Keys in request don't hash to the same slot", Unexpected),
            ("NOSCRIPT No matching script. Please use EVAL.", Unexpected),
            ("ERR Error compiling script (new function): user_script:1: '=' expected", Unexpected),
            ("EXECABORT Transaction discarded because of previous errors.", Unexpected),
        ] {
            let error = parse_redis_error(said(line), OutcomeUnknown, "testing");
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.retry() == RetryHint::Never, kind != Unavailable, "{line}");
        }
    }

    #[test]
    fn a_script_that_broke_off_may_have_written() {
        let line = "NOPERM ACL failure in script: User a has no permissions to access one of the channels \
                    script: 4ca238f611c9d0ae4e9a75a5dbac22aedc1e44b0, on @user_script:98.";
        for (lost, kind) in [
            (ErrorKind::OutcomeUnknown, ErrorKind::OutcomeUnknown),
            (ErrorKind::Unavailable, ErrorKind::Config),
        ] {
            assert_eq!(parse_redis_error(said(line), lost, "testing").kind(), kind);
        }
    }

    #[test]
    fn what_a_lost_connection_means_depends_on_the_command() {
        use std::io::ErrorKind as Io;
        for io in [Io::ConnectionReset, Io::BrokenPipe, Io::UnexpectedEof, Io::TimedOut] {
            for lost in [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown] {
                let error = RedisError::from(std::io::Error::from(io));
                assert_eq!(parse_redis_error(error, lost, "testing").kind(), lost, "{io}");
            }
        }
    }
}
