use std::sync::Arc;

use tracing::{Instrument, Span, field};

use super::{Around, AroundStore, Call, Method};
use crate::clock::{Clock, SystemClock};
use crate::{Error, Result, Timestamp};

/// A tracing span and two metrics for every call.
///
/// | name | kind | fields or labels |
/// |---|---|---|
/// | `store` | span, level debug | `store`, `call`, `partition`, `outcome` |
/// | `evenkeel_store_calls_total` | counter | `store`, `call`, `outcome` |
/// | `evenkeel_store_call_seconds` | histogram, in seconds | `store`, `call` |
///
/// `call` is the method of the contract, `outcome` is `ok` or the error's kind. The metrics go to
/// the recorder that the application installed for the `metrics` crate; without one they cost
/// next to nothing.
#[derive(Clone, Debug)]
pub struct Trace {
    clock: Arc<dyn Clock>,
}

impl Default for Trace {
    /// Measures by the system clock.
    fn default() -> Self {
        Self { clock: SystemClock::shared() }
    }
}

impl Trace {
    /// Measures by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn record(&self, call: Call<'_>, span: &Span, began: Timestamp, error: Option<&Error>) {
        let (store, call) = (call.store.name, call.method.name());
        let outcome = error.map_or_else(|| "ok".to_owned(), |error| error.kind().to_string());
        span.record("outcome", &outcome);
        let seconds = self.clock.now().since(began).as_secs_f64();
        metrics::counter!("evenkeel_store_calls_total", "store" => store, "call" => call, "outcome" => outcome)
            .increment(1);
        metrics::histogram!("evenkeel_store_call_seconds", "store" => store, "call" => call).record(seconds);
    }
}

impl Around for Trace {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        // What begins is not connected yet, and what is rolled back has no outcome.
        if matches!(call.method, Method::Begin | Method::Rollback) {
            return made.await;
        }
        let (store, method, partition) = (call.store.name, call.method.name(), field::display(call.at));
        let span = tracing::debug_span!("store", store, call = method, partition, outcome = field::Empty);
        let began = self.clock.now();
        let result = made.instrument(span.clone()).await;
        self.record(call, &span, began, result.as_ref().err());
        result
    }
}

/// A store behind a [`Trace`] layer.
pub type TraceStore<S> = AroundStore<S, Trace>;
