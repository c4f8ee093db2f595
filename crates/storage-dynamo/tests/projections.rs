//! Projections keep their promises on this store. The second emulator, which is to keep the first honest,
//! has nothing to say beyond what the conformance suite asks it, and takes its time.

#[allow(dead_code, reason = "the second emulator is not used here")]
mod fixture;

use fixture::Dynamo;

evenkeel_testkit::projections_suite!(Dynamo);
