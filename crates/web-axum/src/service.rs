use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use evenkeel_core::ErrorKind as StoreErrorKind;
use evenkeel_idempotency::{Content, Error, ErrorKind, Lapse, Operation};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, request, response};
use http_body::Body as _;
use tower_service::Service;

use crate::answer;
use crate::body::{self, Body, Read, Whole};
use crate::carry::CarriedOn;
use crate::engine::{Attempt, Claimed, End, EndError, Engine};
use crate::headers::STORED;
use crate::problem::{Kind, Problem};
use crate::settings::{Finality, OnUnavailable, Settings};
use crate::tx::Passage;

/// A service behind an [`IdempotencyLayer`](crate::IdempotencyLayer).
///
/// A caller that goes away once the request was read undoes nothing: the handler goes on in a task
/// of its own, and its answer is stored.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    engine: Arc<dyn Engine>,
    settings: Arc<Settings>,
}

impl<S> IdempotencyService<S> {
    pub(crate) fn new(inner: S, engine: Arc<dyn Engine>, settings: Arc<Settings>) -> Self {
        Self { inner, engine, settings }
    }
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for IdempotencyService<S>
where
    S: Service<Request<Body<ReqB>>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    ReqB: http_body::Body<Data = Bytes> + Send + 'static,
    ReqB::Error: fmt::Display + Send,
    ResB: http_body::Body<Data = Bytes> + Send + 'static,
    ResB::Error: fmt::Display + Send,
{
    type Response = Response<Body<ResB>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body<ResB>>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        // The clone that is left has yet to become ready; the one that is, is called.
        let inner = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, inner);
        let protected = request.extensions().get::<Passage>() == Some(&Passage::Protected);
        if protected {
            return Box::pin(pass(inner, request.map(Body::untouched)));
        }
        if !self.settings.methods.contains(request.method()) {
            return Box::pin(pass(inner, unprotected(request.map(Body::untouched))));
        }
        let call = Call { inner, engine: Arc::clone(&self.engine), settings: Arc::clone(&self.settings) };
        Box::pin(call.answer(request))
    }
}

async fn pass<S, ReqB, ResB>(
    mut inner: S,
    request: Request<Body<ReqB>>,
) -> Result<Response<Body<ResB>>, S::Error>
where
    S: Service<Request<Body<ReqB>>, Response = Response<ResB>>,
{
    Ok(inner.call(request).await?.map(Body::untouched))
}

fn unprotected<B>(mut request: Request<B>) -> Request<B> {
    request.extensions_mut().insert(Passage::Unprotected);
    request
}

/// One request to be protected.
struct Call<S> {
    inner: S,
    engine: Arc<dyn Engine>,
    settings: Arc<Settings>,
}

impl<S> Call<S> {
    async fn answer<ReqB, ResB>(self, request: Request<ReqB>) -> Result<Response<Body<ResB>>, S::Error>
    where
        S: Service<Request<Body<ReqB>>, Response = Response<ResB>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        ReqB: http_body::Body<Data = Bytes> + Send + 'static,
        ReqB::Error: fmt::Display + Send,
        ResB: http_body::Body<Data = Bytes> + Send + 'static,
        ResB::Error: fmt::Display + Send,
    {
        let (parts, body) = request.into_parts();
        let operation = match self.settings.operation(&parts) {
            Ok(Some(operation)) => operation,
            Ok(None) => {
                let request = Request::from_parts(parts, Body::untouched(body));
                return pass(self.inner, unprotected(request)).await;
            }
            Err(problem) => return Ok(problem.into_http()),
        };
        let whole = match read_request(body, self.settings.request_limit).await {
            Ok(whole) => whole,
            Err(problem) => return Ok(problem.into_http()),
        };
        let operation = match self.settings.fingerprint(&parts, &whole.bytes) {
            Ok(fingerprint) => operation.fingerprint(fingerprint),
            Err(problem) => return Ok(problem.into_http()),
        };
        CarriedOn::new(self.claim(operation, parts, whole)).await
    }

