//! Wrappers that add something to any store and keep both of its doors.

mod around; // the same around every call
mod retry; // what may be done again
mod trace; // what is measured

pub use self::around::{Around, AroundStore, Call, Method};
pub use self::retry::{Retry, RetryStore};
pub use self::trace::{Trace, TraceStore};

/// Something that wraps a store into another.
pub trait Layer<S> {
    /// The wrapped store.
    type Store;

    /// Wraps `store`.
    fn layer(self, store: S) -> Self::Store;
}
