use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Refused;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The host's name has no address.
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// None of the host's addresses is allowed; the first is named. Nothing was sent.
    RefusedAddress(Refused),
    /// Nobody accepts connections there.
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// What the operating system said.
        reason: String,
    },
    /// The peer did not prove to be the host, or could not agree on how to talk.
    Tls {
        /// The host.
        host: String,
        /// What was wrong.
        reason: String,
    },
    /// It took too long.
    TimedOut {
        /// What was being waited for.
        waiting_for: Waiting,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The peer closed the connection, or what it answered is not HTTP.
    Protocol {
        /// What was wrong.
        reason: String,
    },
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A connection: the name's addresses, the peer, and its certificate.
    Connection,
    /// The answer, to its end.
    Answer,
}

impl SendError {
    /// A stable word for what happened, for metrics and records of attempts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::RefusedAddress(_) => "refused_address",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::TimedOut { .. } => "timed_out",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// What hyper says in layers, as one line.
    pub(super) fn protocol(error: &dyn std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut layer = error.source();
        while let Some(source) = layer {
            reason.push_str(": ");
            reason.push_str(&source.to_string());
            layer = source.source();
        }
        Self::Protocol { reason }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { host, reason } => write!(f, "host {host:?} has no address: {reason}"),
            Self::RefusedAddress(refused) => refused.fmt(f),
            Self::Connect { address, reason } => write!(f, "no connection to {address}: {reason}"),
            Self::Tls { host, reason } => write!(f, "no TLS with host {host:?}: {reason}"),
            Self::TimedOut { waiting_for: Waiting::Connection, limit } => {
                write!(f, "no connection within {limit:?}")
            }
            Self::TimedOut { waiting_for: Waiting::Answer, limit } => {
                write!(f, "no complete answer within {limit:?}")
            }
            Self::Protocol { reason } => write!(f, "no valid answer: {reason}"),
        }
    }
}

impl std::error::Error for SendError {}
