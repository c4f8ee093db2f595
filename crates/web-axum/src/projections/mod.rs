//! The HTTP API of projections: events are read, appended and followed, and read models looked at
//! and steered.
//!
//! JSON in and out, but for events that are followed, which come as server-sent events; what is
//! refused is a [`Problem`] that names the field or parameter, and unknown ones are
//! refused. Every route needs a [scope](crate::access), and [`openapi`](crate::openapi) describes
//! them all.
//!
//! Projectors are code, so what was set apart or skipped is applied again where its projection is
//! [known](Api::projection). Everything else works in any process on the same store: a projection
//! that is paused, resumed or rebuilt there is so wherever it runs.
//!
//! ```
//! use evenkeel_core::{AnyStore, BoxError, Draft, MemoryStore};
//! use evenkeel_idempotency::{Idempotency, Scope};
//! use evenkeel_projections::{Context, EventStore, Projection, Projector, Recorded};
//! use evenkeel_web_axum::{IdempotencyLayer, openapi, projections, value};
//!
//! struct Count;
//! impl Projector<Draft> for Count {
//!     type State = u64;
//!     async fn apply(&self, _: &Recorded, context: &mut Context<'_, Draft, u64>) -> Result<(), BoxError> {
//!         *context.state += 1;
//!         Ok(())
//!     }
//! }
//!
//! let store = AnyStore::from(MemoryStore::new());
//! let count = Projection::keyed(EventStore::new(store.clone()), "count", Count);
//! let once = IdempotencyLayer::new(Idempotency::new(store.clone()), value(Scope::Global));
//! let app = projections::Api::new(store)
//!     .projection(&count)
//!     .idempotency(once)
//!     .router()
//!     .merge(openapi::router());
//! # let _ = app;
//! ```

mod append; // events that are appended
mod control; // pausing, resuming, rebuilding
mod event; // events in JSON
mod follow; // events as they are appended
mod inspect; // projections as they stand
mod letters; // what was set apart or skipped
mod read; // streams and logs

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use evenkeel_core::{AnyStore, Clock, Partition, StoreExt, SystemClock, Transactional};
use evenkeel_projections::{EventStore, Operations, Projection, Projector};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use self::letters::Applies;
use crate::access::Scope::{Admin, Publish, Read};
use crate::routes::{self, Bodies};
use crate::{IdempotencyLayer, Problem};

/// The API of the events and projections in `store`, with the defaults.
pub fn router(store: impl Into<AnyStore>) -> Router {
    Api::new(store).router()
}

/// The API of the events and projections in a store, to be configured.
#[derive(Clone, Debug)]
pub struct Api {
    service: Service,
    bodies: Bodies,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Service {
    events: EventStore<AnyStore>,
    clock: Arc<dyn Clock>,
    /// The projections whose code is here, by their names.
    known: BTreeMap<String, Arc<dyn Applies>>,
    closing: Shared<BoxFuture<'static, ()>>,
}

impl Api {
    /// With the defaults.
    #[must_use]
    pub fn new(store: impl Into<AnyStore>) -> Self {
        let service = Service {
            events: EventStore::new(store.into()),
            clock: SystemClock::shared(),
            known: BTreeMap::new(),
            closing: std::future::pending().boxed().shared(),
        };
        Self { service, bodies: Bodies::default() }
    }

    /// Lets what this projection set apart or skipped be applied again.
    #[must_use]
    pub fn projection<P, S>(mut self, projection: &Projection<P, S>) -> Self
    where
        P: Projector<S::Conn>,
        S: Transactional + Clone,
    {
        self.service.known.insert(projection.name().to_owned(), Arc::new(projection.clone()));
        self
    }

    /// Honours an `Idempotency-Key` on POSTs by this layer's settings, but that a key may be missing
    /// and that the request's body is limited as this API says.
    ///
    /// Events that are appended under a key are there once, also where the service was cut off before
    /// it could keep the answer.
    #[must_use]
    pub fn idempotency(mut self, layer: IdempotencyLayer) -> Self {
        self.bodies.idempotency = Some(layer);
        self
    }

    /// The longest request body in bytes; a longer one is answered 413. 1 MiB unless set.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.bodies.limit = bytes;
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.service.events = self.service.events.clock(Arc::clone(&clock));
        self.service.clock = clock;
        self
    }

    /// Ends the answers that follow events once `shutdown` completes; without it they end when their
    /// readers go.
    #[must_use]
    pub fn until(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.service.closing = shutdown.boxed().shared();
        self
    }

    /// The router.
    pub fn router(self) -> Router {
        table().serve(self.service, self.bodies)
    }
}

routes::table! { Service:
    read::show_stream &[Read, Publish], Plain;
    read::read_stream &[Read, Publish], Plain;
    append::append_events &[Publish], Plain;
    follow::follow_stream &[Read], Plain;
    read::read_log &[Read], Plain;
    follow::follow_log &[Read], Plain;
    inspect::list_projections &[Read, Admin], Plain;
    inspect::show_projection &[Read, Admin], Plain;
    control::pause_projection &[Admin], Plain;
    control::resume_projection &[Admin], Plain;
    control::reset_projection &[Admin], Plain;
    control::rebuild_projection &[Admin], Plain;
    control::cancel_rebuild &[Admin], Plain;
    letters::list_parked &[Read, Admin], Plain;
    letters::retry_parked &[Admin], Plain;
    letters::dismiss_parked &[Admin], Plain;
    letters::list_dead_letters &[Read, Admin], Plain;
    letters::retry_dead_letter &[Admin], Plain;
    letters::dismiss_dead_letter &[Admin], Plain;
}

impl Service {
    fn operations(&self, name: &str) -> Operations<AnyStore> {
        Operations::new(self.events.store().clone(), name).clock(Arc::clone(&self.clock))
    }

    fn partition(&self, index: u32) -> Result<Partition, Problem> {
        let partitions = self.events.store().partitions();
        let count = partitions.len();
        let found = partitions.into_iter().find(|partition| partition.index() == index);
        found.ok_or_else(|| {
            Problem::bad_request(format!(
                "there is no such partition (partition: {index}, partitions: {count})"
            ))
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("events", &self.events)
            .field("known", &self.known.keys())
            .finish_non_exhaustive()
    }
}
