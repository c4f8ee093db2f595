use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// What a run can keep: inputs, and the values of jobs and pre-checks.
///
/// Implemented for everything that serde reads and writes. In memory nothing is serialised; a
/// durable run keeps JSON.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept by a run",
    label = "neither an input nor the value of a step",
    note = "inputs and values implement `serde::Serialize`, `serde::de::DeserializeOwned`, `Send` and `Sync`"
)]
pub trait Value: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Value for T {}

/// The name of a step, with the type `T` of its job's value and `P` of its pre-check's.
///
/// ```
/// use evenkeel_choreograph::StepKey;
///
/// const RESERVE: StepKey<u32, String> = StepKey::new("reserve");
/// assert_eq!(RESERVE.name(), "reserve");
/// ```
pub struct StepKey<T, P = ()> {
    name: &'static str,
    types: PhantomData<fn() -> (T, P)>,
}

impl<T, P> StepKey<T, P> {
    /// A key; the name is taken exactly as it is, 1 to 200 bytes.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// The step's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T, P> Clone for StepKey<T, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, P> Copy for StepKey<T, P> {}

impl<T, P> fmt::Debug for StepKey<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StepKey").field(&self.name).finish()
    }
}

/// A value whose type only its key knows.
pub(crate) type Stored = Arc<dyn Any + Send + Sync>;

/// How values of one type are written and read; what serde needs, captured where the type is known.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) encode: fn(&Stored) -> serde_json::Result<Box<RawValue>>,
    pub(crate) decode: fn(&RawValue) -> serde_json::Result<Stored>,
}

impl Codec {
    pub(crate) const fn of<T: Value>() -> Self {
        Self {
            encode: |value| {
                let value = value.downcast_ref::<T>().expect("a value is encoded by its own type's codec");
                serde_json::value::to_raw_value(value)
            },
            decode: |json| Ok(Arc::new(serde_json::from_str::<T>(json.get())?)),
        }
    }
}
