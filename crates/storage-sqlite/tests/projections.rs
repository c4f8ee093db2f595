//! Projections keep their promises on this store, in a file and in memory.

mod fixture;
#[path = "fixture/notes.rs"]
mod notes;

use fixture::{File, InMemory};

evenkeel_testkit::projections_suite!(File::default(), InMemory; natively File::default());
