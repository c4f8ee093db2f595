//! Door 2 as seen from outside: transactions, drafts, and the erased store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::layer::{Around, Call};
use evenkeel_core::{
    AnyStore, Batch, Draft, Error, ErrorKind, Expect, Found, Key, MemoryStore, Op, Result, Session, Store,
    StoreExt, Timestamp, Transactional, Tx, finish_draft,
};

const NOW: Timestamp = Timestamp::EPOCH;

fn key(id: &str) -> Key {
    Key::new("test", "group", id.to_owned())
}

/// A store with a record, and a transaction on it.
async fn given() -> (AnyStore, Tx<Draft>) {
    let store = MemoryStore::new().any();
    put(&store, "there", "before").await;
    let tx = store.begin(store.partition_of("home"), NOW).await.unwrap();
    (store, tx)
}

async fn put(store: &AnyStore, id: &str, value: &'static str) {
    let mut batch = Batch::new(store.partition_of("home"), NOW);
    batch.put(key(id), value, Expect::Any);
    store.commit(batch).await.unwrap();
}

async fn value(store: &AnyStore, id: &str) -> Option<String> {
    let record = store.get_one(&store.partition_of("home"), NOW, &key(id)).await.unwrap()?;
    Some(String::from_utf8(record.value.to_vec()).unwrap())
}

#[tokio::test]
async fn a_draft_that_is_dropped_writes_nothing() {
    let (store, mut tx) = given().await;
    tx.conn().await.unwrap().put(key("a"), "1");
    tx.batch().put(key("b"), "2", Expect::Any);
    drop(tx);
    assert_eq!((value(&store, "a").await, value(&store, "b").await), (None, None));
}

#[tokio::test]
async fn a_draft_sees_its_own_writes_and_nobody_else_does() {
    let (store, mut tx) = given().await;
    let draft = tx.conn().await.unwrap();
    draft.put(key("there"), "after");
    assert_eq!(draft.get(&key("there")).await.unwrap().unwrap(), "after");
    draft.delete(key("there"));
    assert_eq!(draft.get(&key("there")).await.unwrap(), None);
    assert_eq!(value(&store, "there").await.unwrap(), "before");
    store.finish(tx).await.unwrap();
    assert_eq!(value(&store, "there").await, None);
}

#[tokio::test]
async fn what_a_draft_read_becomes_an_expectation() {
    let (store, mut tx) = given().await;
    let draft = tx.conn().await.unwrap();
    assert_eq!(draft.get(&key("there")).await.unwrap().unwrap(), "before");
    put(&store, "there", "another's").await;
    let conflict = store.finish(tx).await.unwrap_err().into_conflict().unwrap();
    let Found::Record { key: at, record: Some(record) } = conflict.found else { panic!("{conflict:?}") };
    assert_eq!((at, &record.value[..]), (key("there"), &b"another's"[..]));
}

#[tokio::test]
async fn a_draft_reads_a_key_once() {
    let (store, mut tx) = given().await;
    let draft = tx.conn().await.unwrap();
    draft.get(&key("there")).await.unwrap();
    put(&store, "there", "another's").await;
    assert_eq!(draft.get(&key("there")).await.unwrap().unwrap(), "before", "reads repeat");
}

/// Remembers what is committed.
#[derive(Clone, Debug, Default)]
struct Spy(Arc<Mutex<Vec<Batch>>>);

impl Around for Spy {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.0.lock().unwrap().extend(call.batch.cloned());
        made.await
    }
}

#[tokio::test]
async fn a_draft_names_each_key_once() {
    let spy = Spy::default();
    let store = MemoryStore::new().layer(spy.clone()).any();
    let mut tx = store.begin(store.partition_of("home"), NOW).await.unwrap();
    let draft = tx.conn().await.unwrap();
    for id in ["read", "written"] {
        draft.get(&key(id)).await.unwrap();
    }
    for id in ["written", "blind"] {
        draft.put(key(id), "1");
        draft.delete(key(id));
        draft.put_until(key(id), "2", NOW + Duration::from_secs(1));
    }
    draft.delete(key("gone"));
    tx.batch().check(key("mine"), Expect::Any);
    store.finish(tx).await.unwrap();

    let put = |id, expect| Op::Put {
        key: key(id),
        value: "2".into(),
        expect,
        expires_at: Some(NOW + Duration::from_secs(1)),
    };
    let ops = spy.0.lock().unwrap()[0].ops().to_vec();
    assert_eq!(
        ops,
        [
            Op::Check { key: key("mine"), expect: Expect::Any },
            Op::Check { key: key("read"), expect: Expect::Absent },
            put("written", Expect::Absent),
            put("blind", Expect::Any),
            Op::Delete { key: key("gone"), expect: Expect::Any },
        ]
    );
}

#[tokio::test]
async fn a_lent_transaction_comes_back_when_its_borrower_dropped_it() {
    let (store, tx) = given().await;
    let (mut lent, loan) = tx.lend();
    lent.conn().await.unwrap().put(key("a"), "1");
    lent.batch().put(key("b"), "2", Expect::Any);
    drop(lent);
    store.finish(loan.reclaim().unwrap()).await.unwrap();
    assert_eq!(value(&store, "a").await.unwrap(), "1");
    assert_eq!(value(&store, "b").await.unwrap(), "2");
}

