use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use bytes::Bytes;
use http::HeaderMap;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::common::process::{PATIENCE, Program, Server};

/// Takes whatever it is sent.
pub(crate) struct Sink {
    pub(crate) address: String,
    taken: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let take = {
            let taken = Arc::clone(&taken);
            move |headers: HeaderMap, body: Bytes| async move { taken.lock().unwrap().push((headers, body)) }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await.unwrap() });
        Self { address, taken }
    }

    pub(crate) fn taken(&self) -> Vec<(HeaderMap, Bytes)> {
        self.taken.lock().unwrap().clone()
    }
}

/// The lines of the README's walk-through: the shell block that says so.
fn walk_through() -> &'static str {
    let readme = include_str!("../../../../README.md");
    let after =
        readme.split_once("<!-- walk-through -->\n```sh\n").expect("the README has the walk-through").1;
    after.split_once("\n```").expect("the block ends").0
}

#[tokio::test]
async fn the_walk_through_of_the_readme_works_as_it_stands() {
    let sink = Sink::start().await;
    let server = Server::start(&["--allow-target", "127.0.0.0/8"]).await;
    let script = walk_through();
    for address in ["localhost:8080", "127.0.0.1:9000"] {
        assert!(script.contains(address), "{script}");
    }
    let script =
        script.replace("localhost:8080", &server.client.address).replace("127.0.0.1:9000", &sink.address);

    let bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, bash).await.expect("it ends").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));

    let gone = async {
        loop {
            let taken = sink.taken();
            if taken.len() >= 2 {
                return taken;
            }
            tokio::task::yield_now().await;
        }
    };
    let taken = timeout(PATIENCE, gone).await.expect("both are told");
    let actions: Vec<_> = taken
        .iter()
        .map(|(headers, body)| {
            assert!(headers.contains_key("webhook-signature"));
            let message: serde_json::Value = serde_json::from_slice(body).unwrap();
            message["action"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(actions, ["create", "delete"], "{printed}");
}

#[tokio::test]
async fn the_demonstration_converges_and_ends_by_itself() {
    let printed = Program::new(&["demo", "--seconds", "1"]).printed().await;
    assert!(printed.trim_end().ends_with("converged: yes"), "{printed}");
    for said in ["producer creates", "signature verified, answers 200", "healthy", "flaky"] {
        assert!(printed.contains(said), "{said}: {printed}");
    }
    assert!(!printed.contains("does not believe"), "{printed}");
}
