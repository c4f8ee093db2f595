//! Door 2: the user's SQL and evenkeel's commit are one transaction.

mod common;

use std::time::Duration;

use common::{Folder, claim, exists, key, now, partition};
use evenkeel_core::{Clock, ErrorKind, Expect, ManualClock, NewEvent, Read, Store, Transactional, Tx};
use evenkeel_storage_sqlite::SqliteStore;
use sqlx::{Connection, SqliteConnection};

async fn store_with_orders(folder: &Folder) -> SqliteStore {
    let store = folder.open().await;
    create_orders(&store).await;
    store
}

async fn create_orders(store: &SqliteStore) {
    let mut tx = store.begin(partition(store), now()).await.unwrap();
    run(&mut tx, "CREATE TABLE orders (id TEXT)").await;
    store.finish(tx).await.unwrap();
}

async fn run(tx: &mut Tx<SqliteConnection>, sql: &'static str) {
    sqlx::query(sql).execute(tx.conn().await.unwrap()).await.unwrap();
}

/// Seen from another connection, so only what is committed.
async fn orders(folder: &Folder) -> i64 {
    let mut conn = SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut conn).await.unwrap()
}

#[tokio::test]
async fn the_users_rows_and_the_batch_commit_together() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;

    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES ('17')").await;
    tx.batch().put(key("a"), "v", Expect::Absent).append_any("s", [NewEvent::new("Placed", "{}", now())]);
    assert_eq!(orders(&folder).await, 0);
    let committed = store.finish(tx).await.unwrap();

    assert_eq!(orders(&folder).await, 1);
    assert!(exists(&store, "a").await);
    assert_eq!(committed.appended[0].position, 1);
    let slice = store.read(&partition(&store), Read::partition(0, 10)).await.unwrap();
    assert_eq!(slice.events.len(), 1);
}

#[tokio::test]
async fn a_conflict_takes_the_users_rows_back() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;
    store.commit(claim(&store, "a")).await.unwrap();

    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES ('17')").await;
    tx.batch().put(key("a"), "v", Expect::Absent);
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::Conflict);

    assert_eq!(orders(&folder).await, 0);
    store.commit(claim(&store, "b")).await.expect("the writer goes on");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_or_rolled_back_leaves_nothing() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;

    for explicitly in [false, true] {
        let mut tx = store.begin(partition(&store), now()).await.unwrap();
        run(&mut tx, "INSERT INTO orders VALUES ('17')").await;
        tx.batch().put(key("a"), "v", Expect::Absent);
        if explicitly {
            store.rollback(tx).await;
        } else {
            drop(tx);
        }
        store.commit(claim(&store, if explicitly { "b" } else { "c" })).await.expect("the writer goes on");
    }

    assert_eq!(orders(&folder).await, 0);
    assert!(!exists(&store, "a").await);
}

mod unsynced {
    use super::*;
    use evenkeel_storage_sqlite::Synchronous;

    const NORMAL: i64 = 1;
    const FULL: i64 = 2;

    /// When the commit of a transaction will be safe: SQLite lets nobody change that within one.
    async fn level(tx: &mut Tx<SqliteConnection>) -> i64 {
        sqlx::query_scalar("PRAGMA synchronous").fetch_one(tx.conn().await.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_transaction_waits_for_the_disk_unless_its_batch_need_not() {
        let folder = Folder::new();
        let store = store_with_orders(&folder).await;
        for id in ["a", "b"] {
            let mut tx = store.begin(partition(&store), now()).await.unwrap();
            tx.batch().set_unsynced().put(key(id), "v", Expect::Absent);
            assert_eq!(level(&mut tx).await, NORMAL);
            store.finish(tx).await.unwrap();
            assert!(exists(&store, id).await);

            let mut tx = store.begin(partition(&store), now()).await.unwrap();
            assert_eq!(level(&mut tx).await, FULL);
            store.rollback(tx).await;
        }
    }

    #[tokio::test]
    async fn a_store_that_never_waits_does_not_begin_to() {
        let folder = Folder::new();
        let store = folder.config().synchronous(Synchronous::Normal).open().await.unwrap();
        for is_synced in [true, false, true] {
            let mut tx = store.begin(partition(&store), now()).await.unwrap();
            if !is_synced {
                tx.batch().set_unsynced();
            }
            assert_eq!(level(&mut tx).await, NORMAL);
            store.finish(tx).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_batch_that_turns_out_to_be_synced_waits_for_the_log_on_disk() {
        let folder = Folder::new();
        let store = store_with_orders(&folder).await;
        let log = folder.path().with_file_name("store.db-wal");
        assert!(log.exists());
        let begin = async || {
            let mut tx = store.begin(partition(&store), now()).await.unwrap();
            tx.batch().set_unsynced();
            run(&mut tx, "INSERT INTO orders VALUES ('17')").await;
            tx.batch().set_synced();
            tx
        };
        store.finish(begin().await).await.unwrap();

        // Where the file cannot be found, the disk cannot be asked.
        let tx = begin().await;
        std::fs::rename(&log, log.with_extension("gone")).unwrap();
        assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        std::fs::rename(log.with_extension("gone"), &log).unwrap();
        assert_eq!(orders(&folder).await, 2);

        let mut tx = begin().await;
        tx.batch().set_unsynced();
        std::fs::rename(&log, log.with_extension("gone")).unwrap();
        store.finish(tx).await.unwrap();
    }
}

#[tokio::test]
async fn the_user_may_nest_transactions() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;

    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES ('kept')").await;
    let mut inner = tx.conn().await.unwrap().begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES ('dropped')").execute(&mut *inner).await.unwrap();
    inner.rollback().await.unwrap();
    store.finish(tx).await.unwrap();

    assert_eq!(orders(&folder).await, 1);
}

#[tokio::test]
async fn while_a_transaction_is_held_a_certain_verdict_comes_at_once_and_the_rest_waits() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;
    let first = claim(&store, "taken");
    store.commit(first.clone()).await.unwrap();

    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES ('17')").await;

    let conflict = store.commit(claim(&store, "taken")).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    store.commit(first).await.expect("what was sent again is recognised");

    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(claim(&store, "fresh")).await }
    });
    tokio::task::yield_now().await;
    // The line is judged in order, so an answer to this one means that the other was looked at.
    store.commit(claim(&store, "taken")).await.unwrap_err();
    assert!(!exists(&store, "fresh").await, "reads go on meanwhile");
    assert!(!waiting.is_finished());
    store.finish(tx).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(exists(&store, "fresh").await);
}

