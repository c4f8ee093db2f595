//! Projections keep their promises on this store, on one server and on a cluster.

mod fixture;
#[path = "fixture/notes.rs"]
mod notes;

use fixture::{Cluster, Single};

evenkeel_testkit::projections_suite!(Single, Cluster; natively Single);
