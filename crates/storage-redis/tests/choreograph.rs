//! Runs keep their promises on this store, on one server and on a cluster.

mod fixture;

use fixture::{Cluster, Single};

evenkeel_testkit::choreograph_suite!(Single, Cluster);