#[tokio::test]
async fn a_transaction_held_for_too_long_is_refused_and_fails_those_who_wait() {
    let clock = ManualClock::default();
    let folder = Folder::new();
    let config = folder.config().clock(clock.shared()).max_hold(Duration::from_secs(10));
    let store = config.open().await.unwrap();
    create_orders(&store).await;

    let mut tx = store.begin(partition(&store), clock.now()).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES ('17')").await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(claim(&store, "waits")).await }
    });
    clock.wait_for_sleepers(1).await;
    clock.advance(Duration::from_secs(10));

    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(tx.conn().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(orders(&folder).await, 0);
    store.commit(claim(&store, "waits")).await.expect("the writer goes on");
}

#[tokio::test]
async fn transactions_and_commits_take_turns() {
    let folder = Folder::new();
    let store = store_with_orders(&folder).await;
    let tasks = (0..40).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            if n % 2 == 0 {
                store.commit(claim(&store, &format!("r{n}"))).await.unwrap();
            } else {
                let mut tx = store.begin(partition(&store), now()).await.unwrap();
                run(&mut tx, "INSERT INTO orders VALUES ('x')").await;
                tx.batch().put(key(&format!("r{n}")), "v", Expect::Absent);
                store.finish(tx).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(orders(&folder).await, 20);
    for n in 0..40 {
        assert!(exists(&store, &format!("r{n}")).await);
    }
}

mod commit_with {
    use super::*;
    use sqlx::sqlite::SqlitePoolOptions;

    async fn users_transaction(folder: &Folder) -> sqlx::Transaction<'static, sqlx::Sqlite> {
        let pool = SqlitePoolOptions::new().connect(&folder.url()).await.unwrap();
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::query("INSERT INTO orders VALUES ('17')").execute(&mut *tx).await.unwrap();
        tx
    }

    #[tokio::test]
    async fn the_users_own_transaction_commits_with_the_batch() {
        let folder = Folder::new();
        let store = store_with_orders(&folder).await;
        let tx = users_transaction(&folder).await;
        store.commit_with(tx, claim(&store, "a")).await.unwrap();
        assert_eq!(orders(&folder).await, 1);
        assert!(exists(&store, "a").await);
    }

    #[tokio::test]
    async fn a_conflict_takes_the_users_transaction_back() {
        let folder = Folder::new();
        let store = store_with_orders(&folder).await;
        store.commit(claim(&store, "a")).await.unwrap();
        let tx = users_transaction(&folder).await;
        let error = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(orders(&folder).await, 0);
    }

    #[tokio::test]
    async fn a_transaction_on_another_store_is_refused() {
        let (folder, other) = (Folder::new(), Folder::new());
        let store = store_with_orders(&folder).await;
        let _other = store_with_orders(&other).await;
        let tx = users_transaction(&other).await;
        let error = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(orders(&other).await, 0);
        assert!(!exists(&store, "a").await);
    }

    #[tokio::test]
    async fn a_transaction_that_read_before_another_wrote_is_unavailable() {
        let folder = Folder::new();
        let store = store_with_orders(&folder).await;
        let pool = SqlitePoolOptions::new().connect(&folder.url()).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("SELECT * FROM orders").fetch_all(&mut *tx).await.unwrap();
        store.commit(claim(&store, "a")).await.unwrap();
        let error = store.commit_with(tx, claim(&store, "b")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!exists(&store, "b").await);
    }
}
