//! Flare keeps its promises on this store, on one server and on a cluster.

mod fixture;

use fixture::{Cluster, Single};

evenkeel_testkit::flare_suite!(Single, Cluster);
