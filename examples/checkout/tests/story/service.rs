use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SIGKILL: i32 = 9;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running checkout; killed when dropped.
pub(crate) struct Checkout {
    process: Child,
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Checkout {
    pub(crate) async fn start(store: &str, payments: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_example-checkout"))
            .args(["--listen", "127.0.0.1:0", "--lease-ms", "1000", "--payments", payments])
            .args(arguments)
            .env("EVENKEEL_STORE", store)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("the checkout says where it listens");
        let address = first.strip_prefix("listening on ").expect(&first);
        let url = address.split(',').next().unwrap().to_owned();
        // The pipe must stay open for the rest of what it prints.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process, client: client(), url }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send(Method::GET, path, None).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, String) {
        self.send(Method::POST, path, Some(body)).await.unwrap()
    }

    /// Asks, of a checkout that may die before it answers.
    pub(crate) async fn post_to_the_dying(&self, path: &str, body: Value) {
        if let Ok((status, answer)) = self.send(Method::POST, path, Some(body)).await {
            assert_eq!(status, StatusCode::CREATED, "{answer}");
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, String), Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .unwrap();
        let asking = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            Ok((status, String::from_utf8(body.unwrap_or_default().to_vec()).unwrap()))
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} is answered in time"))
    }

    /// Waits until it has killed itself.
    pub(crate) async fn dies(mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("it dies").unwrap();
        assert_eq!(ended.signal(), Some(SIGKILL));
    }

    /// SIGKILL from outside: no handler runs, nothing is flushed.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Payments, in this process: nobody kills it.
pub(crate) struct Payments {
    pub(crate) url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Payments {
    pub(crate) async fn start() -> Self {
        let lease = Duration::from_secs(1);
        let (router, _) = example_payments::open("memory:", lease, std::future::pending()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, client: client() }
    }

    /// What was charged to a customer, and given back, in the order of size.
    pub(crate) async fn charged(&self, customer: &str) -> Vec<i64> {
        let asked = self.client.get(format!("{}/charges", self.url).parse().unwrap()).await.unwrap();
        let charges = asked.into_body().collect().await.unwrap().to_bytes();
        let charges: Vec<Value> = serde_json::from_slice(&charges).unwrap();
        let of_customer = charges.iter().filter(|charge| charge["customer"] == customer);
        let mut cents: Vec<_> = of_customer.map(|charge| charge["cents"].as_i64().unwrap()).collect();
        cents.sort_unstable();
        cents
    }
}
