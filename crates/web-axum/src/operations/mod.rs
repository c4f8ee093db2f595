//! What an operator sees and does: idempotency keys, and the jobs of a store.
//!
//! Every route needs the scope [`Admin`]. What JSON and problems look like is said at
//! [`flare`](crate::flare).

mod keys; // operations of idempotency
mod queues; // jobs

use std::sync::Arc;

use axum::Router;
use evenkeel_core::{AnyStore, Clock, SystemClock};
use evenkeel_idempotency::Idempotency;

use crate::access::Scope::Admin;
use crate::routes::{self, Bodies};

/// The router for `store`, and for the keys that `idempotency` keeps, with the defaults.
pub fn router(store: AnyStore, idempotency: Idempotency<AnyStore>) -> Router {
    Operations::new(store, idempotency).router()
}

/// The operations router, to be configured.
#[derive(Clone, Debug)]
pub struct Operations {
    service: Service,
}

/// What handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    store: AnyStore,
    idempotency: Idempotency<AnyStore>,
    clock: Arc<dyn Clock>,
}

impl Operations {
    /// With the defaults.
    #[must_use]
    pub fn new(store: AnyStore, idempotency: Idempotency<AnyStore>) -> Self {
        Self { service: Service { store, idempotency, clock: SystemClock::shared() } }
    }

    /// Takes the time at which jobs fall due from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.service.clock = clock;
        self
    }

    /// The router.
    pub fn router(self) -> Router {
        table().serve(self.service, Bodies::default())
    }
}

routes::table! { Service:
    keys::list_running &[Admin], Plain;
    keys::show_operation &[Admin], Plain;
    keys::release_operation &[Admin], Plain;
    queues::list_queues &[Admin], Plain;
    queues::list_jobs &[Admin], Plain;
    queues::show_job &[Admin], Plain;
    queues::retry_job &[Admin], Plain;
    queues::cancel_job &[Admin], Plain;
}
