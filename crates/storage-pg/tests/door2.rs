//! Door 2: the user's SQL and evenkeel's commit are one transaction.

mod common;

use std::str::FromStr;
use std::time::Duration;

use common::{Home, append, claim, exists, head, key, now, partition};
use evenkeel_core::{ErrorKind, Expect, ManualClock, Store, Transactional, Tx};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        the_users_rows_and_the_batch_commit_together,
        a_conflict_takes_the_users_rows_back,
        a_transaction_that_is_dropped_or_rolled_back_leaves_nothing,
        a_transaction_whose_user_failed_is_rolled_back,
        the_user_may_nest_transactions,
        others_commit_while_a_transaction_is_held,
        handlers_that_hold_every_transaction_do_not_keep_commits_waiting,
        the_server_limits_a_transaction_to_its_longest_hold,
        the_server_limits_a_statement_to_what_is_left_of_the_hold,
        a_connection_is_used_again_after_a_shorter_hold,
        a_transaction_held_for_too_long_is_refused,
        a_holder_that_goes_silent_is_ended_by_the_server,
        dropping_finish_does_not_cancel_it,
        the_users_own_transaction_commits_with_the_batch,
        a_conflict_takes_the_users_own_transaction_back,
        stricter_isolation_is_refused,
        a_transaction_on_another_database_is_refused,
        a_transaction_in_another_store_is_refused,
    ],
}

/// A store and a table of the user's beside it.
async fn store_with_orders(home: &Home) -> PgStore {
    let store = home.open().await;
    home.run("CREATE TABLE evenkeel.orders (id text)").await;
    store
}

async fn order(home: &Home, conn: &mut PgConnection) {
    let sql = home.sql("INSERT INTO evenkeel.orders VALUES ('17')");
    sqlx::query(AssertSqlSafe(sql)).execute(conn).await.unwrap();
}

async fn begin_with_order(home: &Home, store: &PgStore) -> Tx<PgConnection> {
    let mut tx = store.begin(partition(store), now()).await.unwrap();
    order(home, tx.conn().await.unwrap()).await;
    tx
}

/// Seen from another connection, so only what is committed.
async fn orders(home: &Home) -> i64 {
    home.number("SELECT count(*) FROM evenkeel.orders").await
}

async fn the_users_rows_and_the_batch_commit_together() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = begin_with_order(&home, &store).await;
    *tx.batch() = append(&store, "s");
    tx.batch().put(key("a"), "v", Expect::Absent);
    assert_eq!(orders(&home).await, 0);
    let committed = store.finish(tx).await.unwrap();

    assert_eq!(orders(&home).await, 1);
    assert!(exists(&store, "a").await);
    assert_eq!(committed.appended[0].position, 1);
    assert_eq!(head(&store).await, 1);
}

async fn a_conflict_takes_the_users_rows_back() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let mut tx = begin_with_order(&home, &store).await;
    tx.batch().put(key("a"), "v", Expect::Absent);
    let conflict = store.finish(tx).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(orders(&home).await, 0);
}

async fn a_transaction_that_is_dropped_or_rolled_back_leaves_nothing() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    for explicitly in [false, true] {
        let mut tx = begin_with_order(&home, &store).await;
        tx.batch().put(key("a"), "v", Expect::Absent);
        if explicitly {
            store.rollback(tx).await;
        } else {
            drop(tx);
        }
    }
    // As many as there are connections: each has come back without a transaction.
    for _ in 0..8 {
        let tx = begin_with_order(&home, &store).await;
        store.rollback(tx).await;
    }
    assert_eq!(orders(&home).await, 0);
    assert!(!exists(&store, "a").await);
}

async fn a_transaction_whose_user_failed_is_rolled_back() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = begin_with_order(&home, &store).await;
    sqlx::query("SELECT 1 / 0").execute(tx.conn().await.unwrap()).await.unwrap_err();
    tx.batch().put(key("a"), "v", Expect::Absent);
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(orders(&home).await, 0);
    assert!(!exists(&store, "a").await);
}

async fn the_user_may_nest_transactions() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = begin_with_order(&home, &store).await;
    let mut inner = tx.conn().await.unwrap().begin().await.unwrap();
    order(&home, &mut inner).await;
    inner.rollback().await.unwrap();
    store.finish(tx).await.unwrap();
    assert_eq!(orders(&home).await, 1);
}

async fn others_commit_while_a_transaction_is_held() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = begin_with_order(&home, &store).await;
    for _ in 0..3 {
        store.commit(append(&store, "s")).await.unwrap();
    }
    *tx.batch() = append(&store, "s");
    assert_eq!(store.finish(tx).await.unwrap().appended[0].position, 4);
}

async fn handlers_that_hold_every_transaction_do_not_keep_commits_waiting() {
    let home = Home::shared();
    let config = home.config().transactions(1).acquire_timeout(Duration::from_millis(100));
    let store = config.open().await.unwrap();
    let mut held = store.begin(partition(&store), now()).await.unwrap();
    held.conn().await.unwrap();

    let mut second = store.begin(partition(&store), now()).await.unwrap();
    assert_eq!(second.conn().await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.commit(claim(&store, "a")).await.unwrap();
    assert!(exists(&store, "a").await);
    store.finish(held).await.unwrap();
    second.conn().await.expect("the connection is free again");
}

/// The server's limits on a statement and on silence, and the isolation, in a transaction.
async fn limits(tx: &mut Tx<PgConnection>) -> [String; 3] {
    let sql = "SELECT ARRAY[current_setting('statement_timeout'),
        current_setting('idle_in_transaction_session_timeout'), current_setting('transaction_isolation')]";
    let limits: Vec<String> = sqlx::query_scalar(sql).fetch_one(tx.conn().await.unwrap()).await.unwrap();
    limits.try_into().unwrap()
}

