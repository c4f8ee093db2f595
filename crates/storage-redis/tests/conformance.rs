//! The store keeps the contract, on one server and on a cluster.

mod fixture;

use fixture::{Cluster, Single};

evenkeel_testkit::conformance!(Single, Cluster);
