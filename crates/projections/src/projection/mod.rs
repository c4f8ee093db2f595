mod alone;
mod apply;
mod catch_up;
mod compact;
mod cursor;
mod drive;
mod host;
mod inline;
mod keyed;
mod letters;
mod pace;
mod partition;
mod patience;
mod rebuild;
mod run;
mod share;
mod unit;
mod wait;
mod window;

pub(crate) use self::apply::{guarded, may_pass};
pub(crate) use self::cursor::Position;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Clock, Error, ErrorKind, Partition, Result, Store, Timestamp, Transactional};
use tokio::sync::watch;

use crate::{EventStore, OnFailure, Operations, Policy, Projector, places};

/// A [`Projector`], run over every partition's log under a name.
///
/// Any number of handles in any number of processes run it at the same time; what one has applied
/// is applied. Handles are cheap to clone.
pub struct Projection<P, S> {
    pub(crate) shared: Arc<Shared<P, S>>,
}

pub(crate) struct Shared<P, S> {
    pub(crate) operations: Operations<S>,
    pub(crate) events: EventStore<S>,
    pub(crate) projector: P,
    pub(crate) settings: Settings,
    /// What this process has moved.
    pub(crate) moves: watch::Sender<Moves>,
}

/// The positions of versions in partitions that a process has committed.
pub(crate) type Moves = HashMap<(Partition, u32), u64>;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) policy: Policy,
    pub(crate) most_events: usize,
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
    pub(crate) compact_every: Option<Duration>,
    pub(crate) is_synced: bool,
}

/// What is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything in a partition.
    Stream,
    /// The events of a stream.
    Keyed,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// A projection of all events of a partition in their order, with one state for each partition.
    /// Its name is 1 to 496 bytes.
    #[must_use]
    pub fn stream(events: EventStore<S>, name: impl Into<String>, projector: P) -> Self {
        Self::new(events, name.into(), projector, Mode::Stream)
    }

    /// A projection of each stream in its order, with one state for each stream: events of several
    /// streams are applied side by side. Its name is 1 to 496 bytes.
    #[must_use]
    pub fn keyed(events: EventStore<S>, name: impl Into<String>, projector: P) -> Self {
        Self::new(events, name.into(), projector, Mode::Keyed)
    }

    fn new(events: EventStore<S>, name: String, projector: P, mode: Mode) -> Self {
        let settings = Settings {
            mode,
            policy: Policy::new(OnFailure::Fail),
            most_events: 2_000,
            concurrency: 4,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            compact_every: None,
            is_synced: false,
        };
        let operations = Operations::new(events.store.clone(), name).clock(Arc::clone(&events.clock));
        let moves = watch::Sender::default();
        Self { shared: Arc::new(Shared { operations, events, projector, settings, moves }) }
    }

    /// What becomes of an event whose handler fails; the projection stops unless this says
    /// otherwise.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        self.with(|settings| settings.policy = policy)
    }

    /// How many events go into one commit at most; 2,000 unless set. There are fewer where they do
    /// not fit it, are slow, or are contended for.
    #[must_use]
    pub fn most_events(self, most: usize) -> Self {
        self.with(|settings| settings.most_events = most.max(1))
    }

    /// How many commits of one partition are under way at once, in a keyed projection; 4 unless
    /// set, 1 where the store has one writer.
    #[must_use]
    pub fn concurrency(self, commits: usize) -> Self {
        self.with(|settings| settings.concurrency = commits.max(1))
    }

    /// For how long a partition is a node's after it was last heard of; 30 seconds unless set, at
    /// least 1.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|settings| settings.lease = lease.max(Duration::from_secs(1)))
    }

    /// How often is looked for events without a hint that there are some; a second unless set.
    #[must_use]
    pub fn poll(self, poll: Duration) -> Self {
        self.with(|settings| settings.poll = poll)
    }

    /// How often the read model is [compacted](Projector::compact) in each partition while the
    /// projection [runs](Self::run); never unless set. That a partition moves to another node, or is
    /// run anew, makes it no sooner and no later.
    #[must_use]
    pub fn compact_every(self, interval: Duration) -> Self {
        self.with(|settings| settings.compact_every = Some(interval))
    }

    /// Has each commit on disk before its events count as applied: for a read model that more is told
    /// of than can be read in it again. A crash of the machine then takes nothing back, and each
    /// commit waits for the disk.
    #[must_use]
    pub fn synced(self) -> Self {
        self.with(|settings| settings.is_synced = true)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// How it is doing and what is to run of it, for who has no projector.
    #[must_use]
    pub fn operations(&self) -> &Operations<S> {
        &self.shared.operations
    }

    /// Whether its name fits, and its settings make sense together.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=places::LONGEST_NAME).contains(&self.name().len()) {
            return Err(Error::new(ErrorKind::InvalidInput, "a projection's name is 1 to 496 bytes")
                .with("projection", self.name()));
        }
        let Settings { mode, policy, .. } = &self.shared.settings;
        if *mode == Mode::Stream && policy.then() == OnFailure::Park {
            return Err(Error::new(ErrorKind::Config, "only a keyed projection can set a stream apart")
                .with("projection", self.name()));
        }
        Ok(())
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut shared = Arc::try_unwrap(self.shared)
            .unwrap_or_else(|_| panic!("a projection is set up before it is cloned"));
        change(&mut shared.settings);
        Self { shared: Arc::new(shared) }
    }
}

impl<P, S: Store + Clone> Shared<P, S> {
    pub(crate) fn store(&self) -> &S {
        &self.events.store
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.events.clock
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.events.clock.now()
    }
}

impl<P, S> Shared<P, S> {
    pub(crate) fn name(&self) -> &str {
        &self.operations.name
    }
}

impl<P, S> Clone for Projection<P, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P, S> fmt::Debug for Projection<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection")
            .field("name", &self.shared.operations.name)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
