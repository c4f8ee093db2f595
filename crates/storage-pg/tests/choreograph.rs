//! Runs keep their promises on this store, directly and through a proxy.

mod fixture;

use fixture::{Pg, PgBouncer};

evenkeel_testkit::choreograph_suite!(Pg, PgBouncer);
