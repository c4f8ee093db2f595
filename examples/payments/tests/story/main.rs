//! The story of the README, as real processes over real HTTP.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

/// A running service; killed when dropped.
struct Service {
    process: Child,
    client: Client,
}

impl Service {
    async fn start(folder: &TempDir) -> Self {
        let store = format!("sqlite://{}", folder.path().join("payments.db").display());
        let mut process = Command::new(env!("CARGO_BIN_EXE_example-payments"))
            .args(["--listen", "127.0.0.1:0", "--lease-ms", "3000", "--store", &store])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("the service says where it listens");
        let address = first.strip_prefix("listening on http://").expect(&first);
        let address = address.split(',').next().unwrap().to_owned();
        // The pipe must stay open for the rest of what it prints.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process, client: Client { address } }
    }

    async fn charge(&self, key: Option<&str>, path: &str, order: Value) -> Answer {
        self.client.charge(key, path, order).await.unwrap()
    }

    async fn charges(&self) -> Vec<Value> {
        let request = Request::get("/charges").body(Full::default()).unwrap();
        let answer = self.client.send(request).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

#[derive(Clone)]
struct Client {
    address: String,
}

impl Client {
    async fn charge(&self, key: Option<&str>, path: &str, order: Value) -> Result<Answer, hyper::Error> {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        self.send(request.body(Full::from(order.to_string())).unwrap()).await
    }

    /// Fails where the service goes away meanwhile.
    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        request.headers_mut().insert("host", self.address.parse().unwrap());
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { head: Response::from_parts(head, ()), body })
    }
}

struct Answer {
    head: Response<()>,
    body: Bytes,
}

impl Answer {
    fn status(&self) -> StatusCode {
        self.head.status()
    }

    fn is_replay(&self) -> bool {
        self.head.headers().get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    fn problem(&self) -> Value {
        assert_eq!(self.head.headers()["content-type"], "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn ada(cents: i64) -> Value {
    json!({ "customer": "ada", "cents": cents })
}

#[tokio::test]
async fn a_retry_is_answered_and_charges_nothing() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(&folder).await;

    let first = service.charge(Some("order-17"), "/charges", ada(1200)).await;
    let again = service.charge(Some("order-17"), "/charges", ada(1200)).await;

    assert_eq!((first.status(), first.is_replay()), (StatusCode::CREATED, false));
    assert_eq!((again.status(), again.is_replay()), (StatusCode::CREATED, true));
    assert_eq!(first.body, again.body);
    assert_eq!(service.charges().await.len(), 1);

    let other = service.charge(Some("order-17"), "/charges", ada(9900)).await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(other.problem()["title"].is_string());
    assert_eq!(service.charges().await.len(), 1);
}

#[tokio::test]
async fn a_charge_without_a_key_is_refused() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(&folder).await;
    let answer = service.charge(None, "/charges", ada(1200)).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.problem()["detail"].is_string());
    assert!(service.charges().await.is_empty());
}

#[tokio::test]
async fn a_refused_charge_is_refused_again_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(&folder).await;
    for is_replay in [false, true] {
        let answer = service.charge(Some("order-17"), "/charges", ada(-1)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.is_replay(), is_replay);
    }
    assert!(service.charges().await.is_empty());
}

/// Sends the same request twice at once: the charge that runs, and the answer of the other.
async fn two_at_once(service: &Service, key: &'static str, path: &'static str) -> (Running, Answer) {
    let send = || {
        let client = service.client.clone();
        tokio::spawn(async move { client.charge(Some(key), path, ada(1200)).await })
    };
    let (mut one, mut other) = (send(), send());
    let (answered, running) = tokio::select! {
        answered = &mut one => (answered, other),
        answered = &mut other => (answered, one),
    };
    (running, answered.unwrap().unwrap())
}

type Running = JoinHandle<Result<Answer, hyper::Error>>;

#[tokio::test]
async fn of_two_at_once_the_second_is_told_to_come_back() {
    let folder = TempDir::new().unwrap();
    let service = Service::start(&folder).await;

    let (running, answered) = two_at_once(&service, "order-18", "/charges?pause_ms=1000").await;

    assert_eq!(answered.status(), StatusCode::CONFLICT);
    assert!(answered.head.headers().contains_key("retry-after"));
    assert!(answered.problem()["title"].is_string());
    assert_eq!(running.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(service.charges().await.len(), 1);
}

#[tokio::test]
async fn killed_in_the_middle_and_retried_it_charges_once() {
    const SLOW: &str = "/charges?pause_ms=1500";
    let folder = TempDir::new().unwrap();
    let service = Service::start(&folder).await;

    let (running, _) = two_at_once(&service, "order-19", SLOW).await;
    // Each of these is answered at once, and leaves the other time to write its row.
    for _ in 0..5 {
        let answer = service.charge(Some("order-19"), SLOW, ada(1200)).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
    }
    service.kill().await;
    assert!(running.await.unwrap().is_err(), "the client never had an answer");

    let service = Service::start(&folder).await;
    assert!(service.charges().await.is_empty(), "what was not committed is gone");
    let charged = retry_while_running(&service.client, "order-19", SLOW).await;
    assert_eq!((charged.status(), charged.is_replay()), (StatusCode::CREATED, false));
    let again = service.charge(Some("order-19"), SLOW, ada(1200)).await;
    assert!(again.is_replay());
    assert_eq!(again.body, charged.body);
    assert_eq!(service.charges().await.len(), 1);

    service.kill().await;
    let service = Service::start(&folder).await;
    assert!(service.charge(Some("order-19"), SLOW, ada(1200)).await.is_replay(), "the answer is on disk");
}

#[tokio::test]
async fn two_servers_on_one_file_charge_once_per_key() {
    let folder = TempDir::new().unwrap();
    let servers = [Service::start(&folder).await, Service::start(&folder).await];

    let mut retrying = JoinSet::new();
    for n in 0..20 {
        for server in &servers {
            let client = server.client.clone();
            retrying.spawn(async move {
                let key = format!("order-{n}");
                retry_while_running(&client, &key, "/charges").await.body
            });
        }
    }
    let answers = retrying.join_all().await;

    let charges = servers[0].charges().await;
    assert_eq!(charges.len(), 20);
    for charge in charges {
        let answered = |body: &&Bytes| serde_json::from_slice::<Value>(body).unwrap() == charge;
        assert_eq!(answers.iter().filter(answered).count(), 2, "both servers answered with {charge}");
    }
}

/// Repeats the request until no other attempt runs: a dead one's lease has to lapse.
async fn retry_while_running(client: &Client, key: &str, path: &str) -> Answer {
    let retrying = async {
        loop {
            let answer = client.charge(Some(key), path, ada(1200)).await.unwrap();
            if answer.status() != StatusCode::CONFLICT {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), retrying).await.expect("the lease lapses")
}
