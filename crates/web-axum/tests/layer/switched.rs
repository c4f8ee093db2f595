use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use evenkeel_core::layer::{Around, AroundStore, Call, Method};
use evenkeel_core::{Error, ErrorKind, MemoryStore, Result, StoreExt};

/// A memory store that can be switched off or made to hang, and that counts the transactions begun.
pub(crate) type Switched = AroundStore<MemoryStore, Switch>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    pub(crate) off: Arc<AtomicBool>,
    /// Whether reading a record never comes to an end.
    pub(crate) hangs: Arc<AtomicBool>,
    pub(crate) begun: Arc<AtomicUsize>,
}

impl Switch {
    pub(crate) fn store(&self) -> Switched {
        MemoryStore::new().layer(self.clone())
    }

    pub(crate) fn turn_off(&self) {
        self.off.store(true, Ordering::SeqCst);
    }

    pub(crate) fn turn_on(&self) {
        self.off.store(false, Ordering::SeqCst);
    }
}

impl Around for Switch {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match call.method {
            Method::Get if self.hangs.load(Ordering::SeqCst) => pending().await,
            Method::Begin => {
                self.begun.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        if self.off.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "switched off"));
        }
        made.await
    }
}
