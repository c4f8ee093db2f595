//! Flare keeps its promises on this store. The second emulator, which is to keep the first honest,
//! has nothing to say beyond what the conformance suite asks it, and takes its time.

mod fixture;

use fixture::Dynamo;

evenkeel_testkit::flare_suite!(Dynamo);
