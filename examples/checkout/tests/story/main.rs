//! The story of the README, as real processes over real HTTP, on every store.

#[path = "../../../payments/tests/story/home.rs"]
mod home; // where a story's orders are kept
mod service; // the checkout, payments and their clients

use std::process::ExitCode;

use evenkeel_testkit::Suite;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde_json::{Value, json};

use crate::home::{Home, Store};
use crate::service::{Checkout, Payments};

fn main() -> ExitCode {
    let mut suite = Suite::default();
    // What a process that is killed leaves in its own memory is nothing.
    for store in Store::ALL.into_iter().filter(|store| *store != Store::Memory) {
        for (name, story) in STORIES {
            suite.own(store.name(), store.available(), name, move || async move {
                story(World::on(store).await).await;
            });
        }
    }
    suite.run()
}

type Story = fn(World) -> BoxFuture<'static, ()>;

macro_rules! stories {
    ($($story:ident),+ $(,)?) => { [$((stringify!($story), (|world| Box::pin($story(world))) as Story)),+] };
}

const STORIES: [(&str, Story); 7] = stories![
    an_order_is_reserved_charged_and_shipped_once,
    an_order_that_cannot_be_reserved_leaves_nothing,
    what_was_done_before_a_failure_is_taken_back,
    a_refund_that_failed_is_tried_again_on_demand,
    killed_anywhere_on_its_way_an_order_completes,
    killed_anywhere_on_its_way_back_an_order_leaves_nothing,
    killed_after_its_end_an_order_stays_as_it_was,
];

/// A store, and the service that charges.
struct World {
    home: Home,
    payments: Payments,
}

/// How many anvils there are on the first day.
const ANVILS: u64 = 100;

impl World {
    async fn on(store: Store) -> Self {
        Self { home: Home::on(store).await, payments: Payments::start().await }
    }

    async fn checkout(&self, arguments: &[&str]) -> Checkout {
        Checkout::start(&self.home.url, &self.payments.url, arguments).await
    }

    /// Asserts that stock, charges and shipments say the same: these orders of two anvils each went
    /// through, and nothing is left of others.
    async fn assert_only(&self, checkout: &Checkout, orders: &[String]) {
        let anvils = ANVILS - 2 * orders.len() as u64;
        assert_eq!(checkout.get("/stock").await["anvil"], anvils);

        let mut parcels: Vec<_> = orders.iter().map(|order| parcel(order)).collect();
        parcels.sort_by_key(|parcel| parcel["order"].to_string());
        assert_eq!(checkout.get("/reservations").await, json!(parcels));
        assert_eq!(checkout.get("/shipments").await, json!(parcels));

        for order in orders {
            assert_eq!(self.payments.charged(order).await, [1200], "{order} is charged once");
        }
    }
}

/// Two anvils for a customer of the order's name, so that its charges are told from others'.
fn two_anvils(order: &str) -> Value {
    json!({ "customer": order, "item": "anvil", "quantity": 2, "cents": 1200 })
}

fn parcel(order: &str) -> Value {
    json!({ "order": order, "item": "anvil", "quantity": 2 })
}

async fn place(checkout: &Checkout, order: &str) -> Value {
    let (status, answer) = checkout.post(&format!("/orders/{order}"), two_anvils(order)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    outcome(checkout, order).await
}

async fn outcome(checkout: &Checkout, order: &str) -> Value {
    checkout.get(&format!("/orders/{order}/outcome")).await
}

async fn an_order_is_reserved_charged_and_shipped_once(world: World) {
    let checkout = world.checkout(&[]).await;

    let run = place(&checkout, "order-17").await;
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!(run["values"]["ship"], parcel("order-17"));

    let (status, again) = checkout.post("/orders/order-17", two_anvils("order-17")).await;
    assert_eq!(status, StatusCode::OK, "{again}");
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), run);
    let (status, answer) = checkout.post("/orders/order-17", two_anvils("somebody else")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");

    world.assert_only(&checkout, &["order-17".to_owned()]).await;
}

