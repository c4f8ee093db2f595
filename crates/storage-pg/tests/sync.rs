//! Which commits wait for the disk, as the server sees it when it commits.

mod common;

use common::{Home, claim, now, partition};
use evenkeel_core::{Batch, Merge, Store, Transactional};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        an_unsynced_batch_does_not_wait_and_the_next_one_does,
        a_fold_waits_where_one_of_its_batches_is_synced,
        an_unsynced_transaction_does_not_wait_and_the_next_one_does,
        the_users_own_transaction_waits_as_its_user_says,
    ],
}

/// A store on sessions that wait for the disk, and a table of what their commits did.
async fn store_that_notes(home: &Home) -> PgStore {
    let store = home.config().transactions(1).open().await.unwrap();
    home.run(
        "CREATE TABLE evenkeel.noted (nth integer GENERATED ALWAYS AS IDENTITY, waits text);
         CREATE FUNCTION evenkeel.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO evenkeel.noted (waits) VALUES (current_setting('synchronous_commit'));
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON evenkeel.record
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evenkeel.note()",
    )
    .await;
    store
}

fn home() -> Home {
    Home::on(format!("{}?options=-c%20synchronous_commit%3Don", services::pg_url().unwrap()))
}

/// How each record that was created was committed: deferred triggers run as the commit begins.
async fn noted(home: &Home) -> Vec<String> {
    let sql = AssertSqlSafe(home.sql("SELECT waits FROM evenkeel.noted ORDER BY nth"));
    sqlx::query_scalar(sql).fetch_all(&mut home.connect().await).await.unwrap()
}

fn unsynced(mut batch: Batch) -> Batch {
    batch.set_unsynced();
    batch
}

/// A batch that is about more than records: another function commits it.
fn claim_and_push(store: &PgStore, id: &str) -> Batch {
    let mut batch = claim(store, id);
    batch.push("queue", id, now(), "", Merge::Keep);
    batch
}

async fn an_unsynced_batch_does_not_wait_and_the_next_one_does() {
    let home = home();
    let store = store_that_notes(&home).await;
    for (id, batch_of) in [("few", claim as fn(&PgStore, &str) -> Batch), ("many", claim_and_push)] {
        store.commit(unsynced(batch_of(&store, id))).await.unwrap();
        store.commit(batch_of(&store, &format!("{id} again"))).await.unwrap();
    }
    assert_eq!(noted(&home).await, ["off", "on", "off", "on"]);
}

async fn a_fold_waits_where_one_of_its_batches_is_synced() {
    let home = home();
    let store = store_that_notes(&home).await;
    for (synced, expected) in [(None, "off"), (Some(7), "on")] {
        let one = |n| {
            let batch = claim(&store, &format!("{expected} {n}"));
            if Some(n) == synced { batch } else { unsynced(batch) }
        };
        let batches: Vec<Batch> = (0..20).map(one).collect();
        let before = noted(&home).await.len();
        for verdict in common::commit_as_one_fold(&home, &store, &batches).await {
            verdict.unwrap();
        }
        let noted = noted(&home).await.split_off(before);
        assert_eq!(noted.iter().filter(|waits| *waits == expected).count(), 20, "{noted:?}");
    }
}

async fn an_unsynced_transaction_does_not_wait_and_the_next_one_does() {
    let home = home();
    let store = store_that_notes(&home).await;
    for (id, is_synced) in [("first", false), ("second", true)] {
        let mut tx = store.begin(partition(&store), now()).await.unwrap();
        tx.conn().await.unwrap();
        let batch = claim(&store, id);
        *tx.batch() = if is_synced { batch } else { unsynced(batch) };
        store.finish(tx).await.unwrap();
    }
    assert_eq!(noted(&home).await, ["off", "on"]);
}

async fn the_users_own_transaction_waits_as_its_user_says() {
    let home = home();
    let store = store_that_notes(&home).await;
    let pool = PgPoolOptions::new().max_connections(1).connect(&home.url).await.unwrap();
    for setting in ["on", "local", "off"] {
        let mut tx = pool.begin().await.unwrap();
        let set = format!("SET LOCAL synchronous_commit = {setting}");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *tx).await.unwrap();
        store.commit_with(tx, unsynced(claim(&store, setting))).await.unwrap();
    }
    assert_eq!(noted(&home).await, ["on", "local", "off"]);
}
