use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A server that answers every request with the same bytes, whatever they are.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    seen: watch::Receiver<Seen>,
}

/// What a peer saw so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) closed: usize,
    pub(super) requests: Vec<String>,
}

/// What a peer does with a connection once it has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    ReadOn,
    Close,
    /// Reads one more request, and closes without an answer.
    HangUp,
}

impl Peer {
    pub(super) async fn start(answer: impl Into<Vec<u8>>, then: Then) -> Self {
        Self::listen(answer.into(), then, None).await
    }

    /// A peer with TLS, and the certificate, in PEM, that it is `localhost`.
    pub(super) async fn with_tls(answer: &str) -> (Self, String) {
        let CertifiedKey::<KeyPair> { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::listen(answer.into(), Then::ReadOn, Some(acceptor)).await, cert.pem())
    }

    async fn listen(answer: Vec<u8>, then: Then, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Seen::default());
        let answer = Arc::<[u8]>::from(answer);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sender.send_modify(|seen| seen.connections += 1);
                let (sender, answer, tls) = (sender.clone(), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, &answer, then, &sender).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, &answer, then, &sender).await;
                            }
                        }
                    }
                    sender.send_modify(|seen| seen.closed += 1);
                });
            }
        });
        Self { address, seen }
    }

    /// A URI of this peer, by its address.
    pub(super) fn uri(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// A URI of this peer, under another name for its address.
    pub(super) fn named(&self, scheme: &str, host: &str) -> Uri {
        format!("{scheme}://{host}:{}/", self.address.port()).parse().unwrap()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits for what the peer is to see, and fails where it does not come.
    pub(super) async fn until(&self, condition: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let wait = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(condition)).await;
        assert!(matches!(wait, Ok(Ok(_))), "the peer saw only {:?}", self.seen());
    }
}

/// Reads requests and answers them, until either side closes.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
    then: Then,
    seen: &watch::Sender<Seen>,
) {
    let mut answered = 0;
    while let Some(request) = read_request(&mut stream).await {
        seen.send_modify(|seen| seen.requests.push(request));
        if then == Then::HangUp && answered == 1 {
            return;
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
        answered += 1;
        if then == Then::Close {
            // A sender that is not told cannot know, with TLS or without.
            stream.shutdown().await.unwrap_or_default();
            return;
        }
    }
}

/// The next request, head and body; `None` where the connection ends.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() == length.parse::<usize>().unwrap() {
            return Some(text.into_owned());
        }
    }
}