#[tokio::test]
async fn a_transaction_in_use_is_not_reclaimed() {
    let (store, tx) = given().await;
    let (mut lent, loan) = tx.lend();
    lent.conn().await.unwrap().put(key("a"), "1");
    assert!(loan.reclaim().is_none());
    drop(lent);
    assert_eq!(value(&store, "a").await, None);
}

#[tokio::test]
async fn a_borrower_may_lend_on() {
    let (store, tx) = given().await;
    let (lent, loan) = tx.lend();
    let (mut lent_on, inner_loan) = lent.lend();
    lent_on.batch().put(key("a"), "1", Expect::Any);
    drop(lent_on);
    drop(inner_loan.reclaim().unwrap());
    store.finish(loan.reclaim().unwrap()).await.unwrap();
    assert_eq!(value(&store, "a").await.unwrap(), "1");
}

/// A session that counts its connects, and says when it is dropped.
struct Counting {
    connects: Arc<AtomicUsize>,
    hold_for: Arc<Mutex<Vec<Duration>>>,
    conn: (),
}

#[async_trait]
impl Session<()> for Counting {
    async fn connect(&mut self, hold_for: Duration) -> Result<&mut ()> {
        self.connects.fetch_add(1, Ordering::SeqCst);
        self.hold_for.lock().unwrap().push(hold_for);
        Ok(&mut self.conn)
    }
}

fn counting() -> (Tx<()>, Arc<AtomicUsize>, Arc<Mutex<Vec<Duration>>>) {
    let (connects, hold_for) = (Arc::<AtomicUsize>::default(), Arc::default());
    let batch = Batch::new(MemoryStore::new().partition_of("home"), NOW);
    let session = Counting { connects: Arc::clone(&connects), hold_for: Arc::clone(&hold_for), conn: () };
    (Tx::new(batch, session), connects, hold_for)
}

#[tokio::test]
async fn a_session_is_told_for_how_long_the_connection_may_be_held() {
    let (mut tx, _, hold_for) = counting();
    tx.before_connect(async { Ok(Duration::from_secs(30)) });
    tx.conn().await.unwrap();
    assert_eq!(*hold_for.lock().unwrap(), [Duration::from_secs(30)]);

    let (mut tx, _, hold_for) = counting();
    tx.conn().await.unwrap();
    assert_eq!(*hold_for.lock().unwrap(), [Duration::MAX], "for ever, where nobody says otherwise");
}

#[tokio::test]
async fn where_what_comes_before_fails_nothing_is_connected() {
    let (mut tx, connects, _) = counting();
    tx.before_connect(async { Err(Error::new(ErrorKind::LeaseLost, "too late")) });
    for _ in 0..2 {
        assert_eq!(tx.conn().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    assert_eq!(connects.load(Ordering::SeqCst), 0);
}

/// A session whose connection is whether it was told that its batch is unsynced.
struct Told(bool);

#[async_trait]
impl Session<bool> for Told {
    async fn connect(&mut self, _hold_for: Duration) -> Result<&mut bool> {
        Ok(&mut self.0)
    }

    fn set_unsynced(&mut self) {
        self.0 = true;
    }
}

#[tokio::test]
async fn a_session_is_told_ahead_of_a_connect_that_the_batch_is_unsynced() {
    let begin = || Tx::new(Batch::new(MemoryStore::new().partition_of("home"), NOW), Told(false));
    assert!(!*begin().conn().await.unwrap());
    let mut tx = begin();
    tx.batch().set_unsynced();
    assert!(*tx.conn().await.unwrap());
    let mut tx = begin();
    tx.batch().set_unsynced().set_synced();
    assert!(!*tx.conn().await.unwrap());
}

#[tokio::test]
async fn a_transaction_of_another_store_is_refused() {
    let batch = Batch::new(MemoryStore::new().partition_of("home"), NOW);
    struct Foreign;
    #[async_trait]
    impl Session<Draft> for Foreign {
        async fn connect(&mut self, _hold_for: Duration) -> Result<&mut Draft> {
            unreachable!("nobody connects")
        }
    }
    let error = finish_draft(&MemoryStore::new(), Tx::new(batch, Foreign)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_erased_store_is_the_store() {
    let store = MemoryStore::with_partitions(4).unwrap();
    let erased = AnyStore::from(store.clone());
    assert_eq!(erased.info(), store.info());
    put(&erased, "a", "1").await;
    let at = store.partition_of("home");
    assert_eq!(store.get_one(&at, NOW, &key("a")).await.unwrap().unwrap().value, "1");

    let elsewhere = erased.namespace(evenkeel_core::Namespace::new("elsewhere").unwrap());
    assert_eq!(value(&elsewhere, "a").await, None);
    put(&elsewhere, "a", "2").await;
    assert_eq!(value(&erased, "a").await.unwrap(), "1");
}
