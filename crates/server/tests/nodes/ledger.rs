use std::collections::{BTreeMap, HashMap};

use axum::Router;
use axum::extract::Path;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::common::process::PATIENCE;

/// How a subscriber fares.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Steady,
    FailsEveryThird,
}

/// Notes what it is told, and what it should not have been told.
pub(crate) struct Subscriber {
    address: String,
    ledger: watch::Sender<Ledger>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// How many messages came, those that were not taken included.
    pub(crate) told: usize,
    /// The revisions that the subscriber knows; documents that are gone are not in it.
    pub(crate) newest: BTreeMap<String, i64>,
    /// The newest revision that a message was about, taken or not.
    highest: HashMap<String, i64>,
    bodies: HashMap<String, Bytes>,
    violations: Vec<String>,
}

#[derive(Deserialize)]
struct Message {
    action: String,
    revision: i64,
}

impl Subscriber {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ledger = watch::Sender::new(Ledger::default());
        let noting = ledger.clone();
        let hear = async move |Path(document): Path<String>, headers: HeaderMap, body: Bytes| {
            let mut status = StatusCode::OK;
            noting.send_modify(|ledger| {
                ledger.told += 1;
                if mood == Mood::FailsEveryThird && ledger.told.is_multiple_of(3) {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                }
                let id = headers["webhook-id"].to_str().unwrap();
                ledger.note(document, id, &body, status);
            });
            status
        };
        let app = Router::new().route("/{document}", post(hear));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, ledger }
    }

    pub(crate) fn subscription(&self) -> Value {
        json!({
            "endpoint": { "url": format!("http://{}/{{document}}", self.address), "method": "POST" },
            "delivery": {
                "success": [200],
                "discard": [410],
                "retry": { "interval": 0.2, "quantity": 1000 },
            },
        })
    }

    pub(crate) fn told(&self) -> usize {
        self.ledger.borrow().told
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.ledger.borrow().violations.clone()
    }

    pub(crate) async fn wait_until(&self, condition: impl Fn(&Ledger) -> bool) {
        let mut ledger = self.ledger.subscribe();
        let met = timeout(PATIENCE, ledger.wait_for(|ledger| condition(ledger))).await.is_ok();
        let ledger = self.ledger.borrow();
        assert!(met, "told {}, knows {:?}, {:?}", ledger.told, ledger.newest, ledger.violations);
    }
}

impl Ledger {
    fn note(&mut self, document: String, id: &str, body: &Bytes, status: StatusCode) {
        let Message { action, revision } = serde_json::from_slice(body).unwrap();
        let highest = self.highest.entry(document.clone()).or_insert(revision);
        if revision < *highest {
            self.violations.push(format!("{document} went back from {highest} to {revision}"));
        }
        *highest = revision.max(*highest);
        let first = self.bodies.entry(id.to_owned()).or_insert_with(|| body.clone());
        if first != body {
            self.violations.push(format!("{id} has two bodies: {first:?} and {body:?}"));
        }
        if status.is_success() {
            match action.as_str() {
                "delete" => self.newest.remove(&document),
                _ => self.newest.insert(document, revision),
            };
        }
    }
}

/// What the stories rest on: each of these would be a broken promise.
pub(crate) async fn the_ledger_notices_what_must_not_happen() {
    let mut ledger = Ledger::default();
    let mut note = |id: &str, body: &'static str| {
        ledger.note("17".to_owned(), id, &Bytes::from_static(body.as_bytes()), StatusCode::OK);
        ledger.violations.len()
    };
    let [one, two] = [r#"{"action":"create","revision":1}"#, r#"{"action":"update","revision":2}"#];
    assert_eq!([note("a", one), note("a", one), note("b", two), note("b", two)], [0; 4]);
    assert_eq!(note("a", one), 1, "it goes back");
    assert_eq!(note("a", two), 2, "one id has two bodies");
}
