//! Idempotency keeps its promises on this store, directly and through a proxy.

mod fixture;

use fixture::{Pg, PgBouncer};

evenkeel_testkit::idempotency_suite!(Pg, PgBouncer);
