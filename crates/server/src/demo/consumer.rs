use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use bytes::Bytes;
use evenkeel::core::{Clock, Result, SystemClock};
use evenkeel::flare::signing::{Secret, VerifyingKey, verify};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::failed;
use super::producer::Documents;
use super::stage::Stage;

/// How often a flaky consumer fails in a row at most: one that always fails is left alone for a while,
/// and this is to be over soon.
const FAILURES_IN_A_ROW: u32 = 3;

/// How a consumer fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Healthy,
    FailsHalfTheTime,
}

/// A service that wants to know of orders; gone when dropped.
#[derive(Debug)]
pub(super) struct Consumer {
    mind: Arc<Mind>,
    address: SocketAddr,
    secret: Secret,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Mind {
    name: &'static str,
    mood: Mood,
    key: VerifyingKey,
    stage: Stage,
    memory: Mutex<Memory>,
}

/// What a consumer was told.
#[derive(Debug, Default)]
struct Memory {
    documents: Documents,
    taken: u32,
    failed: u32,
    failed_in_a_row: u32,
    refused: u32,
}

/// What is in a message.
#[derive(Deserialize)]
struct Message {
    action: String,
    revision: i64,
}

impl Consumer {
    pub(super) async fn start(name: &'static str, mood: Mood, stage: Stage) -> Result<Self> {
        let no_port = |source: std::io::Error| failed("no free port", source);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(no_port)?;
        let address = listener.local_addr().map_err(no_port)?;
        let secret = Secret::generate();
        let mind =
            Arc::new(Mind { name, mood, key: secret.verifying_key(), stage, memory: Mutex::default() });
        let app = Router::new().route("/orders/{order}", post(hear)).with_state(Arc::clone(&mind));
        let serving = tokio::spawn(async move {
            // It fails only where the listener does, and then nothing converges.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { mind, address, secret, serving })
    }

    /// What it asks of the server: messages signed with its secret, and quick retries.
    pub(super) fn subscription(&self) -> Value {
        json!({
            "endpoint": { "url": format!("http://{}/orders/{{order}}", self.address), "method": "POST" },
            "delivery": {
                "success": [200],
                "discard": [410],
                "retry": { "interval": 0.3, "quantity": 1000 },
            },
            "secret": self.secret.to_string(),
        })
    }

    /// Whether it knows these documents in these revisions, and no other.
    pub(super) fn knows(&self, documents: &Documents) -> bool {
        self.mind.memory().documents == *documents
    }

    pub(super) fn summary(&self) -> impl fmt::Display {
        let Memory { documents, taken, failed, refused, .. } = &*self.mind.memory();
        format!(
            "{:<8} took {taken} messages, failed {failed} times, refused {refused}, knows {} orders",
            self.mind.name,
            documents.len()
        )
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Mind {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hear(
    State(mind): State<Arc<Mind>>,
    Path(order): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut memory = mind.memory();
    let genuine = verify(&headers, &body, std::slice::from_ref(&mind.key), SystemClock.now());
    let (Ok(_), Ok(message)) = (&genuine, serde_json::from_slice::<Message>(&body)) else {
        memory.refused += 1;
        mind.stage.say(format_args!("  {:<8} was sent {order} and does not believe it", mind.name));
        return StatusCode::BAD_REQUEST;
    };
    let Message { action, revision } = message;
    let fails =
        mind.mood == Mood::FailsHalfTheTime && memory.failed_in_a_row < FAILURES_IN_A_ROW && fastrand::bool();
    let status = if fails {
        memory.failed += 1;
        memory.failed_in_a_row += 1;
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        memory.taken += 1;
        memory.failed_in_a_row = 0;
        match action.as_str() {
            "delete" => memory.documents.remove(&order),
            _ => memory.documents.insert(order.clone(), revision),
        };
        StatusCode::OK
    };
    mind.stage.say(format_args!(
        "  {:<8} is told {action} {order} revision {revision:<3} signature verified, answers {}",
        mind.name,
        status.as_u16()
    ));
    status
}
