//! The store keeps the contract, on two emulators that were written independently.

mod fixture;

use fixture::{Dynamo, Moto};

evenkeel_testkit::conformance!(Dynamo, Moto);
