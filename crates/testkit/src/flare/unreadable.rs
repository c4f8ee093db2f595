use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_core::layer::{Around, Call};
use evenkeel_core::{Error, ErrorKind, Result};

/// The records of one space cannot be got while the switch is on.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    pub(crate) space: &'static str,
    pub(crate) switch: Arc<AtomicBool>,
}

impl Around for Unreadable {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if self.switch.load(Ordering::SeqCst) && call.keys.iter().any(|key| key.space == self.space) {
            return Err(Error::new(ErrorKind::Corrupt, "a page cannot be read"));
        }
        made.await
    }
}
