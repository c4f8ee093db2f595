//! The HTTP API of flare: resources, subscriptions, documents, and what became of them.
//!
//! JSON in and out, but for documents, which are taken and given byte for byte. What is refused is a
//! [`Problem`] that names the field, header or parameter; unknown ones are refused.
//! Every route but `/`, `/health` and `/ready` needs a [scope](crate::access).
//! [`openapi`](crate::openapi) describes them all.
//!
//! ```
//! use evenkeel_core::{AnyStore, MemoryStore};
//! use evenkeel_flare::Flare;
//! use evenkeel_idempotency::{Idempotency, Scope};
//! use evenkeel_web_axum::{IdempotencyLayer, flare, openapi, operations, value};
//!
//! let store = AnyStore::from(MemoryStore::new());
//! let idempotency = Idempotency::new(store.clone());
//! let once = IdempotencyLayer::new(idempotency.clone(), value(Scope::Global));
//! let app = flare::Api::new(Flare::new(store.clone()))
//!     .idempotency(once)
//!     .router()
//!     .merge(operations::router(store, idempotency))
//!     .merge(openapi::router());
//! # let _ = app;
//! ```

mod about; // what this is, and whether it works
mod bulk; // many documents at once
mod documents; // publishing, reading and deleting them
mod inspect; // what became of them
mod ping; // test messages
mod precondition; // if-match and if-none-match
mod pull; // messages that are fetched
mod resources; // kinds of documents
mod subscription; // subscriptions in JSON
mod subscriptions; // creating, changing and ending them

use std::sync::Arc;

use axum::Router;
use evenkeel_core::{Clock, SystemClock};
use evenkeel_flare::net::{Sender, Transport};
use evenkeel_flare::{DocumentUrl, Flare};

use crate::access::Scope::{Admin, Publish, Read, Subscribe};
use crate::routes::{self, Bodies};
use crate::{IdempotencyLayer, Problem};

/// The API of `flare`, with the defaults.
pub fn router(flare: Flare) -> Router {
    Api::new(flare).router()
}

/// The API of a [`Flare`], to be configured.
#[derive(Clone, Debug)]
pub struct Api {
    service: Service,
    bodies: Bodies,
}

/// What handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    flare: Flare,
    clock: Arc<dyn Clock>,
    transport: Arc<dyn Transport>,
}

impl Api {
    /// With the defaults.
    #[must_use]
    pub fn new(flare: Flare) -> Self {
        let sender = Sender::builder().build().expect("without certificates of its own a sender is in order");
        let service = Service { flare, clock: SystemClock::shared(), transport: Arc::new(sender) };
        Self { service, bodies: Bodies::default() }
    }

    /// Honours an `Idempotency-Key` on POSTs by this layer's settings, but that a key may be missing
    /// and that the request's body is limited as this API says.
    ///
    /// An answer that has a secret is not kept, since it would be in clear: a retry of the request is
    /// answered 410 `answer-not-stored`, and nothing is done twice.
    #[must_use]
    pub fn idempotency(mut self, layer: IdempotencyLayer) -> Self {
        self.bodies.idempotency = Some(layer);
        self
    }

    /// Sends test messages through `transport`, as the workers send the others; one that sends to public
    /// addresses only unless set.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.service.transport = Arc::new(transport);
        self
    }

    /// The longest request body in bytes; a longer one is answered 413. 1 MiB unless set.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.bodies.limit = bytes;
        self
    }

    /// Measures the store's patience on this clock.
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
    about::about &[], Plain;
    about::health &[], Plain;
    about::ready &[], Plain;
    resources::list_resources &[Read, Admin], Plain;
    resources::create_resource &[Admin], Plain;
    resources::show_resource &[Read, Admin], Plain;
    resources::delete_resource &[Admin], Plain;
    subscriptions::list_subscriptions &[Read, Subscribe], Plain;
    subscriptions::subscribe &[Subscribe], Secret;
    subscriptions::show_subscription &[Read, Subscribe], Plain;
    subscriptions::unsubscribe &[Subscribe], Plain;
    subscriptions::pause &[Subscribe], Plain;
    subscriptions::resume &[Subscribe], Plain;
    subscriptions::disable &[Subscribe], Plain;
    subscriptions::recover &[Subscribe], Plain;
    ping::ping &[Subscribe], Plain;
    subscriptions::rotate_secret &[Subscribe], Secret;
    subscriptions::replay &[Subscribe], Plain;
    pull::pull &[Subscribe], Plain;
    pull::acknowledge &[Subscribe], Plain;
    pull::release &[Subscribe], Plain;
    inspect::list_deliveries &[Read, Subscribe], Plain;
    inspect::list_attempts &[Read, Subscribe], Plain;
    inspect::list_told &[Read, Subscribe], Plain;
    inspect::show_stats &[Read, Subscribe], Plain;
    inspect::list_notices &[Read, Subscribe, Admin], Plain;
    documents::read_document &[Read, Publish], Plain;
    documents::publish_document &[Publish], Plain;
    documents::delete_document &[Publish], Plain;
    bulk::publish_documents &[Publish], Plain;
}

/// Reads a document's URL as it may stand in a path or a query: as it is, percent-encoded whole, or
/// with the one slash that some proxies leave of two.
fn document_url(text: &str) -> Result<DocumentUrl, Problem> {
    let url = match text.split_once(":/") {
        Some((scheme, rest)) if !rest.starts_with('/') && !scheme.contains('/') => {
            DocumentUrl::parse(&format!("{scheme}://{rest}"))
        }
        _ => DocumentUrl::from_path(text),
    };
    Ok(url?)
}
