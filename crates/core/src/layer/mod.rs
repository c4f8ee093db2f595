//! Wrappers that add something to any store and keep both of its doors.

mod retry;
mod trace;

pub use self::retry::{Retry, RetryStore};
pub use self::trace::{Trace, TraceStore};

/// Something that wraps a store into another.
pub trait Layer<S> {
    /// The wrapped store.
    type Store;

    /// Wraps `store`.
    fn layer(self, store: S) -> Self::Store;
}
