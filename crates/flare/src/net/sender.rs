use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock, Timestamp};
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::connector::{Connector, Dialing};
use super::{AddressPolicy, Outgoing, Reply, Resolve, SendError, SystemResolver, Transport, Waiting};

/// How much of an answer's body is kept.
const KEPT_BODY: usize = 16 * 1024;

/// The most that is read ahead of a peer, hence also how long an answer's head may be.
const READ_AHEAD: usize = 32 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));

/// Sends requests over HTTP/1.1, with or without TLS, and keeps connections for the next one.
///
/// One sender serves all targets; its clones share its connections. Its time limits are kept by
/// its [`Clock`]; only the closing of idle connections goes by the machine's.
///
/// A request that a kept connection could not even begin to carry, because the peer had closed it,
/// is sent on another one: the peer saw nothing of it. Where it had begun, the peer may have acted
/// on it, and the request fails: only the caller knows whether, when and under which attempt it may
/// be repeated. That is rare, because a connection is not used again when it was idle for four
/// seconds, and common servers close theirs after five or more.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client<Connector, Full<Bytes>>,
    clock: Arc<dyn Clock>,
    limit: Duration,
}

/// The settings of a [`Sender`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SenderBuilder {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    clock: Arc<dyn Clock>,
    limit: Duration,
    connect_limit: Duration,
    idle_limit: Duration,
    idle_connections: usize,
    trusted: Vec<Vec<u8>>,
}

impl Sender {
    /// Settings to begin with: public addresses only, 15 seconds a request.
    pub fn builder() -> SenderBuilder {
        SenderBuilder {
            policy: AddressPolicy::default(),
            resolver: Arc::new(SystemResolver),
            clock: SystemClock::shared(),
            limit: Duration::from_secs(15),
            connect_limit: Duration::from_secs(5),
            idle_limit: Duration::from_secs(4),
            idle_connections: 256,
            trusted: Vec::new(),
        }
    }

    async fn exchange(&self, outgoing: Outgoing, begun: Timestamp) -> Result<Reply, SendError> {
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.uri;
        *request.headers_mut() = outgoing.headers;
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);

        let response = self.client.request(request).await.map_err(|error| without_answer(&error))?;
        let (head, body) = response.into_parts();
        let asked_to_wait = head.headers.get(RETRY_AFTER);
        let retry_after = asked_to_wait.and_then(|value| retry_after(value, self.clock.now()));
        let body = beginning_of(body).await?;
        let took = self.clock.now().since(begun);
        Ok(Reply { status: head.status.as_u16(), retry_after, body, took })
    }
}

#[async_trait]
impl Transport for Sender {
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError> {
        let begun = self.clock.now();
        let answered = self.clock.timeout_at(begun + self.limit, self.exchange(outgoing, begun)).await;
        answered.unwrap_or(Err(SendError::TimedOut { waiting_for: Waiting::Answer, limit: self.limit }))
    }
}

impl SenderBuilder {
    /// Which addresses requests may go to.
    pub fn policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Who looks names up; the operating system if not set.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// What time limits are kept by, and what a `Retry-After` date is compared with.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long a request may take in all, to the end of the answer: 15 seconds if not set.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How long a connection may take to be made, looking up the name and TLS included: 5 seconds
    /// if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// How long a connection is kept for the next request: 4 seconds if not set.
    pub fn keep_idle(mut self, limit: Duration) -> Self {
        self.idle_limit = limit;
        self
    }

    /// How many connections to one target (scheme, host and port) are kept: 256 if not set.
    pub fn idle_per_target(mut self, connections: usize) -> Self {
        self.idle_connections = connections;
        self
    }

    /// Certificates, in PEM, of authorities that are trusted beside the public ones.
    pub fn trust(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trusted.push(pem.into());
        self
    }

    /// # Errors
    /// `Config` where what is to be trusted is no certificate.
    pub fn build(self) -> Result<Sender> {
        let tls = tls_config(&self.trusted)?;
        let dialing = Dialing {
            policy: self.policy,
            resolver: self.resolver,
            clock: Arc::clone(&self.clock),
            limit: self.connect_limit,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle_limit)
            .pool_max_idle_per_host(self.idle_connections)
            .http1_max_buf_size(READ_AHEAD)
            .retry_canceled_requests(true)
            .build(Connector::new(dialing, tls));
        Ok(Sender { client, clock: self.clock, limit: self.limit })
    }
}

fn tls_config(trusted: &[Vec<u8>]) -> Result<ClientConfig> {
    let invalid = |message| Error::new(ErrorKind::Config, message).with("setting", "trusted certificates");
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for pem in trusted {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|source| invalid("this is not PEM").with_source(source))?;
            roots.add(certificate).map_err(|source| invalid("this is no certificate").with_source(source))?;
        }
        if roots.len() == before {
            return Err(invalid("there is no certificate in it"));
        }
    }
    // Named, because another crate in the same program may bring a second provider along.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for the default versions of TLS");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What the connector said, or what hyper did.
fn without_answer(error: &hyper_util::client::legacy::Error) -> SendError {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<SendError>()) {
        Some(error) => error.clone(),
        None => SendError::protocol(source.unwrap_or(error)),
    }
}

/// The first [`KEPT_BODY`] bytes. Where there are more, nothing further is read: the connection is
/// then of no more use and closed.
async fn beginning_of(mut body: Incoming) -> Result<Bytes, SendError> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| SendError::protocol(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = KEPT_BODY - kept.len();
        if data.len() > room {
            kept.extend_from_slice(&data[..room]);
            break;
        }
        kept.extend_from_slice(data);
    }
    Ok(kept.freeze())
}

/// `Retry-After` in both its forms (RFC 9110, 10.2.3): seconds, or a date; a date that is past
/// asks for no wait. What is neither asks for nothing.
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((Timestamp::EPOCH + since_epoch).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // 1994-11-06T08:49:37Z
        let now = Timestamp::from_micros(784_111_777_000_000);
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            let found = retry_after(&HeaderValue::from_static(value), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_a_configuration_error() {
        for pem in [
            "",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            let error = Sender::builder().trust(pem).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("setting: trusted certificates"), "{error}");
        }
    }
}
