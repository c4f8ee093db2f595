use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_core::layer::Retry;
use evenkeel_core::{
    AnyStore, Clock, Error, ErrorKind, Partition, Result, Store, StoreExt, SystemClock, Timestamp,
    Transactional,
};
use serde::Serialize;
use tokio::sync::Notify;

use super::door::{Door, TypedDoor};
use super::inspect::Run;
use super::intake::Intakes;
use super::waiters::Waiters;
use crate::context::RunShared;
use crate::definition::Definition;
use crate::key::Value;
use crate::plan::Plan;

/// Durable runs on a store.
///
/// A cheap handle: clones share definitions, and wake each other's waiters. `S` is the store that
/// transactional steps write to.
#[derive(Clone, Debug)]
pub struct Choreographer<S = AnyStore> {
    store: S,
    pub(crate) engine: Arc<Engine>,
}

/// A definition that is registered, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Registration {
    /// Its name.
    pub name: &'static str,
    /// Its versions in the order in which they were registered; the last is the one that new runs
    /// get.
    pub versions: Vec<String>,
    /// The last version as a Mermaid flowchart, as by
    /// [`Definition::to_mermaid`](crate::Definition::to_mermaid).
    pub diagram: String,
}

/// What does not depend on the type of the store.
pub(crate) struct Engine {
    /// With passing failures out of the way: every batch is fenced, or harmless when it is applied
    /// twice.
    pub(crate) store: AnyStore,
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    /// The workers of this process with the same settings.
    pub(crate) intakes: Intakes,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
}

/// What the clones of a choreographer share, whatever their settings.
#[derive(Default)]
pub(crate) struct Shared {
    definitions: RwLock<HashMap<&'static str, Vec<Arc<Registered>>>>,
    /// The runs that are held by this process.
    live: Mutex<HashMap<(Partition, String), Arc<Live>>>,
    pub(crate) waiters: Waiters,
}

/// A run that is held by this process.
pub(crate) struct Live {
    pub(crate) run: Arc<RunShared>,
    /// Its records may have been changed by somebody else.
    pub(crate) changed: Notify,
}

pub(crate) struct Registered {
    pub(crate) plan: Arc<Plan>,
    pub(crate) door: Option<Arc<dyn Door>>,
}

impl Choreographer {
    /// On any store. Transactional steps write with a [`Draft`](evenkeel_core::Draft).
    #[must_use]
    pub fn new(store: impl Into<AnyStore>) -> Self {
        Self::with_store(store.into())
    }
}

impl<S: Store + Clone> Choreographer<S> {
    /// On a store with transactional steps of its own connection.
    #[must_use]
    pub fn with_store(store: S) -> Self {
        let settings = Settings {
            clock: SystemClock::shared(),
            lease: Duration::from_secs(30),
            retention: Duration::from_hours(30 * 24),
        };
        let engine = Arc::new(Engine::new(store.clone().any(), settings, Arc::default()));
        Self { store, engine }
    }

    /// Takes the time from this clock, and sleeps on it.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    /// For how long a run is safe from other workers after its worker was last heard of; 30 seconds
    /// unless set, at least 3 ms. It is renewed every third of this.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|settings| settings.lease = lease.max(Duration::from_millis(3)))
    }

    /// How long a run is kept after its end; 30 days unless set. Then its id is free again.
    #[must_use]
    pub fn retention(self, keep_for: Duration) -> Self {
        self.with(|settings| settings.retention = keep_for)
    }

    /// Lets workers of this process run the definition. The version that is registered last is the
    /// one that new runs get; runs of the others go on with theirs.
    ///
    /// # Errors
    /// `InvalidInput` where this version is registered already, and for a transactional step.
    pub fn register<I: Value>(&self, definition: Definition<I>) -> Result<()> {
        self.engine.shared.register(Registered { plan: definition.plan, door: None })
    }

    /// What is registered, by the order of the names.
    #[must_use]
    pub fn definitions(&self) -> Vec<Registration> {
        self.engine.shared.registrations()
    }

    /// The same without the type of its store: what is registered with one is with the other.
    #[must_use]
    pub fn any(&self) -> Choreographer {
        Choreographer { store: self.store.clone().any(), engine: Arc::clone(&self.engine) }
    }

    /// The store that everything is kept in.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.engine.settings.clone();
        change(&mut settings);
        let shared = Arc::clone(&self.engine.shared);
        Self { engine: Arc::new(Engine::new(self.store.clone().any(), settings, shared)), ..self }
    }
}

