use std::fmt;

use evenkeel::core::{Clock, SystemClock, Timestamp};

/// Says what happens, with how long after the beginning it did.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    begun: Timestamp,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self { begun: SystemClock.now() }
    }

    pub(super) fn say(&self, what: fmt::Arguments<'_>) {
        println!("{:5.2} s  {what}", SystemClock.now().since(self.begun).as_secs_f64());
    }
}
