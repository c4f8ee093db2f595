use axum::extract::FromRequestParts;
use evenkeel_choreograph::{Choreographer, Run, RunState, Started};
use evenkeel_core::{ErrorKind, Store};
use evenkeel_idempotency::Identity;
use http::request::Parts;
use serde::Serialize;

use crate::Problem;
use crate::problem::Kind;
use crate::tx::Passage;

/// A protected request as a durable run, whose steps are recovery points: an axum extractor.
///
/// The run's id is a [digest](Identity::digest) of the operation that the request asks for, so every
/// retry of the request finds the same run. A retry after a crash waits for what is left of it,
/// instead of starting over, and no finished step runs again. That makes it right to retry what was
/// cut off, which is what [`Idempotency`](evenkeel_idempotency::Idempotency) does unless it is told
/// otherwise.
///
/// Steps run wherever a [worker](Choreographer::worker) knows the definition: here, or elsewhere on
/// the same store.
///
/// # Example
/// ```
/// use axum::extract::State;
/// use axum::{Json, Router, routing::post};
/// use evenkeel_choreograph::{Choreographer, Definition, RunState, StepKey};
/// use evenkeel_core::{AnyStore, MemoryStore};
/// use evenkeel_idempotency::{Idempotency, Scope};
/// use evenkeel_web_axum::{AsRun, IdempotencyLayer, Problem, value};
///
/// const RESERVE: StepKey<String> = StepKey::new("reserve");
/// const CHARGE: StepKey<String> = StepKey::new("charge");
///
/// async fn order(
///     State(choreographer): State<Choreographer>,
///     request: AsRun,
///     Json(item): Json<String>,
/// ) -> Result<String, Problem> {
///     let run = request.outcome(&choreographer, "order", &item).await?;
///     match (run.state, run.get(CHARGE)?) {
///         (RunState::Completed, Some(receipt)) => Ok(receipt),
///         // Not final, so not stored: the client may send the request again, and a failed run then
///         // goes on at its failed step.
///         (state, _) => Err(Problem::not_known(format!("the order is {state}"))),
///     }
/// }
///
/// # fn main() -> evenkeel_core::Result<()> {
/// let store = AnyStore::from(MemoryStore::new());
/// let choreographer = Choreographer::new(store.clone());
/// choreographer.register(
///     Definition::<String>::builder("order")
///         .step(RESERVE, async |ctx| Ok::<_, std::io::Error>(format!("one {}", ctx.input())))
///         .step(CHARGE, async |ctx| Ok::<_, std::io::Error>(format!("paid for by {}", ctx.idempotency_key())))
///         .build()?,
/// )?;
/// let once = IdempotencyLayer::new(Idempotency::new(store), value(Scope::Global));
/// let app: Router = Router::new().route("/orders", post(order).layer(once)).with_state(choreographer);
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsRun {
    id: String,
}

impl AsRun {
    /// The id of the request's run: 43 letters, digits, `-` and `_`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts the request's run where it does not exist yet, and waits until it has come to its end
    /// or is parked. Only an answer that is not final brings the request here again; then
    /// - a run that is under way is waited for;
    /// - one that failed goes on at its failed step, as by [`Choreographer::retry`];
    /// - one that ended otherwise has ended, and one that is parked is for a person to resume: the
    ///   outcome is the same again.
    ///
    /// The wait has no end of its own; the layer's [timeout](crate::IdempotencyLayer::timeout) gives
    /// it one. Dropping the future changes nothing: the run goes on.
    ///
    /// # Errors
    /// Those of [`Choreographer::start`] and [`Choreographer::outcome`], such as 409
    /// `already-exists` where the run was started with another input, which can only be where the
    /// operation was forgotten before its run.
    pub async fn outcome<S: Store + Clone>(
        self,
        choreographer: &Choreographer<S>,
        definition: &str,
        input: &impl Serialize,
    ) -> Result<Run, Problem> {
        let Self { id } = self;
        if choreographer.start(definition, &id, input).await? == Started::Existing {
            go_on(choreographer, &id).await?;
        }
        Ok(choreographer.outcome(&id).await?)
    }
}

async fn go_on<S: Store + Clone>(choreographer: &Choreographer<S>, id: &str) -> Result<(), Problem> {
    let has_failed = choreographer.inspect(id).await?.is_some_and(|run| run.state == RunState::Failed);
    if !has_failed {
        return Ok(());
    }
    match choreographer.retry(id).await {
        // Somebody else did so first.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        retried => Ok(retried?),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AsRun {
    type Rejection = Problem;

    /// # Errors
    /// 500 `run-refused` where no [`IdempotencyLayer`](crate::IdempotencyLayer) protects the request.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match (parts.extensions.get::<Identity>(), parts.extensions.get::<Passage>()) {
            (Some(operation), _) => Ok(Self { id: operation.digest() }),
            (None, Some(_)) => {
                Err(refused("the request is not protected: its method is not, or it has no key"))
            }
            (None, None) => Err(refused("no idempotency layer is in front of the handler")),
        }
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(Kind::RunRefused, detail)
}
