use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use evenkeel::core::Clock;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

/// The longest head of a request, in bytes, and how many headers it may have.
const HEAD: usize = 64 * 1024;
const HEADERS: usize = 100;

/// How long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(15);

/// How long nothing is accepted after the system could not, having too many files open for one.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the requests of whoever connects until `stop` completes; then takes no more connections,
/// and completes when the requests that are under way are answered.
///
/// Dropping the future leaves connections to themselves.
pub(crate) async fn listen(
    listener: TcpListener,
    app: Router,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()>,
) {
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_header_size(HEAD).max_headers(HEADERS);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok(stream) => {
                let service = TowerToHyperService::new(app.clone());
                let connection = http.serve_connection(TokioIo::new(stream), service);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no connection was accepted");
                clock.sleep(PAUSE).await;
            }
        }
    }
    // Before waiting: who connects now is refused, and goes to another server.
    drop(listener);
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    // An answer is written at once, and nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    Ok(stream)
}
