use tempfile::TempDir;

use crate::common::process::Program;

/// A vault key as `keys vault` prints it.
async fn key(id: &str) -> String {
    let printed = Program::new(&["keys", "vault", "--id", id]).printed().await;
    printed.split('"').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_vault_key_can_be_replaced_without_new_secrets() {
    let folder = TempDir::new().unwrap();
    let store = format!("sqlite://{}", folder.path().join("evenkeel.db").display());
    let (old, new) = (key("old").await, key("new").await);
    let program = |command: &[&str], keys: &[&str]| {
        let keys = format!("store = '{store}'\nvault-keys = {keys:?}");
        Program::new(command).file("evenkeel.toml", &keys)
    };

    let server = program(&["serve", "--listen", "127.0.0.1:0"], &[&old]).serve().await;
    let resource = serde_json::json!({
        "endpoint": "https://shop.example/orders/{order}", "change": { "field": "v" }
    });
    let resource = server.client.post("/resources", resource).await.json()["id"].as_str().unwrap().to_owned();
    let subscription = serde_json::json!({
        "endpoint": { "url": "https://hooks.example/", "method": "POST" }, "delivery": { "success": [200] }
    });
    let path = format!("/resources/{resource}/subscriptions");
    assert_eq!(server.client.post(&path, subscription).await.status, 201);
    drop(server);

    // Too early: the doctor names what would be lost, and nothing is sealed that cannot be opened.
    let output = program(&["doctor"], &[&new]).run().await;
    let found = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert!(found.contains("the key of a sealed text is missing (key: old"), "{found}");
    let complaint = program(&["keys", "reseal"], &[&new]).complaint().await;
    assert!(complaint.contains("left as it is") && complaint.contains("key: old"), "{complaint}");

    let both = [new.as_str(), old.as_str()];
    let printed = program(&["keys", "reseal"], &both).printed().await;
    assert!(printed.contains("now: 1, as before: 0, left: 0"), "{printed}");
    let printed = program(&["keys", "reseal"], &both).printed().await;
    assert!(printed.contains("now: 0, as before: 1, left: 0"), "{printed}");
    let found = program(&["doctor"], &[&new]).printed().await;
    assert!(found.contains("subscriptions 1, of each of which messages can be made"), "{found}");
}

#[tokio::test]
async fn nothing_is_sealed_without_a_key() {
    let complaint = Program::new(&["keys", "reseal", "--store", "memory:"]).complaint().await;
    assert!(complaint.contains("there is no key to encrypt under (setting: vault-keys)"), "{complaint}");
}
