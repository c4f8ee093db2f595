//! Runs keep their promises on this store, in a file and in memory.

mod fixture;

use fixture::{File, InMemory};

evenkeel_testkit::choreograph_suite!(File::default(), InMemory);
