//! The store keeps the contract, in a file and in memory.

mod fixture;

use fixture::{File, InMemory};

evenkeel_testkit::conformance!(File::default(), InMemory);