impl<S: Transactional + Clone> Choreographer<S> {
    /// As [`register`](Self::register), for a definition with transactional steps on the store's
    /// connection.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_tx<I: Value>(&self, definition: Definition<I, S::Conn>) -> Result<()> {
        let door: Arc<dyn Door> = Arc::new(TypedDoor(self.store.clone()));
        self.engine.shared.register(Registered { plan: definition.plan, door: Some(door) })
    }
}

impl Engine {
    fn new(given: AnyStore, settings: Settings, shared: Arc<Shared>) -> Self {
        let store = given.layer(Retry::default().clock(Arc::clone(&settings.clock))).any();
        Self { store, settings, shared, intakes: Intakes::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    pub(crate) fn at(&self, run: &str) -> Partition {
        self.store.partition_of(run)
    }
}

impl Shared {
    fn register(&self, registered: Registered) -> Result<()> {
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let transaction =
            registered.plan.leaves.iter().find(|leaf| matches!(leaf.kind, crate::plan::LeafKind::TxJob(_)));
        if let (Some(leaf), None) = (transaction, &registered.door) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a transactional step is registered by `register_tx`",
            )
            .with("definition", format_args!("{:?}", registered.plan.name))
            .with("step", format_args!("{:?}", leaf.name)));
        }
        let versions = definitions.entry(registered.plan.name).or_default();
        if versions.iter().any(|known| known.plan.hash == registered.plan.hash) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "this version of the definition is registered already",
            )
            .with("definition", format_args!("{:?}", registered.plan.name))
            .with("version", &registered.plan.hash));
        }
        versions.push(Arc::new(registered));
        Ok(())
    }

    fn registrations(&self) -> Vec<Registration> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let one = |(name, versions): (&&'static str, &Vec<Arc<Registered>>)| Registration {
            name,
            versions: versions.iter().map(|known| known.plan.hash.clone()).collect(),
            diagram: versions.last().map(|newest| newest.plan.to_mermaid()).unwrap_or_default(),
        };
        let mut registrations: Vec<_> = definitions.iter().map(one).collect();
        registrations.sort_by_key(|registration| registration.name);
        registrations
    }

    /// The version of a definition that new runs get.
    pub(crate) fn newest(&self, definition: &str) -> Result<Arc<Registered>> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        definitions.get(definition).and_then(|versions| versions.last()).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no such definition is registered")
                .with("definition", format_args!("{definition:?}"))
        })
    }

    pub(crate) fn version(&self, definition: &str, version: &str) -> Option<Arc<Registered>> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        definitions.get(definition)?.iter().find(|known| known.plan.hash == version).cloned()
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, HashMap<(Partition, String), Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process holds the run.
    pub(crate) fn holds(&self, at: &Partition, run: &str) -> bool {
        self.live().contains_key(&(at.clone(), run.to_owned()))
    }

    /// Tells those who wait for a run in this process that it has come to its end, or is parked.
    pub(crate) fn ended(&self, at: &Partition, run: &str, ended: impl FnOnce() -> Run) {
        // First: whoever finds it held after this is told.
        self.live().remove(&(at.clone(), run.to_owned()));
        self.waiters.tell(at, run, ended);
    }

    /// Tells the holder of a run, where that is this process, to look at its records.
    pub(crate) fn changed(&self, at: &Partition, run: &str) {
        if let Some(live) = self.live().get(&(at.clone(), run.to_owned())) {
            live.changed.notify_one();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}