    async fn claim<ReqB, ResB>(
        self,
        operation: Operation,
        mut parts: request::Parts,
        whole: Whole,
    ) -> Result<Response<Body<ResB>>, S::Error>
    where
        S: Service<Request<Body<ReqB>>, Response = Response<ResB>> + Send,
        S::Future: Send,
        S::Error: Send,
        ReqB: Send,
        ResB: http_body::Body<Data = Bytes> + Send,
        ResB::Error: fmt::Display + Send,
    {
        let identity = operation.identity().clone();
        match self.engine.claim(operation).await {
            Ok(Claimed::Run(attempt)) => {
                parts.extensions.insert(Passage::Protected);
                parts.extensions.insert(identity);
                Arc::clone(&attempt).offer(&mut parts.extensions);
                let request = Request::from_parts(parts, Body::whole(whole));
                let Self { inner, engine, settings } = self;
                Run { engine, settings, attempt }.run(inner, request).await
            }
            Ok(Claimed::Replay(answer)) => Ok(replay(&answer.content)),
            Err(error) if self.settings.runs_without(&error) => {
                tracing::warn!(%error, "a request runs unprotected");
                let request = unprotected(Request::from_parts(parts, Body::whole(whole)));
                Ok(mark_not_stored(pass(self.inner, request).await?))
            }
            Err(error) => Ok(refusal(&error)),
        }
    }
}

async fn read_request<B>(body: B, limit: usize) -> Result<Whole, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    match body::read(body, limit).await {
        Ok(Read::Whole(whole)) => Ok(whole),
        Ok(Read::TooLarge(_)) => {
            Err(Problem::new(Kind::BodyTooLarge, format!("the body has more than {limit} bytes")))
        }
        Err(error) => Err(Problem::new(Kind::BodyUnreadable, error.to_string())),
    }
}

/// An attempt that was won: the handler runs, and what came of it is recorded.
struct Run {
    engine: Arc<dyn Engine>,
    settings: Arc<Settings>,
    attempt: Arc<dyn Attempt>,
}

/// What came of the handler.
enum Handled<B> {
    /// Its answer is not final and is passed on as it comes.
    Released(Response<Body<B>>),
    /// Its answer is final and at hand.
    Final { end: fn(Content) -> End, content: Content, response: Response<Body<B>> },
    /// Its answer broke off.
    Broken(String),
}

impl Run {
    async fn run<S, ReqB, ResB>(
        self,
        mut inner: S,
        request: Request<Body<ReqB>>,
    ) -> Result<Response<Body<ResB>>, S::Error>
    where
        S: Service<Request<Body<ReqB>>, Response = Response<ResB>>,
        ResB: http_body::Body<Data = Bytes>,
        ResB::Error: fmt::Display,
    {
        let handled = {
            let handling = AssertUnwindSafe(async { Ok(self.gather(inner.call(request).await?).await) });
            let handling = handling.catch_unwind();
            tokio::select! {
                biased;
                handled = handling => handled,
                lapse = self.attempt.lapsed() => return Ok(self.lapse(lapse).await),
            }
        };
        match handled {
            Ok(Ok(Handled::Final { end, content, response })) => {
                Ok(self.finish(end(content), response).await)
            }
            Ok(Ok(Handled::Released(response))) => {
                self.fail(format!("answered {}", response.status())).await;
                Ok(response)
            }
            Ok(Ok(Handled::Broken(error))) => {
                self.fail(format!("the answer broke off: {error}")).await;
                Ok(Problem::new(Kind::AnswerUnreadable, Kind::AnswerUnreadable.advice()).into_http())
            }
            Ok(Err(error)) => {
                self.fail("the service failed".to_owned()).await;
                Err(error)
            }
            Err(panic) => {
                let message = panic_message(&*panic);
                tracing::error!(panic = message, "a handler panicked");
                self.fail(format!("the handler panicked: {message}")).await;
                Ok(Problem::new(Kind::HandlerPanicked, Kind::HandlerPanicked.advice()).into_http())
            }
        }
    }

