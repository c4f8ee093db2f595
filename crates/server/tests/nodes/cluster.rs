use http::StatusCode;
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use crate::common::client::{Answer, Client};
use crate::common::process::Server;

/// How many servers there are.
const NODES: usize = 3;

/// Servers on one store.
pub(crate) struct Cluster {
    store: String,
    nodes: Mutex<Vec<Server>>,
    /// The addresses of those that run, or did a moment ago.
    clients: watch::Sender<Vec<Client>>,
    over: watch::Sender<bool>,
}

impl Cluster {
    pub(crate) async fn start(store: &str) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(node(store).await);
        }
        let clients = watch::Sender::new(nodes.iter().map(|node| node.client.clone()).collect());
        Self { store: store.to_owned(), nodes: Mutex::new(nodes), clients, over: watch::Sender::new(false) }
    }

    /// Any of them; it may just have been killed.
    pub(crate) fn any(&self) -> Client {
        let clients = self.clients.borrow();
        clients[fastrand::usize(..clients.len())].clone()
    }

    /// Creates something, and returns its id.
    pub(crate) async fn create(&self, path: &str, body: Value) -> String {
        let Answer { status, body, .. } = self.any().post(path, body).await;
        assert_eq!(status, StatusCode::CREATED, "{body:?}");
        serde_json::from_slice::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// SIGKILL to one at random: no handler runs, nothing is flushed. Another one takes its place.
    pub(crate) async fn kill_and_restart_one(&self) {
        let mut nodes = self.nodes.lock().await;
        let number = fastrand::usize(..nodes.len());
        nodes.swap_remove(number).kill().await;
        nodes.push(node(&self.store).await);
        self.clients.send_replace(nodes.iter().map(|node| node.client.clone()).collect());
    }

    pub(crate) fn end_of_kills(&self) {
        self.over.send_replace(true);
    }

    pub(crate) fn kills_are_over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }
}

async fn node(store: &str) -> Server {
    Server::start(&[
        "--store",
        store,
        "--lease",
        "2s",
        "--allow-target",
        "127.0.0.0/8",
        "--log-level",
        "warn",
    ])
    .await
}
