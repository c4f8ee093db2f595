//! Every promise on the memory store, as it is and behind layers.

use evenkeel_testkit::{Layered, Memory};

evenkeel_testkit::idempotency_suite!(Memory::seeds(1200), Layered);
