//! Projections keep their promises on this store.

mod fixture;

use fixture::{Dynamo, Moto};

evenkeel_testkit::projections_suite!(Dynamo, Moto);