async fn the_server_limits_a_transaction_to_its_longest_hold() {
    let home = Home::shared();
    let store = home.config().max_hold(Duration::from_secs(7)).open().await.unwrap();
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    assert_eq!(limits(&mut tx).await, ["7s", "7s", "read committed"]);
}

async fn a_connection_is_used_again_after_a_shorter_hold() {
    let home = Home::shared();
    let store = home.config().max_hold(Duration::from_secs(7)).transactions(1).open().await.unwrap();
    let pid = async |tx: &mut Tx<PgConnection>| -> i32 {
        let conn = tx.conn().await.unwrap();
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await.unwrap()
    };
    let mut short = store.begin(partition(&store), now()).await.unwrap();
    short.before_connect(async { Ok(Duration::from_secs(3)) });
    let first = pid(&mut short).await;
    assert_eq!(limits(&mut short).await, ["3s", "3s", "read committed"]);
    store.finish(short).await.unwrap();

    let mut long = store.begin(partition(&store), now()).await.unwrap();
    assert_eq!(pid(&mut long).await, first);
    assert_eq!(limits(&mut long).await, ["7s", "7s", "read committed"]);
}

async fn the_server_limits_a_statement_to_what_is_left_of_the_hold() {
    let home = Home::shared();
    let store = home.open().await;
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    tx.before_connect(async { Ok(Duration::from_millis(200)) });
    tx.batch().put(key("a"), "v", Expect::Absent);
    let conn = tx.conn().await.unwrap();
    let limit: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(limit, "200ms");
    let slow = sqlx::query("SELECT pg_sleep(60)").execute(conn).await.unwrap_err();
    assert_eq!(slow.as_database_error().unwrap().code().unwrap(), "57014");
    store.finish(tx).await.unwrap_err();
    assert!(!exists(&store, "a").await);
}

async fn a_transaction_held_for_too_long_is_refused() {
    let home = Home::shared();
    let clock = ManualClock::at(now());
    let config = home.config().clock(clock.shared()).unchecked_clock().max_hold(Duration::from_secs(10));
    let store = config.open().await.unwrap();
    home.run("CREATE TABLE evenkeel.orders (id text)").await;
    let mut tx = begin_with_order(&home, &store).await;
    clock.advance(Duration::from_secs(10));
    assert_eq!(tx.conn().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(orders(&home).await, 0);
}

async fn a_holder_that_goes_silent_is_ended_by_the_server() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    tx.before_connect(async { Ok(Duration::from_millis(100)) });
    tx.batch().put(key("a"), "v", Expect::Absent);
    let conn = tx.conn().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *conn).await.unwrap();
    order(&home, conn).await;
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    common::until("the server ended the transaction", async || home.number(&alive).await == 0).await;
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(orders(&home).await, 0);
    assert!(!exists(&store, "a").await);
}

async fn dropping_finish_does_not_cancel_it() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = begin_with_order(&home, &store).await;
    tx.batch().put(key("a"), "v", Expect::Absent);
    let mut finish = Box::pin(store.finish(tx));
    // Looked at once, it is under way.
    tokio::select! {
        biased;
        _ = &mut finish => {}
        () = std::future::ready(()) => {}
    }
    drop(finish);
    common::until("it is committed", async || exists(&store, "a").await).await;
    assert_eq!(orders(&home).await, 1);
}

async fn users_transaction(pool: &PgPool, begin: &'static str) -> Transaction<'static, Postgres> {
    pool.begin_with(begin).await.unwrap()
}

async fn pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(1).connect(url).await.unwrap()
}

async fn the_users_own_transaction_commits_with_the_batch() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let mut tx = users_transaction(&pool(&home.url).await, "BEGIN").await;
    order(&home, &mut tx).await;
    store.commit_with(tx, claim(&store, "a")).await.unwrap();
    assert_eq!(orders(&home).await, 1);
    assert!(exists(&store, "a").await);
}

async fn a_conflict_takes_the_users_own_transaction_back() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let pool = pool(&home.url).await;
    let mut tx = users_transaction(&pool, "BEGIN").await;
    order(&home, &mut tx).await;
    let conflict = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(orders(&home).await, 0);
    pool.acquire().await.expect("the connection came back");
}

async fn stricter_isolation_is_refused() {
    let home = Home::shared();
    let store = store_with_orders(&home).await;
    let pool = pool(&home.url).await;
    for level in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        let mut tx = users_transaction(&pool, level).await;
        order(&home, &mut tx).await;
        let refused = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{level}");
    }
    // A role's default makes no difference to the store's own transactions.
    sqlx::raw_sql("SET default_transaction_isolation = serializable")
        .execute(&mut *pool.acquire().await.unwrap())
        .await
        .unwrap();
    let refused = store.commit_with(pool.begin().await.unwrap(), claim(&store, "a")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(orders(&home).await, 0);
    assert!(!exists(&store, "a").await);
}

async fn a_transaction_on_another_database_is_refused() {
    let home = Home::shared();
    let store = home.open().await;
    let elsewhere = PgConnectOptions::from_str(&home.url).unwrap().database("template1");
    let pool = PgPoolOptions::new().max_connections(1).connect_with(elsewhere).await.unwrap();
    let tx = users_transaction(&pool, "BEGIN").await;
    let refused = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

async fn a_transaction_in_another_store_is_refused() {
    let home = Home::shared();
    let store = home.open().await;
    // As if the transaction were on a copy of the database that became a store of its own.
    home.run("UPDATE evenkeel.store SET id = gen_random_uuid()").await;
    let tx = users_transaction(&pool(&home.url).await, "BEGIN").await;
    let refused = store.commit_with(tx, claim(&store, "a")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(!exists(&store, "a").await);
}
