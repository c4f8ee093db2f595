use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Timestamp, Transactional};
use evenkeel_idempotency::{Idempotency, OnInterrupted, OnRunning, Scope};
use http::{HeaderName, Method, request, response};
use tower_layer::Layer;

use crate::Problem;
use crate::engine::Engine;
use crate::service::IdempotencyService;
use crate::settings::{Cookies, Finality, KeySyntax, MissingKey, OnUnavailable, Settings};

/// Puts [`Idempotency`] in front of a service: a request with a key runs once, and its retries get
/// the stored answer.
///
/// A layer is also its configuration: clone one with what routes share, and change the clone for a
/// route. What is said last wins, so a route's word goes before the shared one, and that before the
/// default. Most settings are functions of the request's head; [`value`](crate::value) makes one
/// of a constant. A function that fails answers the request with its [`Problem`].
///
/// ```
/// # use std::time::Duration;
/// # use axum::{Router, routing::post};
/// # use evenkeel_core::MemoryStore;
/// # use evenkeel_idempotency::{Idempotency, Scope};
/// use evenkeel_web_axum::{IdempotencyLayer, Problem, payload, value};
///
/// # async fn handler() {}
/// # let idempotency = Idempotency::new(MemoryStore::new());
/// let shared = IdempotencyLayer::new(idempotency, |parts| match parts.headers.get("x-api-key") {
///     Some(key) => Ok(Scope::Principal(String::from_utf8_lossy(key.as_bytes()).into_owned())),
///     None => Err(Problem::unauthenticated("send an x-api-key header")),
/// })
/// .expiration(value(Duration::from_secs(24 * 3600)));
///
/// let orders = shared.clone().payload(payload::canonical_json);
/// let app: Router = Router::new()
///     .route("/charges", post(handler).layer(shared))
///     .route("/orders", post(handler).layer(orders));
/// ```
///
/// A request that one layer protects already passes a second one untouched: the outer one's
/// settings hold. Give a route a changed clone *instead of* the shared layer.
#[derive(Clone, Debug)]
pub struct IdempotencyLayer {
    engine: Arc<dyn Engine>,
    settings: Arc<Settings>,
}

impl IdempotencyLayer {
    /// A layer with the [defaults](crate#defaults). Whose keys they are is a decision to make:
    /// `scope` finds the principal (a tenant, a user, an API key) of a request, or says
    /// [`Scope::Global`] out loud, by which one caller can be given what another caused.
    pub fn new<S: Transactional + Clone>(
        idempotency: Idempotency<S>,
        scope: impl Fn(&request::Parts) -> Result<Scope, Problem> + Send + Sync + 'static,
    ) -> Self {
        Self { engine: Arc::new(idempotency), settings: Arc::new(Settings::new(Arc::new(scope))) }
    }

    /// Whose keys they are.
    #[must_use]
    pub fn scope(
        self,
        scope: impl Fn(&request::Parts) -> Result<Scope, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.scope = Arc::new(scope))
    }

    /// Where the key is found, instead of in the headers; 1 to 255 printable characters, or none.
    #[must_use]
    pub fn key(
        self,
        key: impl Fn(&request::Parts) -> Result<Option<String>, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.key = Some(Arc::new(key)))
    }

    /// How the key must be written in its standard header.
    #[must_use]
    pub fn key_syntax(self, syntax: KeySyntax) -> Self {
        self.with(|settings| settings.key_syntax = syntax)
    }

    /// What to do with a request without a key.
    #[must_use]
    pub fn missing_key(self, policy: MissingKey) -> Self {
        self.with(|settings| settings.missing_key = policy)
    }

    /// What is asked for, instead of `[METHOD]/path`: the same key for another target is another
    /// operation.
    #[must_use]
    pub fn target(
        self,
        target: impl Fn(&request::Parts) -> Result<String, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.target = Arc::new(target))
    }

    /// What the operation lives beside, so that its transaction can write what lives there; see
    /// [`Operation::beside`](evenkeel_idempotency::Operation::beside).
    #[must_use]
    pub fn beside(
        self,
        name: impl Fn(&request::Parts) -> Result<String, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.beside = Some(Arc::new(name)))
    }

    /// What of the body a retry must repeat; the functions of [`payload`](crate::payload) are made
    /// for it. Method and target with query must be the same in any case.
    #[must_use]
    pub fn payload(
        self,
        payload: impl Fn(&request::Parts, &Bytes) -> Result<Bytes, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.payload = Arc::new(payload))
    }

    /// Headers that a retry must repeat.
    #[must_use]
    pub fn fingerprint_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|settings| settings.fingerprint_headers = names.into_iter().collect())
    }

    /// What the expiration counts from, instead of `X-Idempotency-Reference-Time` or the arrival.
    #[must_use]
    pub fn reference_time(
        self,
        time: impl Fn(&request::Parts) -> Result<Timestamp, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.reference_time = Some(Arc::new(time)))
    }

    /// How long the handler may run, instead of `X-Idempotency-Timeout`; zero is without end. Past
    /// it the handler is dropped, and the operation may run again.
    #[must_use]
    pub fn timeout(
        self,
        timeout: impl Fn(&request::Parts) -> Result<Duration, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.timeout = Some(Arc::new(timeout)))
    }

    /// How long after the reference time the operation expires, instead of
    /// `X-Idempotency-Expiration`; zero is never. Set it where clients are not trusted to say how
    /// long their answers are kept.
    #[must_use]
    pub fn expiration(
        self,
        expiration: impl Fn(&request::Parts) -> Result<Duration, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.expiration = Some(Arc::new(expiration)))
    }

    /// The methods that are protected; requests with another pass untouched.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with(|settings| settings.methods = methods.into_iter().collect())
    }

    /// The longest request body in bytes; a longer one is refused with 413.
    #[must_use]
    pub fn request_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.request_limit = bytes)
    }

    /// The longest answer in bytes, head included, that is stored, where the store has no smaller
    /// limit. A longer one is passed on once, marked `Idempotent-Stored: false`; retries are told
    /// so, and the handler does not run again.
    #[must_use]
    pub fn response_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.response_limit = bytes)
    }

    /// What to do while another attempt runs.
    #[must_use]
    pub fn on_running(self, policy: OnRunning) -> Self {
        self.with(|settings| settings.on_running = Some(policy))
    }

    /// What to do where the last attempt was cut off.
    #[must_use]
    pub fn on_interrupted(self, policy: OnInterrupted) -> Self {
        self.with(|settings| settings.on_interrupted = Some(policy))
    }

    /// What to do where the store cannot be reached when a request arrives. An answer that cannot
    /// be stored later is not given either way: its caller gets 503 and may ask again.
    #[must_use]
    pub fn on_unavailable(self, policy: OnUnavailable) -> Self {
        self.with(|settings| settings.on_unavailable = policy)
    }

    /// Whether `Set-Cookie` is replayed.
    #[must_use]
    pub fn cookies(self, cookies: Cookies) -> Self {
        self.with(|settings| settings.cookies = cookies)
    }

    /// What an answer means for the operation, instead of [`Finality::of`] its status.
    #[must_use]
    pub fn finality(self, judge: impl Fn(&response::Parts) -> Finality + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.finality = Arc::new(judge))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> IdempotencyService<S> {
        IdempotencyService::new(inner, Arc::clone(&self.engine), Arc::clone(&self.settings))
    }
}
