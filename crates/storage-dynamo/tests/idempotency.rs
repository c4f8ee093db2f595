//! Idempotency keeps its promises on this store.

mod fixture;

use fixture::{Dynamo, Moto};

evenkeel_testkit::idempotency_suite!(Dynamo, Moto);
