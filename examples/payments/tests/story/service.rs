use std::process::Stdio;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::home::Home;

impl Home {
    /// Starts a service on it.
    pub(crate) async fn serve(&self) -> Service {
        Service::start(&self.url).await
    }
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    process: Child,
    pub(crate) client: Client,
}

impl Service {
    async fn start(store: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_example-payments"))
            .args(["--listen", "127.0.0.1:0", "--lease-ms", "3000"])
            .env("EVENKEEL_STORE", store)
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

    pub(crate) async fn charge(&self, key: Option<&str>, path: &str, order: Value) -> Answer {
        self.client.charge(key, path, order).await.unwrap()
    }

    pub(crate) async fn charges(&self) -> Vec<Value> {
        let request = Request::get("/charges").body(Full::default()).unwrap();
        let answer = self.client.send(request).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    address: String,
}

impl Client {
    pub(crate) async fn charge(
        &self,
        key: Option<&str>,
        path: &str,
        order: Value,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        self.send(request.body(Full::from(order.to_string())).unwrap()).await
    }

    /// Fails where the service goes away meanwhile.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        request.headers_mut().insert("host", self.address.parse().unwrap());
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { head: Response::from_parts(head, ()), body })
    }
}

pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.head.headers().get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.head.headers()["content-type"], "application/problem+json");
        serde_json::from_slice(&self.body).unwrap()
    }
}
