//! Flare keeps its promises on this store, in a file and in memory.

mod fixture;

use fixture::{File, InMemory};

evenkeel_testkit::flare_suite!(File::default(), InMemory);
