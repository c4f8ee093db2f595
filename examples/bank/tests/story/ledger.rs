use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use crate::bank::Bank;

/// What the events of all logs say.
pub(crate) struct Ledger {
    statements: BTreeMap<String, Vec<Value>>,
    received: usize,
}

impl Ledger {
    /// Folds the logs of all partitions.
    pub(crate) async fn read(bank: &Bank) -> Self {
        let mut ledger = Self { statements: BTreeMap::new(), received: 0 };
        for partition in 0.. {
            let mut next = Some(1);
            while let Some(from) = next {
                let path = format!("/log?partition={partition}&limit=100&from={from}");
                let (status, page) = bank.ask(&path).await;
                if status == StatusCode::BAD_REQUEST {
                    return ledger;
                }
                assert_eq!(status, StatusCode::OK, "{page}");
                page["events"].as_array().unwrap().iter().for_each(|event| ledger.take(event));
                next = page["next"].as_u64();
            }
        }
        ledger
    }

    fn take(&mut self, event: &Value) {
        let Some(account) = event["stream"].as_str().unwrap().strip_prefix("account-") else { return };
        let (kind, payload) = (event["kind"].as_str().unwrap(), &event["payload"]);
        let cents = payload["cents"].as_i64().unwrap() * if kind == "Sent" { -1 } else { 1 };
        self.received += usize::from(kind == "Received");
        let lines = self.statements.entry(account.to_owned()).or_default();
        assert_eq!(event["version"].as_u64().unwrap(), lines.len() as u64 + 1, "the log is in order");
        let balance = lines.last().map_or(0, |line| line["balance"].as_i64().unwrap()) + cents;
        lines.push(json!({ "number": event["version"], "what": kind, "cents": cents, "balance": balance }));
    }

    pub(crate) fn assert_sum(&self, cents: i64) {
        let sum: i64 = self.statements.keys().map(|account| self.balance(account)).sum();
        assert_eq!(sum, cents, "{:?}", self.balances());
    }

    /// How many transfers came to where they were to go.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    pub(crate) fn balance(&self, account: &str) -> i64 {
        self.statements[account].last().unwrap()["balance"].as_i64().unwrap()
    }

    /// The accounts and what is in each.
    pub(crate) fn balances(&self) -> BTreeMap<String, i64> {
        self.statements.keys().map(|account| (account.clone(), self.balance(account))).collect()
    }

    pub(crate) fn statement(&self, account: &str) -> Value {
        json!(self.statements[account])
    }

    pub(crate) fn totals(&self) -> Value {
        let events: usize = self.statements.values().map(Vec::len).sum();
        let cents: i64 = self.balances().values().sum();
        json!({ "accounts": self.statements.len(), "events": events, "cents": cents })
    }
}
