use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use evenkeel::core::Result;
use http::Method;
use serde_json::json;

use super::client::Client;
use super::stage::Stage;

/// The URLs of what is published. Nobody calls them: they are names.
pub(super) const TEMPLATE: &str = "https://shop.example/orders/{order}";

/// Between two changes.
pub(super) const PAUSE: Duration = Duration::from_millis(150);

/// How many orders there are.
const ORDERS: u32 = 6;

/// The newest revision of each order that there is.
pub(super) type Documents = BTreeMap<String, i64>;

/// Publishes orders, changes them and deletes some.
#[derive(Debug)]
pub(super) struct Producer {
    client: Client,
    stage: Stage,
    documents: Documents,
    /// Of all orders together, so that an order that comes back is newer than it ever was.
    revision: i64,
    done: BTreeMap<&'static str, u32>,
}

impl Producer {
    pub(super) const fn new(client: Client, stage: Stage) -> Self {
        Self { client, stage, documents: Documents::new(), revision: 0, done: BTreeMap::new() }
    }

    pub(super) const fn documents(&self) -> &Documents {
        &self.documents
    }

    /// # Errors
    /// The server is not there, or refuses.
    pub(super) async fn change_something(&mut self) -> Result<()> {
        let order = format!("order-{}", fastrand::u32(1..=ORDERS));
        let path = format!("/documents/{}", TEMPLATE.replace("{order}", &order));
        let exists = self.documents.contains_key(&order);
        let what = if exists && fastrand::u32(..5) == 0 {
            self.client.call(Method::DELETE, &path, None).await?;
            self.documents.remove(&order);
            "deletes"
        } else {
            self.revision += 1;
            let document = json!({ "version": self.revision, "cents": fastrand::u32(100..10_000) });
            self.client.call(Method::PUT, &path, Some(document)).await?;
            self.documents.insert(order.clone(), self.revision);
            if exists { "updates" } else { "creates" }
        };
        *self.done.entry(what).or_default() += 1;
        let revision =
            self.documents.get(&order).map(|revision| format!("revision {revision}")).unwrap_or_default();
        self.stage.say(format_args!("producer {what} {order}  {revision}"));
        Ok(())
    }

    pub(super) fn summary(&self) -> impl fmt::Display {
        let done = |what| self.done.get(what).copied().unwrap_or_default();
        format!("{} creates, {} updates, {} deletes", done("creates"), done("updates"), done("deletes"))
    }
}
