use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::layer::Retry;
use evenkeel_core::{AnyStore, Clock, StoreExt, SystemClock, Timestamp};

use crate::catalog::Catalog;
use crate::express::Pumps;
use crate::joint::{Joint, joint};
use crate::recent::{RecentDocuments, RecentTold};
use crate::signing::Vault;

/// Change notification on a store.
///
/// A cheap handle: clones share what is remembered of resources and subscriptions.
#[derive(Clone, Debug)]
pub struct Flare {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// The store as it was given.
    given: AnyStore,
    /// The store with passing failures out of the way: every batch of flare is fenced, or harmless
    /// when it is applied twice.
    pub(crate) store: AnyStore,
    pub(crate) settings: Settings,
    pub(crate) catalog: Catalog,
    pub(crate) recent: RecentDocuments,
    pub(crate) recent_told: RecentTold,
    /// The pumps of this process's workers.
    pub(crate) pumps: Pumps,
    /// Commits what is published.
    pub(crate) publications: Joint,
    /// Commits what came of deliveries. By itself, so that one publication that guessed wrong is no
    /// reason to commit these one by one.
    pub(crate) settlements: Joint,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) tombstones: Duration,
    pub(crate) history: Duration,
    pub(crate) disable_after: Duration,
}

impl Flare {
    /// On `store`, with the defaults.
    #[must_use]
    pub fn new(store: impl Into<AnyStore>) -> Self {
        let settings = Settings {
            clock: SystemClock::shared(),
            vault: Arc::default(),
            tombstones: Duration::from_hours(30 * 24),
            history: Duration::from_hours(30 * 24),
            disable_after: Duration::from_hours(5 * 24),
        };
        Self::with_settings(store.into(), settings)
    }

    fn with_settings(given: AnyStore, settings: Settings) -> Self {
        let store = given.clone().layer(Retry::default().clock(Arc::clone(&settings.clock))).any();
        let (publications, settlements) = (joint(&store), joint(&store));
        let shared = Shared {
            given,
            store,
            settings,
            catalog: Catalog::default(),
            recent: RecentDocuments::default(),
            recent_told: RecentTold::default(),
            pumps: Pumps::default(),
            publications,
            settlements,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes the time from this clock, and sleeps on it.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    /// Keeps the secrets of subscriptions encrypted under this vault's keys.
    #[must_use]
    pub fn vault(self, vault: Vault) -> Self {
        self.with(|settings| settings.vault = Arc::new(vault))
    }

    /// How long a deleted document's revision is remembered, so that an older publication does not
    /// bring it back; 30 days unless set.
    #[must_use]
    pub fn tombstones(self, keep_for: Duration) -> Self {
        self.with(|settings| settings.tombstones = keep_for)
    }

    /// How long attempts and notices are kept; 30 days unless set.
    #[must_use]
    pub fn history(self, keep_for: Duration) -> Self {
        self.with(|settings| settings.history = keep_for)
    }

    /// For how long everything must fail before a subscription is disabled; 5 days unless set.
    #[must_use]
    pub fn disable_after(self, failing_for: Duration) -> Self {
        self.with(|settings| settings.disable_after = failing_for)
    }

    /// The store that everything is kept in, as it was given: what passes is not tried again.
    #[must_use]
    #[expect(clippy::misnamed_getters, reason = "what passes is the business of who asks")]
    pub fn store(&self) -> &AnyStore {
        &self.shared.given
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self::with_settings(self.shared.given.clone(), settings)
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }
}
