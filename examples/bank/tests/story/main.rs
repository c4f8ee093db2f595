//! Money is moved at random through several processes that are killed meanwhile, and in the end
//! everything that was made of the events says the same, on every store.

mod bank; // processes, and their clients
#[path = "../../../payments/tests/story/home.rs"]
mod home; // where a story's accounts are kept
mod ledger; // what the events say

use std::process::ExitCode;
use std::sync::Arc;

use evenkeel_testkit::Suite;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bank::{Bank, Branches, within_patience};
use crate::home::{Home, Store};
use crate::ledger::Ledger;

const ACCOUNTS: u8 = 8;

/// How much is in each account on the first day.
const CENTS: i64 = 1_000;

/// How many people move money at the same time, and how often each.
const MOVERS: usize = 4;
const TRANSFERS: usize = 40;

const KILLS: usize = 10;

fn main() -> ExitCode {
    let mut suite = Suite::default();
    // What a process that is killed leaves in its own memory is nothing.
    for store in Store::ALL.into_iter().filter(|store| *store != Store::Memory) {
        let play = move || async move {
            money_is_moved_and_nothing_of_it_lost(&Home::on(store).await).await;
        };
        suite.own(store.name(), store.available(), "money_is_moved_and_nothing_of_it_lost", play);
        let play = move || async move {
            a_read_model_is_rebuilt_while_money_moves(&Home::on(store).await).await;
        };
        suite.own(store.name(), store.available(), "a_read_model_is_rebuilt_while_money_moves", play);
    }
    suite.run()
}

async fn open_accounts(bank: &Bank) {
    for number in 0..ACCOUNTS {
        let opening = json!({ "owner": format!("owner {number}"), "cents": CENTS });
        let (status, answer) = bank.post(&format!("/accounts/{}", account(number)), &opening).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
}

fn account(number: u8) -> String {
    format!("a{number}")
}

/// A transfer between two accounts, of which one in ten does not exist, and more than there is at
/// times.
fn at_random() -> Value {
    let from = fastrand::u8(..ACCOUNTS);
    let to = if fastrand::u8(..10) == 0 { ACCOUNTS } else { fastrand::u8(..ACCOUNTS) };
    json!({ "from": account(from), "to": account(to), "cents": fastrand::i64(1..=CENTS * 2 / 3) })
}

/// Starts a transfer, through whichever process lives.
async fn start(branches: &Branches, id: &str, transfer: &Value) {
    let started = async {
        loop {
            match branches.any().post(&format!("/transfers/{id}"), transfer).await {
                Ok((StatusCode::CREATED | StatusCode::OK, _)) => return,
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) | Err(_) => tokio::task::yield_now().await,
                Ok((status, answer)) => panic!("{status}: {answer}"),
            }
        }
    };
    within_patience("a transfer is started", started).await;
}

async fn move_money(branches: Arc<Branches>, mover: usize) -> Vec<String> {
    let mut started = Vec::new();
    for number in 0..TRANSFERS {
        let id = format!("t{mover}-{number}");
        start(&branches, &id, &at_random()).await;
        branches.started();
        started.push(id);
    }
    started
}

async fn money_is_moved_and_nothing_of_it_lost(home: &Home) {
    let branches = Arc::new(Branches::open(&home.url, 3).await);
    open_accounts(&branches.any()).await;
    let subscription = branches.any().subscribe().await;

    let mut movers = JoinSet::new();
    for mover in 0..MOVERS {
        movers.spawn(move_money(Arc::clone(&branches), mover));
    }
    for kill in 1..=KILLS {
        branches.until_started(kill * MOVERS * TRANSFERS / (KILLS + 1)).await;
        branches.kill_and_open_one().await;
    }
    let transfers: Vec<_> = movers.join_all().await.into_iter().flatten().collect();

    let bank = branches.any();
    let mut states = Vec::new();
    for id in &transfers {
        let run = bank.get(&format!("/transfers/{id}/outcome")).await;
        let state = run["state"].as_str().unwrap().to_owned();
        assert!(["completed", "failed", "compensated"].contains(&&*state), "{run}");
        states.push(state);
    }
    let completed = states.iter().filter(|state| *state == "completed").count();
    assert!(completed > 0, "{states:?}");

    let ledger = Ledger::read(&bank).await;
    ledger.assert_sum(CENTS * i64::from(ACCOUNTS));
    assert_eq!(ledger.received(), completed);
    bank.caught_up(["statements", "totals"]).await;
    assert_everything_says(&bank, &ledger).await;
    bank.told(&subscription, &ledger).await;
}

async fn a_read_model_is_rebuilt_while_money_moves(home: &Home) {
    let branches = Arc::new(Branches::open(&home.url, 2).await);
    let bank = branches.any();
    open_accounts(&bank).await;
    bank.caught_up(["statements", "totals"]).await;
    let moving = tokio::spawn(move_money(Arc::clone(&branches), 0));
    for name in ["statements", "totals"] {
        let (status, answer) =
            bank.post(&format!("/projections/{name}/rebuild"), &Value::Null).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    for id in moving.await.unwrap() {
        bank.get(&format!("/transfers/{id}/outcome")).await;
    }
    for name in ["statements", "totals"] {
        bank.is_read(name, 2).await;
    }
    bank.caught_up(["statements", "totals"]).await;
    assert_everything_says(&bank, &Ledger::read(&bank).await).await;
}

/// That accounts and read models are what the events make of nothing.
async fn assert_everything_says(bank: &Bank, ledger: &Ledger) {
    for number in 0..ACCOUNTS {
        let account = account(number);
        let balance = bank.get(&format!("/accounts/{account}")).await;
        assert_eq!(balance["cents"], ledger.balance(&account), "{account}");
        let statement = bank.get(&format!("/accounts/{account}/statement")).await;
        assert_eq!(statement, ledger.statement(&account), "{account}");
    }
    assert_eq!(bank.get("/totals").await, ledger.totals());
}
