//! A server that speaks TLS, with a certificate of one's own making.

mod common;

use std::path::Path;
use std::process::Command;

use common::{assert_error, claim, exists, until};
use evenkeel_core::{ErrorKind, Signal, Store};
use evenkeel_storage_redis::{RedisConfig, RedisStore};
use evenkeel_testkit::services::Redis;
use tempfile::TempDir;

/// Whether there are a server and something that makes certificates.
fn available() -> Result<(), String> {
    Redis::available()?;
    let missing = |error| format!("openssl does not run: {error}");
    Command::new("openssl").arg("version").output().map(drop).map_err(missing)
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, and a certificate from it for this machine.
fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(path, &format!("req -x509 {new_key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(path, &format!("req {new_key} -subj /CN=localhost -keyout server.key -out server.csr"));
    std::fs::write(path.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    openssl(
        path,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
    folder
}

/// A server, and the port on which it speaks TLS.
fn start(certificates: &Path) -> (Redis, u16) {
    let file = |name: &str| certificates.join(name).display().to_string();
    let redis = common::redis(&[
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    (redis, std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

async fn a_server_is_reached_over_tls_and_known_by_its_certificate() {
    let certificates = certificates();
    let (redis, port) = start(certificates.path());
    let _: () = common::ask(&redis, &format!("CONFIG SET tls-port {port}")).await;
    let url = format!("rediss://localhost:{port}");
    let authority = std::fs::read(certificates.path().join("ca.pem")).unwrap();

    let stranger = RedisStore::open(&url).await.unwrap_err();
    assert!(matches!(stranger.kind(), ErrorKind::Config | ErrorKind::Unavailable), "{stranger:?}");

    let store = RedisConfig::new(&url).unwrap().root_certificate(authority).open().await.unwrap();
    let mut signals = store.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    store.commit(claim(&store, "a")).await.unwrap();
    assert!(exists(&store, "a").await);

    let _: i64 = common::ask(&redis, "CLIENT KILL TYPE normal").await;
    until("the connection is made again", async || store.commit(claim(&store, "b")).await.is_ok()).await;
}

async fn a_certificate_that_is_none_is_refused() {
    let config = RedisConfig::new("rediss://localhost:1").unwrap().root_certificate("what");
    assert_error(&config.open().await.unwrap_err(), ErrorKind::Config, "certificate");
    let certificates = certificates();
    let authority = std::fs::read(certificates.path().join("ca.pem")).unwrap();
    let config = RedisConfig::new("redis://localhost:1").unwrap().root_certificate(authority);
    assert_error(&config.open().await.unwrap_err(), ErrorKind::Config, "certificate");
}

evenkeel_testkit::server_tests! {
    "redis", available => [
        a_server_is_reached_over_tls_and_known_by_its_certificate,
        a_certificate_that_is_none_is_refused,
    ],
}
