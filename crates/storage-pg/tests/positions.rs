//! Positions appear in their order and without gaps, whatever transactions stay open or die.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Home, append, head, partition};
use evenkeel_core::{ErrorKind, Expect, Read, Store, Transactional};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        a_reader_never_skips_whatever_transactions_stay_open_or_die,
        folds_that_name_too_much_to_lock_one_by_one_do_not_mix,
    ],
}

/// Follows the log until it has seen the position `through`, and notes how far it is.
async fn tail(store: PgStore, seen: Arc<AtomicU64>, through: Arc<AtomicU64>) -> Vec<Uuid> {
    let (mut after, mut ids) = (0, Vec::new());
    while after < through.load(Ordering::SeqCst) {
        let slice = store.read(&partition(&store), Read::partition(after, 7)).await.unwrap();
        for event in slice.events {
            after += 1;
            assert_eq!(event.position, after, "a hole, or an event that came late");
            ids.push(event.id);
        }
        assert_eq!(slice.examined_to, after);
        seen.store(after, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    ids
}

/// Appends from several nodes at once; how many events.
async fn append_from(nodes: &[PgStore]) -> u64 {
    let appenders: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(node, store)| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let stream = if n % 2 == 0 { "common".to_owned() } else { format!("of {node}") };
                    store.commit(append(&store, &stream)).await.unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    20 * nodes.len() as u64
}

async fn backend(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await.unwrap()
}

async fn a_reader_never_skips_whatever_transactions_stay_open_or_die() {
    let home = Home::shared();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(home.open().await);
    }
    let store = nodes[0].clone();
    // A user's table whose rows have the commit wait, between evenkeel's part and the end, for
    // whoever holds the table's lock.
    let gate = home.schema.clone();
    home.run(&format!(
        "CREATE TABLE evenkeel.orders (id text);
         CREATE TABLE evenkeel.slow (id text);
         CREATE FUNCTION evenkeel.wait() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN PERFORM pg_advisory_xact_lock_shared(hashtext('{gate}')); RETURN NULL; END$$;
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON evenkeel.slow DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION evenkeel.wait()"
    ))
    .await;

    // Someone else's transaction, with an id of its own and a snapshot, stays open throughout.
    let mut unrelated = home.connect().await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        .execute(&mut unrelated)
        .await
        .unwrap();

    let (seen, through) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let reader = tokio::spawn(tail(home.open().await, Arc::clone(&seen), Arc::clone(&through)));

    // A user's transaction writes something of its own and stays open while others append.
    let mut open = store.begin(partition(&store), common::now()).await.unwrap();
    let order = AssertSqlSafe(home.sql("INSERT INTO evenkeel.orders VALUES ('17')"));
    sqlx::query(order).execute(open.conn().await.unwrap()).await.unwrap();
    let mut appended = append_from(&nodes).await;
    common::until("the reader has caught up", async || seen.load(Ordering::SeqCst) == appended).await;

    // Then it appends, and comes last.
    *open.batch() = append(&store, "common");
    appended += 1;
    assert_eq!(store.finish(open).await.unwrap().appended[0].position, appended);

    // Another has appended already, and hangs before its commit.
    let mut gatekeeper = home.connect().await;
    sqlx::raw_sql(AssertSqlSafe(format!("SELECT pg_advisory_lock(hashtext('{gate}'))")))
        .execute(&mut gatekeeper)
        .await
        .unwrap();
    let mut dying = store.begin(partition(&store), common::now()).await.unwrap();
    *dying.batch() = append(&store, "common");
    dying.batch().put(common::key("dying"), "", Expect::Absent);
    let conn = dying.conn().await.unwrap();
    let pid = backend(conn).await;
    let slow = AssertSqlSafe(home.sql("INSERT INTO evenkeel.slow VALUES ('17')"));
    sqlx::query(slow).execute(conn).await.unwrap();
    let finishing = tokio::spawn({
        let store = store.clone();
        async move { store.finish(dying).await }
    });
    let hangs = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query = 'COMMIT' AND wait_event = 'advisory'"
    );
    common::until("it hangs in its commit", async || home.number(&hangs).await == 1).await;

    // Those who append now wait for it, and readers do not: they see the log as it was.
    let waiting = tokio::spawn({
        let store = nodes[1].clone();
        async move { store.commit(append(&store, "other")).await }
    });
    let waits = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.query LIKE '%{}%commit_%v1%'",
        home.schema
    );
    common::until("the other waits", async || home.number(&waits).await >= 1).await;
    assert_eq!(head(&store).await, appended);

    // It dies. Its place goes to the one that waited.
    home.run(&format!("SELECT pg_terminate_backend({pid})")).await;
    assert_eq!(finishing.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    appended += 1;
    assert_eq!(waiting.await.unwrap().unwrap().appended[0].position, appended);
    assert!(!common::exists(&store, "dying").await);

    appended += append_from(&nodes).await;
    assert_eq!(head(&store).await, appended);
    through.store(appended, Ordering::SeqCst);
    let ids = reader.await.unwrap();
    let log = tail(store, Arc::default(), through).await;
    assert_eq!(ids, log, "what the reader saw while it was written is what stands there");
    sqlx::raw_sql("COMMIT").execute(&mut unrelated).await.unwrap();
}

async fn folds_that_name_too_much_to_lock_one_by_one_do_not_mix() {
    let home = Home::shared();
    let nodes = [home.open().await, home.open().await];
    // All want the same 80 records: one gets them.
    let claims: Vec<_> = (0..24)
        .map(|n| {
            let store = nodes[n % 2].clone();
            tokio::spawn(async move {
                let mut batch = common::batch(&store);
                for id in 0..80 {
                    // Its own ones too, so that a fold names hundreds.
                    let (common, own) = (format!("common {id}"), format!("{n} {id}"));
                    let id = if id < 5 { common } else { own };
                    batch.put(common::key(&id), "", Expect::Absent);
                }
                store.commit(batch).await
            })
        })
        .collect();
    let mut won = 0;
    for claim in claims {
        match claim.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(home.number("SELECT count(*) FROM evenkeel.record").await, 80);
}