async fn an_order_that_cannot_be_reserved_leaves_nothing(world: World) {
    let checkout = world.checkout(&[]).await;
    let order = json!({ "customer": "ada", "item": "anvil", "quantity": ANVILS + 1, "cents": 1200 });
    checkout.post("/orders/order-17", order).await;

    let run = outcome(&checkout, "order-17").await;

    assert_eq!((&run["state"], &run["error"]["step"]), (&json!("failed"), &json!("reserve")), "{run}");
    assert!(world.payments.charged("ada").await.is_empty());
    world.assert_only(&checkout, &[]).await;
}

async fn what_was_done_before_a_failure_is_taken_back(world: World) {
    let charged_and_given_back = [-1200, 1200];
    for (fails, charges) in
        [("charge", &[][..]), ("ship", &charged_and_given_back), ("confirm", &charged_and_given_back)]
    {
        let checkout = world.checkout(&["--fail", fails]).await;

        let run = place(&checkout, fails).await;

        assert_eq!((&run["state"], &run["error"]["step"]), (&json!("compensated"), &json!(fails)), "{run}");
        assert_eq!(world.payments.charged(fails).await, charges, "where {fails} fails");
        world.assert_only(&checkout, &[]).await;
        checkout.kill().await;
    }
}

async fn a_refund_that_failed_is_tried_again_on_demand(world: World) {
    let checkout = world.checkout(&["--fail", "confirm,refund"]).await;
    let run = place(&checkout, "order-17").await;
    assert_eq!(run["state"], "compensation_failed", "{run}");
    assert_eq!(world.payments.charged("order-17").await, [1200]);
    checkout.kill().await;

    let checkout = world.checkout(&[]).await;
    let (status, answer) = checkout.post("/orders/order-17/retry", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    assert_eq!(outcome(&checkout, "order-17").await["state"], "compensated");
    assert_eq!(world.payments.charged("order-17").await, [-1200, 1200]);
    world.assert_only(&checkout, &[]).await;
}

/// Every boundary between two acts, and the worst moment of each.
fn points<const N: usize>(acts: [&str; N]) -> impl Iterator<Item = String> {
    acts.into_iter().flat_map(|act| ["before", "inside"].map(|point| format!("{point}:{act}")))
}

async fn killed_anywhere_on_its_way_an_order_completes(world: World) {
    let mut orders = Vec::new();
    for point in points(["reserve", "charge", "ship", "confirm"]) {
        let order = point.replace(':', "-");
        let doomed = world.checkout(&["--die-at", &point]).await;
        doomed.post_to_the_dying(&format!("/orders/{order}"), two_anvils(&order)).await;
        doomed.dies().await;

        let checkout = world.checkout(&[]).await;
        let run = outcome(&checkout, &order).await;

        assert_eq!(run["state"], "completed", "killed at {point}: {run}");
        orders.push(order);
        world.assert_only(&checkout, &orders).await;
        checkout.kill().await;
    }
}

async fn killed_anywhere_on_its_way_back_an_order_leaves_nothing(world: World) {
    for point in points(["recall", "refund", "release"]) {
        let order = point.replace(':', "-");
        let doomed = world.checkout(&["--fail", "confirm", "--die-at", &point]).await;
        doomed.post_to_the_dying(&format!("/orders/{order}"), two_anvils(&order)).await;
        doomed.dies().await;

        // It goes on with what it began, although nothing would fail any more.
        let checkout = world.checkout(&[]).await;
        let run = outcome(&checkout, &order).await;

        assert_eq!(run["state"], "compensated", "killed at {point}: {run}");
        assert_eq!(world.payments.charged(&order).await, [-1200, 1200], "killed at {point}");
        world.assert_only(&checkout, &[]).await;
        checkout.kill().await;
    }
}

async fn killed_after_its_end_an_order_stays_as_it_was(world: World) {
    let checkout = world.checkout(&[]).await;
    let run = place(&checkout, "order-17").await;
    checkout.kill().await;

    let checkout = world.checkout(&[]).await;

    assert_eq!(outcome(&checkout, "order-17").await, run);
    world.assert_only(&checkout, &["order-17".to_owned()]).await;
}
