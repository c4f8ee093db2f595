use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{AnyStore, Clock, Store, SystemClock, Timestamp};

use crate::error::Result;
use crate::keeper::Keeper;
use crate::offload::Offload;
use crate::operation::Place;
use crate::waiters::Waiters;
use crate::{OnExpired, OnInterrupted, OnRunning, Operation};

/// Runs operations once, on any store.
///
/// A cheap handle: clones share the renewal of leases and wake each other's waiters. A setting
/// changed on a clone is that clone's own.
#[derive(Debug)]
pub struct Idempotency<S = AnyStore> {
    pub(crate) engine: Arc<Engine<S>>,
}

impl<S> Clone for Idempotency<S> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine) }
    }
}

#[derive(Debug)]
pub(crate) struct Engine<S> {
    pub(crate) store: S,
    pub(crate) settings: Settings,
    pub(crate) keeper: Keeper<S>,
    pub(crate) waiters: Waiters,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
    expiration: Duration,
    pub(crate) on_expired: OnExpired,
    on_running: OnRunning,
    on_interrupted: OnInterrupted,
    pub(crate) offload: Option<Offload>,
}

impl<S: Store + Clone> Idempotency<S> {
    /// With the defaults, see the [table](crate#defaults).
    #[must_use]
    pub fn new(store: S) -> Self {
        let settings = Settings {
            clock: SystemClock::shared(),
            lease: Duration::from_secs(30),
            retention: Duration::from_hours(24),
            expiration: Duration::from_hours(24),
            on_expired: OnExpired::Retain,
            on_running: OnRunning::Reject,
            on_interrupted: OnInterrupted::Retry,
            offload: None,
        };
        Self { engine: Arc::new(Engine::new(store, settings)) }
    }

    /// Takes the time from this clock, and sleeps on it.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    /// How long an attempt is safe from being taken over after its owner was last heard of; it is
    /// renewed every third of this. At least 3 ms.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|settings| settings.lease = lease.max(Duration::from_millis(3)))
    }

    /// How long an operation's record is kept after its expiration.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.with(|settings| settings.retention = retention)
    }

    /// When operations expire that do not say so themselves; zero is never.
    #[must_use]
    pub fn expiration(self, expiration: Duration) -> Self {
        self.with(|settings| settings.expiration = expiration)
    }

    /// When operations that end from now on are deleted.
    #[must_use]
    pub fn on_expired(self, policy: OnExpired) -> Self {
        self.with(|settings| settings.on_expired = policy)
    }

    /// What to do while another attempt runs, for operations that do not say so themselves.
    #[must_use]
    pub fn on_running(self, policy: OnRunning) -> Self {
        self.with(|settings| settings.on_running = policy)
    }

    /// What to do where the last attempt was cut off, for operations that do not say so
    /// themselves.
    #[must_use]
    pub fn on_interrupted(self, policy: OnInterrupted) -> Self {
        self.with(|settings| settings.on_interrupted = policy)
    }

    /// Keeps answers of more than `threshold` bytes in a second store, and any that do not fit a
    /// record of the first.
    #[must_use]
    pub fn offload(self, store: impl Into<AnyStore>, threshold: usize) -> Self {
        self.with(|settings| settings.offload = Some(Offload::new(store.into(), threshold)))
    }

    /// The longest answer, in bytes, that is stored whatever its bytes are. Text of up to a third
    /// more may fit too.
    #[must_use]
    pub fn answer_limit(&self) -> usize {
        match self.engine.settings.offload {
            Some(_) => usize::MAX,
            // What is left beside the longest identity and message, in base64.
            None => self.engine.store.info().limits.value.saturating_sub(48 * 1024) / 4 * 3,
        }
    }

    /// The store that it keeps its records in.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.engine.store
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        if let Some(engine) = Arc::get_mut(&mut self.engine) {
            change(&mut engine.settings);
            return self;
        }
        let mut settings = self.engine.settings.clone();
        change(&mut settings);
        Self { engine: Arc::new(Engine::new(self.engine.store.clone(), settings)) }
    }
}

impl<S> Engine<S> {
    fn new(store: S, settings: Settings) -> Self {
        Self { store, settings, keeper: Keeper::default(), waiters: Waiters::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }
}

impl Settings {
    /// When the operation, arriving at `now`, expires, and what that counts from.
    pub(crate) fn expiry(&self, operation: &Operation, now: Timestamp) -> (Timestamp, Option<Timestamp>) {
        let reference_time = operation.reference_time.unwrap_or(now);
        let expiration = operation.expiration.unwrap_or(self.expiration);
        let expires_at = (!expiration.is_zero()).then(|| reference_time + expiration);
        (reference_time, expires_at)
    }

    pub(crate) fn on_running(&self, operation: &Operation) -> OnRunning {
        operation.on_running.unwrap_or(self.on_running)
    }

    pub(crate) fn on_interrupted(&self, operation: &Operation) -> OnInterrupted {
        operation.on_interrupted.unwrap_or(self.on_interrupted)
    }
}

/// Where and by whom an attempt is made: what all that is done for it needs.
pub(crate) struct Task<S> {
    pub(crate) engine: Arc<Engine<S>>,
    pub(crate) operation: Operation,
    pub(crate) place: Arc<Place>,
}

impl<S: Store + Clone> Task<S> {
    pub(crate) fn new(idempotency: &Idempotency<S>, operation: Operation) -> Result<Self> {
        let place = Arc::new(operation.identity.place(&idempotency.engine.store)?);
        Ok(Self { engine: Arc::clone(&idempotency.engine), operation, place })
    }
}
