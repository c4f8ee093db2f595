//! The store keeps the contract, reached directly and through a proxy that pools transactions.

mod fixture;

use fixture::{Pg, PgBouncer};

evenkeel_testkit::conformance!(Pg, PgBouncer);