    /// Reads the answer as far as it is to be stored.
    async fn gather<B>(&self, response: Response<B>) -> Handled<B>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let (mut parts, body) = response.into_parts();
        let end = match (self.settings.finality)(&parts) {
            Finality::Release => {
                return Handled::Released(Response::from_parts(parts, Body::untouched(body)));
            }
            Finality::Commit => End::Commit,
            Finality::RollBack => End::RollBack,
        };
        let limit = self.settings.response_limit.min(self.engine.answer_limit());
        let (content, body) = match body::read(body, limit).await {
            Ok(Read::Whole(whole)) => (self.content(&parts, &whole.bytes, limit), Body::whole(whole)),
            Ok(Read::TooLarge(body)) => {
                let hint = body.size_hint();
                (Content::NotStored { bytes: hint.exact().unwrap_or_else(|| hint.lower()) }, body)
            }
            Err(error) => return Handled::Broken(error.to_string()),
        };
        if matches!(content, Content::NotStored { .. }) {
            parts.headers.insert(STORED, HeaderValue::from_static("false"));
        }
        Handled::Final { end, content, response: Response::from_parts(parts, body) }
    }

    fn content(&self, parts: &response::Parts, body: &Bytes, limit: usize) -> Content {
        let stored = answer::encode(parts, body, self.settings.cookies);
        if stored.len() > limit {
            return Content::NotStored { bytes: u64::try_from(body.len()).unwrap_or(u64::MAX) };
        }
        Content::Stored(stored)
    }

    async fn finish<B>(&self, end: End, response: Response<Body<B>>) -> Response<Body<B>> {
        match self.attempt.end(end).await {
            Ok(Some(answer)) if matches!(answer.content, Content::NotStored { .. }) => {
                mark_not_stored(response)
            }
            Ok(_) => response,
            Err(EndError::Kept) => {
                tracing::error!("a handler kept its transaction beyond its end");
                Problem::new(Kind::TransactionKept, Kind::TransactionKept.advice()).into_http()
            }
            Err(EndError::Idempotency(error)) => refusal(&error),
        }
    }

    async fn fail(&self, message: String) {
        // The answer does not depend on it: what is not recorded lapses with the lease.
        if let Err(error) = self.attempt.end(End::Fail(message)).await {
            tracing::warn!(?error, "a failure was not recorded");
        }
    }

    async fn lapse<B>(&self, lapse: Lapse) -> Response<Body<B>> {
        let (kind, message) = match lapse {
            Lapse::TimedOut => (Kind::TimedOut, "timed out"),
            Lapse::Lost => (Kind::TakenOver, "lost its lease"),
        };
        self.fail(message.to_owned()).await;
        Problem::new(kind, kind.advice()).into_http()
    }
}

impl Settings {
    /// Whether a request runs without protection, given why it cannot have it.
    fn runs_without(&self, error: &Error) -> bool {
        let unavailable = matches!(
            error.kind(),
            ErrorKind::Store(StoreErrorKind::Unavailable | StoreErrorKind::OutcomeUnknown)
        );
        unavailable && self.on_unavailable == OnUnavailable::RunUnprotected
    }
}

fn replay<B>(content: &Content) -> Response<Body<B>> {
    match content {
        Content::Stored(stored) => answer::replay(stored).unwrap_or_else(|| {
            tracing::error!("a stored answer is unreadable");
            Problem::new(Kind::RecordCorrupt, Kind::RecordCorrupt.advice()).into_http()
        }),
        Content::NotStored { bytes } => {
            let detail = format!("{} ({bytes} bytes)", Kind::AnswerNotStored.advice());
            Problem::new(Kind::AnswerNotStored, detail).into_http()
        }
    }
}

fn refusal<B>(error: &Error) -> Response<Body<B>> {
    let problem = Problem::from(error);
    if problem.status().is_server_error() {
        tracing::warn!(%error, "a request was refused");
    }
    problem.into_http()
}

fn mark_not_stored<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(STORED, HeaderValue::from_static("false"));
    response
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
