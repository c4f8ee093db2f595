//! Projections keep their promises on this store. The second emulator, which is to keep the first
//! honest, is asked for resource versions only: of the others it has nothing to say beyond what the
//! conformance suite asks it, and they take their time.

mod fixture;
#[path = "fixture/notes.rs"]
mod notes;

use fixture::{Dynamo, Moto};

evenkeel_testkit::suite!(projections: Dynamo; resource_versions: Moto; native_projections: Dynamo);
