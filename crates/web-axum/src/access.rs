//! Who may call what.
//!
//! Every route needs a scope. A service's authentication puts the caller's [`Scopes`] among the
//! request's extensions, and a caller without a route's scope is answered 403. Where there are no
//! `Scopes` among them everything is allowed: for services that guard the whole router otherwise.
//!
//! ```
//! use axum::Extension;
//! use evenkeel_core::MemoryStore;
//! use evenkeel_flare::Flare;
//! use evenkeel_web_axum::access::{Scope, Scopes};
//! use evenkeel_web_axum::flare;
//!
//! let read_only = flare::router(Flare::new(MemoryStore::new())).layer(Extension(Scopes::from([Scope::Read])));
//! ```

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::Problem;

/// What a caller may do. None of them includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Publishes and deletes documents, appends events, and reads both.
    Publish,
    /// Creates, changes and ends subscriptions, fetches their messages, and sees how they fare.
    Subscribe,
    /// Reads everything of flare, runs, events and projections, and changes nothing.
    Read,
    /// Creates and deletes resources, starts and steers runs, steers projections, and sees and does what
    /// operators do.
    Admin,
}

/// The scopes of a caller, among a request's extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes {
    bits: u8,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Subscribe, Self::Read, Self::Admin];

    /// Its name: `publish`, `subscribe`, `read` or `admin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into()
    }

    /// Whether `scope` is among them.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.bits & bit(scope) != 0
    }
}

const fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self { bits: scopes.into_iter().fold(0, |bits, scope| bits | bit(scope)) }
    }
}

impl<const N: usize> From<[Scope; N]> for Scopes {
    fn from(scopes: [Scope; N]) -> Self {
        scopes.into_iter().collect()
    }
}

/// Lets a request through whose caller has one of `needed`.
pub(crate) async fn check(
    State(needed): State<&'static [Scope]>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let scopes = request.extensions().get::<Scopes>();
    if scopes.is_none_or(|scopes| needed.iter().any(|scope| scopes.has(*scope))) {
        return Ok(next.run(request).await);
    }
    let names: Vec<_> = needed.iter().map(|scope| scope.as_str()).collect();
    Err(Problem::forbidden(format!("the route needs the scope {}", names.join(" or "))))
}
