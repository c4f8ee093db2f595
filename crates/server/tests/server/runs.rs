use std::future::pending;

use evenkeel::choreograph::{Choreographer, Definition, StepKey};
use http::StatusCode;
use serde_json::json;

use crate::common::process::Server;

const APPROVE: StepKey<u32> = StepKey::new("approve");

#[tokio::test]
async fn runs_of_another_program_on_the_same_store_are_shown_and_steered() {
    let server = Server::start(&[]).await;
    let file = server.folder.path().join("evenkeel.db");
    let store = evenkeel::open(&format!("sqlite://{}", file.display())).await.unwrap();
    let program = Choreographer::new(store);
    let approvals =
        Definition::<String>::builder("approvals").wait_for_signal(APPROVE, None).build().unwrap();
    program.register(approvals).unwrap();
    program.start("approvals", "order-17", &"a book").await.unwrap();

    let listed = server.client.get("/runs?state=running").await.json();
    assert_eq!((&listed["runs"][0]["id"], listed["runs"].as_array().unwrap().len()), (&json!("order-17"), 1));
    let worker = tokio::spawn(program.worker().run(pending()));
    let signalled = server.client.post("/runs/order-17/signals/approve", json!(7)).await;
    assert_eq!(signalled.status, StatusCode::ACCEPTED, "{}", signalled.text());
    program.outcome("order-17").await.unwrap();
    let shown = server.client.get("/runs/order-17?wait=20").await.json();
    assert_eq!((&shown["state"], &shown["values"]), (&json!("completed"), &json!({"approve": 7})), "{shown}");
    worker.abort();

    let new = json!({"id": "order-18", "definition": "approvals", "input": "a pen"});
    let refused = server.client.post("/runs", new).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::NOT_FOUND, "not-found"));
    assert!(refused.text().contains("no such definition is registered"), "{}", refused.text());
}
