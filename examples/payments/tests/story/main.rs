//! The story of the README, as real processes over real HTTP, on every store.

mod home; // where a story's charges are kept
mod service; // the service and its clients

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_testkit::Suite;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::home::{Home, Store};
use crate::service::{Answer, Client, Service};

fn main() -> ExitCode {
    let mut suite = Suite::default();
    for store in Store::ALL {
        for (name, needs, story) in STORIES {
            if needs == Needs::Anything || store != Store::Memory {
                suite.own(store.name(), store.available(), name, move || async move {
                    story(Home::on(store).await).await;
                });
            }
        }
    }
    suite.run()
}

/// What a story needs of its store.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Anything,
    /// That it outlives the service and is shared by several.
    ALifeOfItsOwn,
}

type Story = fn(Home) -> BoxFuture<'static, ()>;

macro_rules! stories {
    ($($needs:ident: $story:ident),+ $(,)?) => {
        [$((stringify!($story), Needs::$needs, (|home| Box::pin($story(home))) as Story)),+]
    };
}

const STORIES: [(&str, Needs, Story); 7] = stories![
    Anything: a_retry_is_answered_and_charges_nothing,
    Anything: a_charge_without_a_key_is_refused,
    Anything: a_refund_takes_a_charge_back_once,
    Anything: a_refused_charge_is_refused_again_and_leaves_nothing,
    Anything: of_two_at_once_the_second_is_told_to_come_back,
    ALifeOfItsOwn: killed_in_the_middle_and_retried_it_charges_once,
    ALifeOfItsOwn: two_servers_on_one_store_charge_once_per_key,
];

fn ada(cents: i64) -> Value {
    json!({ "customer": "ada", "cents": cents })
}

async fn a_retry_is_answered_and_charges_nothing(home: Home) {
    let service = home.serve().await;

    let first = service.charge(Some("order-17"), "/charges", ada(1200)).await;
    let again = service.charge(Some("order-17"), "/charges", ada(1200)).await;

    assert_eq!((first.status(), first.is_replay()), (StatusCode::CREATED, false));
    assert_eq!((again.status(), again.is_replay()), (StatusCode::CREATED, true));
    assert_eq!(first.body, again.body);
    assert_eq!(service.charges().await.len(), 1);

    let other = service.charge(Some("order-17"), "/charges", ada(9900)).await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(other.problem()["title"].is_string());
    assert_eq!(service.charges().await.len(), 1);
}

async fn a_charge_without_a_key_is_refused(home: Home) {
    let service = home.serve().await;
    let answer = service.charge(None, "/charges", ada(1200)).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.problem()["detail"].is_string());
    assert!(service.charges().await.is_empty());
}

async fn a_refund_takes_a_charge_back_once(home: Home) {
    let service = home.serve().await;
    service.charge(Some("order-17"), "/charges", ada(1200)).await;

    for is_replay in [false, true] {
        let answer = service.charge(Some("return-17"), "/refunds", ada(1200)).await;
        assert_eq!((answer.status(), answer.is_replay()), (StatusCode::CREATED, is_replay));
    }

    let charges = service.charges().await;
    let mut cents: Vec<_> = charges.iter().map(|charge| charge["cents"].as_i64().unwrap()).collect();
    cents.sort_unstable();
    assert_eq!(cents, [-1200, 1200]);
}

async fn a_refused_charge_is_refused_again_and_leaves_nothing(home: Home) {
    let service = home.serve().await;
    for is_replay in [false, true] {
        let answer = service.charge(Some("order-17"), "/charges", ada(-1)).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.is_replay(), is_replay);
    }
    assert!(service.charges().await.is_empty());
}

/// Sends the same request twice at once: the charge that runs, and the answer of the other.
async fn two_at_once(service: &Service, key: &'static str, path: &'static str) -> (Running, Answer) {
    let send = || {
        let client = service.client.clone();
        tokio::spawn(async move { client.charge(Some(key), path, ada(1200)).await })
    };
    let (mut one, mut other) = (send(), send());
    let (answered, running) = tokio::select! {
        answered = &mut one => (answered, other),
        answered = &mut other => (answered, one),
    };
    (running, answered.unwrap().unwrap())
}

type Running = JoinHandle<Result<Answer, hyper::Error>>;

async fn of_two_at_once_the_second_is_told_to_come_back(home: Home) {
    let service = home.serve().await;

    let (running, answered) = two_at_once(&service, "order-18", "/charges?pause_ms=1000").await;

    assert_eq!(answered.status(), StatusCode::CONFLICT);
    assert!(answered.head.headers().contains_key("retry-after"));
    assert!(answered.problem()["title"].is_string());
    assert_eq!(running.await.unwrap().unwrap().status(), StatusCode::CREATED);
    assert_eq!(service.charges().await.len(), 1);
}

async fn killed_in_the_middle_and_retried_it_charges_once(home: Home) {
    const SLOW: &str = "/charges?pause_ms=1500";
    let service = home.serve().await;

    let (running, _) = two_at_once(&service, "order-19", SLOW).await;
    // Each of these is answered at once, and leaves the other time to write its row.
    for _ in 0..5 {
        let answer = service.charge(Some("order-19"), SLOW, ada(1200)).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
    }
    service.kill().await;
    assert!(running.await.unwrap().is_err(), "the client never had an answer");

    let service = home.serve().await;
    assert!(service.charges().await.is_empty(), "what was not committed is gone");
    let charged = retry_while_running(&service.client, "order-19", SLOW).await;
    assert_eq!((charged.status(), charged.is_replay()), (StatusCode::CREATED, false));
    let again = service.charge(Some("order-19"), SLOW, ada(1200)).await;
    assert!(again.is_replay());
    assert_eq!(again.body, charged.body);
    assert_eq!(service.charges().await.len(), 1);

    service.kill().await;
    let service = home.serve().await;
    assert!(service.charge(Some("order-19"), SLOW, ada(1200)).await.is_replay(), "the answer is on disk");
}

async fn two_servers_on_one_store_charge_once_per_key(home: Home) {
    let servers = [home.serve().await, home.serve().await];

    let mut retrying = JoinSet::new();
    for n in 0..20 {
        for server in &servers {
            let client = server.client.clone();
            retrying.spawn(async move {
                let key = format!("order-{n}");
                retry_while_running(&client, &key, "/charges").await.body
            });
        }
    }
    let answers = retrying.join_all().await;

    let charges = servers[0].charges().await;
    assert_eq!(charges.len(), 20);
    for charge in charges {
        let answered = |body: &&Bytes| serde_json::from_slice::<Value>(body).unwrap() == charge;
        assert_eq!(answers.iter().filter(answered).count(), 2, "both servers answered with {charge}");
    }
}

/// Repeats the request until no other attempt runs: a dead one's lease has to lapse.
async fn retry_while_running(client: &Client, key: &str, path: &str) -> Answer {
    let retrying = async {
        loop {
            let answer = client.charge(Some(key), path, ada(1200)).await.unwrap();
            if answer.status() != StatusCode::CONFLICT {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), retrying).await.expect("the lease lapses")
}
