//! Aggregates and their repository.

mod kit;

use evenkeel_core::{Batch, ErrorKind, ExpectStream, Key, MemoryStore, Store, StoreExt};
use evenkeel_projections::testing::given;
use evenkeel_projections::{Aggregate, CommandError, Repository};
use kit::{AccountEvent, Bank, deposits};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Debug)]
enum Command {
    Deposit(i64),
    Withdraw(i64),
    Nothing,
}

#[derive(Debug, PartialEq)]
struct Overdrawn {
    balance: i64,
}

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
    type Command = Command;
    type Error = Overdrawn;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => {}
            AccountEvent::Deposited { cents } => self.balance += cents,
            AccountEvent::Withdrawn { cents } => self.balance -= cents,
        }
    }

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, Overdrawn> {
        match *command {
            Command::Deposit(cents) => Ok(vec![AccountEvent::Deposited { cents }]),
            Command::Withdraw(cents) if cents > self.balance => Err(Overdrawn { balance: self.balance }),
            Command::Withdraw(cents) => Ok(vec![AccountEvent::Withdrawn { cents }]),
            Command::Nothing => Ok(Vec::new()),
        }
    }
}

type Accounts = Repository<Account, MemoryStore>;

fn accounts(bank: &Bank) -> Accounts {
    Repository::new(bank.events.clone())
}

#[test]
fn an_aggregate_is_tested_without_a_store() {
    given::<Account>(&deposits(&[5]))
        .when(&Command::Withdraw(5))
        .then(&[AccountEvent::Withdrawn { cents: 5 }]);
    given::<Account>(&deposits(&[5])).when(&Command::Withdraw(6)).then_refused(&Overdrawn { balance: 5 });
    given::<Account>(&[]).when(&Command::Nothing).then(&[]);
}

#[tokio::test]
async fn a_command_is_decided_on_what_happened_and_its_events_are_appended() {
    let bank = Bank::new();
    let accounts = accounts(&bank);
    let executed = accounts.execute("7", &Command::Deposit(10)).await.unwrap();
    assert_eq!(executed.appended.unwrap().version, 1);
    let executed = accounts.execute("7", &Command::Withdraw(4)).await.unwrap();
    assert_eq!((executed.aggregate.state.balance, executed.aggregate.version), (6, 2));
    assert_eq!(accounts.load("7").await.unwrap(), executed.aggregate);

    let refused = accounts.execute("7", &Command::Withdraw(7)).await.unwrap_err();
    assert!(matches!(refused, CommandError::Refused(Overdrawn { balance: 6 })), "{refused:?}");
    assert_eq!(accounts.execute("7", &Command::Nothing).await.unwrap().appended, None);
    assert_eq!(bank.events.version("account-7").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_at_once_are_decided_one_after_the_other() {
    let bank = Bank::new();
    let accounts = accounts(&bank).attempts(1000);
    accounts.execute("7", &Command::Deposit(10)).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.execute("7", &Command::Withdraw(1)).await.is_ok() })
        })
        .collect();
    let mut succeeded = 0;
    for task in tasks {
        succeeded += u32::from(task.await.unwrap());
    }
    assert_eq!(succeeded, 10);
    assert_eq!(accounts.load("7").await.unwrap().state.balance, 0);
}

#[tokio::test]
async fn a_command_is_given_up_after_its_attempts() {
    let bank = Bank::new();
    let accounts = accounts(&bank).attempts(1);
    let at = bank.at();
    let mut batch = Batch::new(at, bank.now());
    let ahead = accounts.execute_in(&mut batch, "7", &Command::Deposit(1)).await.unwrap();
    assert_eq!(ahead.version, 1);
    accounts.execute("7", &Command::Deposit(2)).await.unwrap();
    let error = bank.store.commit(batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "it was decided on an older state");
}

#[tokio::test]
async fn a_snapshot_is_kept_with_every_so_many_events_and_is_built_upon() {
    let bank = Bank::new();
    let accounts = accounts(&bank).snapshots(3, 1);
    for _ in 0..7 {
        accounts.execute("7", &Command::Deposit(1)).await.unwrap();
    }
    // The first six are in the snapshot, so nobody misses them.
    bank.events.truncate("account-7", 7).await.unwrap();
    let loaded = accounts.load("7").await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version), (7, 7));

    let error = accounts_of_schema(&bank, 2).load("7").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "a stale snapshot counts for nothing");
    let error = Accounts::new(bank.events.clone()).load("7").await.unwrap_err();
    assert!(error.to_string().contains("forgotten"), "{error}");
}

fn accounts_of_schema(bank: &Bank, schema: u32) -> Accounts {
    accounts(bank).snapshots(3, schema)
}

#[tokio::test]
async fn a_snapshot_that_is_stale_or_broken_is_rebuilt() {
    let bank = Bank::new();
    for _ in 0..4 {
        accounts_of_schema(&bank, 1).execute("7", &Command::Deposit(1)).await.unwrap();
    }
    let key = Key::new("projections.snapshot", "account", "7");
    let snapshot = || async {
        let record = bank.store.get_one(&bank.at(), bank.now(), &key).await.unwrap().unwrap();
        String::from_utf8(record.value.to_vec()).unwrap()
    };
    assert_eq!(snapshot().await, r#"{"schema":1,"version":3,"state":{"balance":3}}"#);
    accounts_of_schema(&bank, 2).execute("7", &Command::Deposit(1)).await.unwrap();
    assert_eq!(snapshot().await, r#"{"schema":2,"version":5,"state":{"balance":5}}"#);

    let mut batch = Batch::new(bank.at(), bank.now());
    batch.put(key.clone(), "broken", evenkeel_core::Expect::Any);
    bank.store.commit(batch).await.unwrap();
    assert_eq!(accounts_of_schema(&bank, 2).load("7").await.unwrap().state.balance, 5);
}

#[tokio::test]
async fn a_reopened_aggregate_begins_anew() {
    let bank = Bank::new();
    let accounts = accounts(&bank).snapshots(2, 1);
    for _ in 0..3 {
        accounts.execute("7", &Command::Deposit(5)).await.unwrap();
    }
    bank.events.delete("account-7").await.unwrap();
    assert_eq!(accounts.load("7").await.unwrap_err().kind(), ErrorKind::NotFound);
    let refused = accounts.execute("7", &Command::Deposit(1)).await.unwrap_err();
    assert!(matches!(refused, CommandError::Store(error) if error.kind() == ErrorKind::NotFound));

    bank.events.reopen("account-7").await.unwrap();
    let executed = accounts.execute("7", &Command::Deposit(1)).await.unwrap();
    assert_eq!((executed.aggregate.state.balance, executed.aggregate.version), (1, 5));
}

#[tokio::test]
async fn an_event_of_another_kind_in_its_stream_is_corrupt() {
    let bank = Bank::new();
    let mut strange = bank.events.new_event(&deposits(&[1])[0]).unwrap();
    strange.kind = "Strange".into();
    bank.events.append_new("account-7", ExpectStream::Any, vec![strange]).await.unwrap();
    let error = accounts(&bank).load("7").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("Strange"), "{error}");
}
