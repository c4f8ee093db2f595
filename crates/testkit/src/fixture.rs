use std::time::Duration;

use evenkeel_core::{Result, Transactional};

/// How a store takes part in the conformance suite.
///
/// The suite gives every case a namespace of its own. What the opened stores need to stay, such as
/// a directory, the fixture keeps: it lives until all cases have run.
pub trait Fixture: Send + Sync + 'static {
    /// The store.
    type Store: Transactional + Clone;

    /// What the names of its cases begin with.
    fn name(&self) -> &'static str;

    /// Whether the store can be opened here.
    ///
    /// # Errors
    /// What is missing. The cases are then ignored, unless the environment variable
    /// `EVENKEEL_TEST_REQUIRE` is `all` or has the fixture's name: then they fail.
    fn available(&self) -> Result<(), String> {
        Ok(())
    }

    /// Opens a store with this many partitions whose `sweep` reclaims what expired more than
    /// `max_skew` ago.
    ///
    /// The store must not compare the callers' clock with its own: the cases live in a time of
    /// their own.
    fn open(&self, partitions: u32, max_skew: Duration) -> impl Future<Output = Result<Self::Store>> + Send;

    /// How many random histories the comparison with the reference model plays.
    fn histories(&self) -> u32 {
        64
    }

    /// How many seeds the chaos of a capability is played with, for one partition and for four each.
    fn seeds(&self) -> u64 {
        20
    }

    /// How many events the longest stream of a capability's suite has; some thousands.
    fn longest_stream(&self) -> u64 {
        10_000
    }

    /// Whether a call takes time by the machine's clock.
    fn latency(&self) -> Latency {
        Latency::Real
    }

    /// Whether the store's signals carry hints.
    fn hints(&self) -> Hints {
        Hints::Given
    }
}

/// Whether a store gives hints or leaves its users to poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// A commit is followed by a hint.
    Given,
    /// There are none.
    None,
}

/// Whether a store's calls wait for something outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// They wait for a disk or a server.
    Real,
    /// They are done as soon as they run, so that a story is the same each time it is played.
    None,
}
