//! Flare keeps its promises on this store, directly and through a proxy.

mod fixture;

use fixture::{Pg, PgBouncer};

evenkeel_testkit::flare_suite!(Pg, PgBouncer);
