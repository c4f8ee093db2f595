//! The HTTP API of choreograph: runs are started, looked at and steered.
//!
//! JSON in and out; what is refused is a [`Problem`] that names the field or parameter, and unknown
//! ones are refused. Every route needs a [scope](crate::access), and [`openapi`](crate::openapi)
//! describes them all.
//!
//! Steps are code, so a run is started where its definition is registered. Everything else works in any
//! process on the same store: a run that is resumed there goes on wherever a worker knows its definition.
//!
//! ```
//! use evenkeel_choreograph::{Choreographer, Definition, StepKey};
//! use evenkeel_core::{AnyStore, MemoryStore};
//! use evenkeel_idempotency::{Idempotency, Scope};
//! use evenkeel_web_axum::{IdempotencyLayer, choreograph, openapi, value};
//!
//! # fn main() -> evenkeel_core::Result<()> {
//! const DOUBLE: StepKey<u32> = StepKey::new("double");
//!
//! let store = AnyStore::from(MemoryStore::new());
//! let choreographer = Choreographer::new(store.clone());
//! choreographer.register(
//!     Definition::<u32>::builder("sums")
//!         .step(DOUBLE, async |ctx| Ok::<_, std::io::Error>(ctx.input() * 2))
//!         .build()?,
//! )?;
//! let once = IdempotencyLayer::new(Idempotency::new(store), value(Scope::Global));
//! let app = choreograph::Api::new(&choreographer).idempotency(once).router().merge(openapi::router());
//! # let _ = app;
//! # Ok(())
//! # }
//! ```

mod control; // starting, signalling, stopping and going on
mod definitions; // what there is to be run
mod history; // what happened in a run
mod inspect; // runs as they stand, and lists of them
mod run; // runs in JSON

use std::sync::Arc;

use axum::Router;
use evenkeel_choreograph::Choreographer;
use evenkeel_core::{Clock, Store, SystemClock};

use crate::access::Scope::{Admin, Read};
use crate::routes::{self, Bodies};
use crate::{IdempotencyLayer, Problem};

/// The API of `choreographer`, with the defaults.
pub fn router<S: Store + Clone>(choreographer: &Choreographer<S>) -> Router {
    Api::new(choreographer).router()
}

/// The API of a [`Choreographer`], to be configured.
#[derive(Clone, Debug)]
pub struct Api {
    service: Service,
    bodies: Bodies,
}

/// What handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    choreographer: Choreographer,
    clock: Arc<dyn Clock>,
}

impl Api {
    /// With the defaults.
    #[must_use]
    pub fn new<S: Store + Clone>(choreographer: &Choreographer<S>) -> Self {
        let service = Service { choreographer: choreographer.any(), clock: SystemClock::shared() };
        Self { service, bodies: Bodies::default() }
    }

    /// Honours an `Idempotency-Key` on POSTs by this layer's settings, but that a key may be missing
    /// and that the request's body is limited as this API says.
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

    /// Measures on this clock how long a request waits for a run.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.service.clock = clock;
        self
    }

    /// The router.
    pub fn router(self) -> Router {
        table().serve(self.service, self.bodies)
    }
}

routes::table! { Service:
    definitions::list_definitions &[Read, Admin], Plain;
    definitions::show_diagram &[Read, Admin], Plain;
    inspect::list_runs &[Read, Admin], Plain;
    control::start_run &[Admin], Plain;
    inspect::show_run &[Read, Admin], Plain;
    history::show_history &[Read, Admin], Plain;
    history::show_timeline &[Read, Admin], Plain;
    control::signal_run &[Admin], Plain;
    control::cancel_run &[Admin], Plain;
    control::resume_run &[Admin], Plain;
    control::retry_run &[Admin], Plain;
}

fn no_run(id: &str) -> Problem {
    Problem::not_found(format!("there is no such run (run: {id:?})"))
}
