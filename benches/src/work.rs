use std::fmt;

/// What is done over and over: by evenkeel on a store, and by hand as that store's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A record under a fresh key, whatever stands there.
    Put,
    /// A record where none stands, and another in its place: together one.
    ClaimAndFinish,
    /// This many events to one of [`STREAMS`].
    Append(usize),
    /// A job in a queue of the caller's own, pushed, leased and acknowledged: together one.
    PushLeaseAck,
    /// An idempotent call under a fresh key, with a handler that takes no time.
    Fresh,
    /// The same with a row of the user's in the commit that finishes.
    FreshWithRow,
    /// An idempotent call that is finished, again, by its caller.
    Replay,
}

/// How many streams an append chooses from.
pub(crate) const STREAMS: u64 = 16;

/// What a record, an event or a job holds.
pub(crate) const VALUE: &str = r#"{"order":"0192f0c1-22c4-7bb0-9ad4-4f3b1d0e6a11","customer":"ada","cents":1200,"state":"placed","note":"leave at the door"}"#;

/// The kind of every event.
pub(crate) const KIND: &str = "OrderPlaced";

/// The answer of an idempotent call, which is what a small JSON API returns.
pub(crate) const ANSWER: &str =
    r#"{"id":"0192f0c1-22c4-7bb0-9ad4-4f3b1d0e6a11","customer":"ada","cents":1200,"state":"charged"}"#;

/// The key of the caller's own call that is finished.
pub(crate) fn finished(caller: usize) -> String {
    format!("finished-{caller}")
}

impl Work {
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Put | Self::ClaimAndFinish | Self::Append(_) | Self::PushLeaseAck => "ops/s",
            Self::Fresh | Self::FreshWithRow | Self::Replay => "calls/s",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("put"),
            Self::ClaimAndFinish => f.write_str("claim + finish"),
            Self::Append(events) => write!(f, "append {events}"),
            Self::PushLeaseAck => f.write_str("push + lease + ack"),
            Self::Fresh => f.write_str("fresh, door 1"),
            Self::FreshWithRow => f.write_str("fresh with a row, door 2"),
            Self::Replay => f.write_str("replay"),
        }
    }
}
