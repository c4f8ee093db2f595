use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};

use crate::ledger::Ledger;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(50);

pub(crate) async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} in time"))
}

/// Processes on one store.
pub(crate) struct Branches {
    store: String,
    processes: Mutex<Vec<Child>>,
    /// Those that live, or did a moment ago.
    banks: watch::Sender<Vec<Bank>>,
    /// How many transfers were started.
    started: watch::Sender<usize>,
}

impl Branches {
    pub(crate) async fn open(store: &str, count: usize) -> Self {
        let (mut processes, mut banks) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (process, bank) = open(store).await;
            processes.push(process);
            banks.push(bank);
        }
        let (banks, started) = (watch::Sender::new(banks), watch::Sender::new(0));
        Self { store: store.to_owned(), processes: Mutex::new(processes), banks, started }
    }

    /// Any of them; it may just have been killed.
    pub(crate) fn any(&self) -> Bank {
        let banks = self.banks.borrow();
        banks[fastrand::usize(..banks.len())].clone()
    }

    pub(crate) fn started(&self) {
        self.started.send_modify(|started| *started += 1);
    }

    pub(crate) async fn until_started(&self, count: usize) {
        let mut started = self.started.subscribe();
        let reached = started.wait_for(|started| *started >= count);
        within_patience("transfers are started", reached).await.unwrap();
    }

    /// SIGKILL to one at random: no handler runs, nothing is flushed. Another one takes its place.
    pub(crate) async fn kill_and_open_one(&self) {
        let mut processes = self.processes.lock().await;
        let place = fastrand::usize(..processes.len());
        processes[place].kill().await.unwrap();
        let (process, bank) = open(&self.store).await;
        processes[place] = process;
        self.banks.send_modify(|banks| banks[place] = bank);
    }
}

/// Starts a process; it is killed when dropped.
async fn open(store: &str) -> (Child, Bank) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_example-bank"))
        .args(["--listen", "127.0.0.1:0", "--lease-ms", "1000"])
        .env("EVENKEEL_STORE", store)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let first = within_patience("the bank opens", lines.next_line()).await.unwrap();
    let first = first.expect("the bank says where it listens");
    let address = first.strip_prefix("listening on ").expect(&first);
    let url = address.split(',').next().unwrap().to_owned();
    // The pipe must stay open for the rest of what it prints.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (process, Bank { url, client: Client::builder(TokioExecutor::new()).build_http() })
}

/// Calls a process.
#[derive(Clone)]
pub(crate) struct Bank {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Bank {
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(crate) async fn ask(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, &Value::Null).await.unwrap()
    }

    /// Fails where the process goes away meanwhile.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value), Error> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value), Error> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        let asking = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let body = body.unwrap_or_default();
            let answer = serde_json::from_slice(&body);
            Ok((status, answer.unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)))))
        };
        within_patience(&format!("{path} is answered"), asking).await
    }

    /// Subscribes to the balances of accounts; the subscription's id.
    pub(crate) async fn subscribe(&self) -> String {
        let resource = self.get("/resources").await["resources"][0]["id"].clone();
        let path = format!("/resources/{}/subscriptions", resource.as_str().unwrap());
        let pulls = json!({ "delivery": { "mode": "pull" }, "backfill": true });
        let (status, answer) = self.post(&path, &pulls).await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Waits until these read models have all events.
    pub(crate) async fn caught_up<const N: usize>(&self, names: [&str; N]) {
        let waiting = async {
            for name in names {
                while self.ask(&format!("/projections/{name}")).await.1["lag"] != 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        within_patience("the read models catch up", waiting).await;
    }

    /// Waits until a version of a read model is the one to read.
    pub(crate) async fn is_read(&self, name: &str, version: u32) {
        let waiting = async {
            while self.get(&format!("/projections/{name}")).await["version"] != version {
                tokio::task::yield_now().await;
            }
        };
        within_patience("the new version is read", waiting).await;
    }

    /// Waits until a subscriber was told of the balances as they are, of none after a newer one.
    pub(crate) async fn told(&self, subscription: &str, ledger: &Ledger) {
        let (mut told, mut revisions) = (BTreeMap::new(), BTreeMap::new());
        let telling = async {
            while told != ledger.balances() {
                let pull = format!("/subscriptions/{subscription}/pull");
                let (_, pulled) = self.post(&pull, &json!({ "max": 40 })).await.unwrap();
                for message in pulled["messages"].as_array().unwrap_or_else(|| panic!("{pulled}")) {
                    let document = &message["body"]["document"];
                    let account = document["account"].as_str().unwrap().to_owned();
                    let revision = message["revision"].as_i64().unwrap();
                    let before = revisions.insert(account.clone(), revision);
                    assert!(before.is_none_or(|before| before <= revision), "{message}");
                    told.insert(account, document["balance"].as_i64().unwrap());
                    let receipt = json!({ "receipt": message["receipt"] });
                    let ack = format!("/subscriptions/{subscription}/ack");
                    let (status, answer) = self.post(&ack, &receipt).await.unwrap();
                    assert!([StatusCode::NO_CONTENT, StatusCode::CONFLICT].contains(&status), "{answer}");
                }
            }
        };
        within_patience("the subscriber is told", telling).await;
    }
}
