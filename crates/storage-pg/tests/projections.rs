//! Projections keep their promises on this store, directly and through a proxy.

mod fixture;
#[path = "fixture/notes.rs"]
mod notes;

use fixture::{Pg, PgBouncer};

evenkeel_testkit::projections_suite!(Pg, PgBouncer; natively Pg);
