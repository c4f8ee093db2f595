use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_core::Clock;
use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{AddressPolicy, Resolve, SendError, Waiting};

/// How connections are made.
#[derive(Debug)]
pub(super) struct Dialing {
    pub(super) policy: AddressPolicy,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) clock: Arc<dyn Clock>,
    /// For name, connection and TLS together.
    pub(super) limit: Duration,
}

/// Connects to what a URI names, with TLS where it says so, within the time limit.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    dialing: Arc<Dialing>,
    https: HttpsConnector<Dialer>,
}

impl Connector {
    pub(super) fn new(dialing: Dialing, tls: ClientConfig) -> Self {
        let dialing = Arc::new(dialing);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialer(Arc::clone(&dialing)));
        Self { dialing, https }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = SendError;
    type Future = BoxFuture<'static, Result<Self::Response, SendError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialing = Arc::clone(&self.dialing);
        let host = host_of(&uri).to_owned();
        let connecting = self.https.call(uri);
        Box::pin(async move {
            let deadline = dialing.clock.now() + dialing.limit;
            let Some(connected) = dialing.clock.timeout_at(deadline, connecting).await else {
                return Err(dialing.timed_out());
            };
            // What is not from the dialer happened after it: the handshake failed.
            connected.map_err(|error| match error.downcast::<SendError>() {
                Ok(error) => *error,
                Err(error) => SendError::Tls { host, reason: error.to_string() },
            })
        })
    }
}

/// Connects to an address that the policy allows.
///
/// hyper-util's own connector asks its resolver about names only, so that a literal address would
/// never be judged; here both take the same way.
#[derive(Clone, Debug)]
struct Dialer(Arc<Dialing>);

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = SendError;
    type Future = BoxFuture<'static, Result<Self::Response, SendError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialing = Arc::clone(&self.0);
        Box::pin(async move { dialing.dial(&uri).await.map(TokioIo::new) })
    }
}

impl Dialing {
    /// Tries the allowed addresses in order, each for its share of the time that is left, so that
    /// one that swallows packets does not keep the others from being tried.
    async fn dial(&self, uri: &Uri) -> Result<TcpStream, SendError> {
        let deadline = self.clock.now() + self.limit;
        let port = port_of(uri);
        let addresses = self.allowed_addresses(host_of(uri)).await?;
        let mut last = self.timed_out();
        for (tried, address) in (0..).zip(&addresses) {
            let address = SocketAddr::new(*address, port);
            let now = self.clock.now();
            let untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX) - tried;
            let share = deadline.since(now) / untried;
            last = match self.clock.timeout_at(now + share, connect(address)).await {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => SendError::Connect { address, reason: error.to_string() },
                None => self.timed_out(),
            };
        }
        Err(last)
    }

    /// The host's addresses that may be connected to; at least one.
    async fn allowed_addresses(&self, host: &str) -> Result<Vec<IpAddr>, SendError> {
        let dns = |reason| SendError::Dns { host: host.to_owned(), reason };
        let found = match host.parse() {
            Ok(literal) => vec![literal],
            Err(_) => self.resolver.resolve(host).await.map_err(|error| dns(error.to_string()))?,
        };
        let mut refusal = None;
        let mut allowed = found;
        allowed.retain(|address| match self.policy.judge(*address) {
            Ok(()) => true,
            Err(refused) => {
                refusal.get_or_insert(refused);
                false
            }
        });
        match refusal {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(refused) => Err(SendError::RefusedAddress(refused)),
            None => Err(dns("the answer is empty".to_owned())),
        }
    }

    fn timed_out(&self) -> SendError {
        SendError::TimedOut { waiting_for: Waiting::Connection, limit: self.limit }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A small request must not wait for the peer's acknowledgement of the one before.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The host, an IPv6 address without its brackets.
fn host_of(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn port_of(uri: &Uri) -> u16 {
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(usual)
}
