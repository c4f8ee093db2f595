use evenkeel::core::{Namespace, Partition, Timestamp, Transactional};
use evenkeel::sqlite::SqliteStore;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::common::process::{PATIENCE, Program, Server};

/// A subscriber that decides by itself when it answers.
struct Subscriber(TcpListener);

/// A message that was not answered yet.
struct Message {
    from: TcpStream,
    id: String,
    body: String,
}

impl Subscriber {
    async fn next(&self) -> Message {
        timeout(PATIENCE, async {
            let (mut from, _) = self.0.accept().await.unwrap();
            let mut text = Vec::new();
            loop {
                assert!(from.read_buf(&mut text).await.unwrap() > 0, "the message is cut off");
                let text = std::str::from_utf8(&text).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let field = |name| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
                if body.len() == field("content-length: ").parse::<usize>().unwrap() {
                    let (id, body) = (field("webhook-id: "), body.to_owned());
                    return Message { from, id, body };
                }
            }
        })
        .await
        .expect("a message comes")
    }
}

impl Message {
    /// Says that it is taken, and waits until the server has read that, and hangs up.
    async fn accept(mut self) {
        let taken = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        self.from.write_all(taken).await.unwrap();
        let end = timeout(PATIENCE, self.from.read(&mut [0])).await.expect("the server hangs up");
        assert_eq!(end.unwrap(), 0);
    }
}

/// A server on the database at `store`.
async fn serve(store: &str) -> Server {
    let arguments = ["--listen", "127.0.0.1:0", "--store", store];
    let more = ["--lease", "1s", "--allow-target", "127.0.0.0/8"];
    Program::new(&[&arguments[..], &more].concat()).serve().await
}

#[tokio::test]
async fn a_message_that_was_taken_and_not_recorded_is_sent_again_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", folder.path().join("evenkeel.db").display());
    let subscriber = Subscriber(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut server = serve(&store).await;
    let resource =
        json!({ "endpoint": "https://shop.example/orders/{order}", "change": { "field": "version" } });
    let resource = server.client.post("/resources", resource).await.json();
    let subscription = json!({
        "endpoint": { "url": format!("http://{}/", subscriber.0.local_addr().unwrap()), "method": "POST" },
        "delivery": { "success": [200], "discard": [] },
    });
    let path = format!("/resources/{}/subscriptions", resource["id"].as_str().unwrap());
    let subscription = server.client.post(&path, subscription).await.json();
    let attempts = format!("/subscriptions/{}/attempts", subscription["id"].as_str().unwrap());

    // The first time by way of the queue; then past it, once the pump runs and is known to be of use.
    for orders in [&[17][..], &[18, 19, 20]] {
        let mut message = None::<Message>;
        for order in orders {
            if let Some(earlier) = message.take() {
                earlier.accept().await;
            }
            let document = format!("/documents/https://shop.example/orders/{order}");
            server.client.put(&document, json!({ "version": 1 })).await;
            message = Some(subscriber.next().await);
        }
        let message = message.unwrap();
        let (id, body) = (message.id.clone(), message.body.clone());

        // While another writes to the database, the server cannot record what the subscriber says.
        let other = SqliteStore::open(&store).await.unwrap();
        let mut writing =
            other.begin(Partition::new(Namespace::default(), 0), Timestamp::EPOCH).await.unwrap();
        writing.conn().await.unwrap();
        message.accept().await;
        server.kill().await;
        other.rollback(writing).await;
        drop(other);

        server = serve(&store).await;
        let again = subscriber.next().await;
        assert_eq!((&again.id, &again.body), (&id, &body));
        again.accept().await;
        let recorded = async {
            loop {
                let attempts = server.client.get(&attempts).await.json();
                let attempts = attempts["attempts"].as_array().unwrap();
                let count = attempts.iter().filter(|attempt| attempt["message"] == *id).count();
                if count > 0 {
                    return count;
                }
            }
        };
        assert_eq!(timeout(PATIENCE, recorded).await.expect("it is recorded"), 1);
    }
}
