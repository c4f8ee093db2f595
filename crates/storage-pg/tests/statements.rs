//! What is sent to the server, by its own log.

mod common;

use std::time::Duration;

use common::{Home, batch, claim, key, now, partition};
use evenkeel_core::{Expect, Hold, Lease, Merge, NewEvent, Read, Store, Token, Transactional};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services::{PgBouncer, Postgres};
use futures_util::future::try_join_all;

evenkeel_testkit::server_tests! {
    "pg", Postgres::available => [
        each_call_costs_one_statement,
        what_waits_at_the_same_moment_shares_a_statement,
        what_a_call_looks_at_does_not_grow_with_what_is_stored,
        a_transaction_that_connects_costs_one_more_than_its_users_statements_begin_and_commit,
    ],
    "pgbouncer", PgBouncer::available => [each_call_costs_one_statement_through_a_proxy],
}

fn logging() -> Postgres {
    Postgres::start_with(&["log_statement=all", "fsync=off"]).unwrap()
}

/// The statements of the store in the server's log, except hints, which nobody waits for.
fn statements(postgres: &Postgres) -> Vec<String> {
    let log = postgres.log();
    let is_statement = |line: &&str| line.contains("LOG:  execute ") || line.contains("LOG:  statement: ");
    log.lines().filter(is_statement).filter(|line| !line.contains("pg_notify")).map(str::to_owned).collect()
}

/// Asserts that the call costs as many statements, once its statements are prepared.
async fn costs(postgres: &Postgres, what: &str, expected: usize, call: impl AsyncFn(usize)) {
    call(0).await;
    let before = statements(postgres).len();
    call(1).await;
    let sent = statements(postgres).split_off(before);
    assert_eq!(sent.len(), expected, "{what}: {sent:#?}");
}

async fn each_call_costs_one_statement() {
    let postgres = logging();
    let home = Home::on(postgres.url());
    each_call(&postgres, &home.config().connections(1).open().await.unwrap()).await;
}

async fn each_call_costs_one_statement_through_a_proxy() {
    let postgres = logging();
    let proxy = PgBouncer::start(&postgres).unwrap();
    let home = Home::on(proxy.url());
    each_call(&postgres, &home.config().pooled().connections(1).open().await.unwrap()).await;
}

async fn each_call(postgres: &Postgres, store: &PgStore) {
    let at = partition(store);
    let hold = || Hold { token: Token::fresh(), until: now() + Duration::from_secs(60) };
    costs(postgres, "a claim", 1, async |n| {
        store.commit(claim(store, &format!("claimed {n}"))).await.unwrap();
    })
    .await;
    costs(postgres, "a conflict that says who has it", 1, async |_| {
        store.commit(claim(store, "claimed 0")).await.unwrap_err();
    })
    .await;
    costs(postgres, "an append of 100 events", 1, async |n| {
        let mut batch = batch(store);
        batch.append_any(format!("s {n}"), (0..100).map(|_| NewEvent::new("Happened", "{}", now())));
        store.commit(batch).await.unwrap();
    })
    .await;
    costs(postgres, "a batch of everything", 1, async |n| {
        let mut batch = batch(store);
        batch
            .put(key(&format!("everything {n}")), "", Expect::Absent)
            .delete(key("nothing"), Expect::Absent)
            .append_any("s", [NewEvent::new("Happened", "{}", now())])
            .trim("another", 7)
            .push("queue", format!("{n}"), now(), "", Merge::Sooner)
            .push_leased("queue", format!("{n} leased"), now(), "", hold())
            .cancel("queue", "nothing");
        store.commit(batch).await.unwrap();
    })
    .await;
    costs(postgres, "a lease", 1, async |_| {
        let hold_for = Duration::from_secs(60);
        let want = Lease { queue: "queue".into(), max: 1, hold_for, now: now() };
        assert_eq!(store.lease(&at, want).await.unwrap().jobs.len(), 1);
    })
    .await;
    costs(postgres, "a read of the log", 1, async |_| {
        assert_eq!(store.read(&at, Read::partition(0, 100)).await.unwrap().events.len(), 100);
    })
    .await;
    costs(postgres, "a look at three records", 1, async |_| {
        store.get(&at, now(), &[key("a"), key("b"), key("claimed 0")]).await.unwrap();
    })
    .await;
    costs(postgres, "a sweep", 1, async |_| {
        store.sweep(&at, now(), 100).await.unwrap();
    })
    .await;
}

async fn what_waits_at_the_same_moment_shares_a_statement() {
    let postgres = logging();
    let store = Home::on(postgres.url()).open().await;
    store.commit(claim(&store, "warm")).await.unwrap();
    let before = statements(&postgres).len();
    let claims = (0..100).map(|n| store.commit(claim(&store, &n.to_string())));
    try_join_all(claims).await.unwrap();
    let sent = statements(&postgres).split_off(before);
    assert!(sent.len() <= 3, "{} statements for 100 batches", sent.len());
}

async fn what_a_call_looks_at_does_not_grow_with_what_is_stored() {
    const TIMES: usize = 400;
    // A connection of its own makes plans of its own: there are sizes at which an index that only begins
    // like another is a page less high, and would look better.
    const PLANNED_ANEW_AFTER: usize = 20;
    const QUEUE: &str = "a queue of a name that is not short";
    // Nobody tells the planner that the tables grow: its plans have to do from the size that it met.
    let postgres = Postgres::start_with(&["autovacuum=off", "fsync=off"]).unwrap();
    let home = Home::on(postgres.url());
    let open = || async { home.config().connections(1).open().await.unwrap() };
    let mut store = open().await;
    for n in 0..TIMES {
        if n % PLANNED_ANEW_AFTER == 0 {
            store = open().await;
        }
        let mut written = batch(&store);
        written
            .put(key(&format!("{n}")), "", Expect::Absent)
            .append_any(format!("a stream of such a name {n}"), [NewEvent::new("Happened", "{}", now())])
            .push_leased("leased", format!("{n}"), now(), "", Hold { token: Token::fresh(), until: now() });
        if let Some(old) = n.checked_sub(7) {
            written.delete(key(&format!("{old}")), Expect::Any);
        }
        for nth in n * 10..(n + 1) * 10 {
            // Neither by when they are due nor by id do they come in order.
            let id = format!("{} of such a name", nth * 7919 % (TIMES * 10));
            written.push(QUEUE, id, now(), "", Merge::Keep);
        }
        store.commit(written).await.unwrap();
        let at = partition(&store);
        assert!(store.get(&at, now(), &[key(&format!("{n}"))]).await.unwrap()[0].is_some());
        let want = Lease { queue: QUEUE.into(), max: 1, hold_for: Duration::from_secs(60), now: now() };
        let job = store.lease(&at, want).await.unwrap().jobs.remove(0);
        let mut acknowledged = batch(&store);
        acknowledged.ack(QUEUE, job.id, job.token);
        store.commit(acknowledged).await.unwrap();
    }
    drop(store);

    // A connection tells what it counted at its end at the latest; the one that asks is the server's last.
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    common::until("the store's connections are gone", async || home.number(connections).await == 1).await;
    let looked_at = home
        .number(&format!(
            "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = '{0}')::bigint
                  + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '{0}')::bigint",
            home.schema
        ))
        .await;
    let times = u64::try_from(looked_at).unwrap() / TIMES as u64;
    assert!((1..20).contains(&times), "{looked_at} rows looked at");
}

async fn a_transaction_that_connects_costs_one_more_than_its_users_statements_begin_and_commit() {
    let postgres = logging();
    let store = Home::on(postgres.url()).config().transactions(1).open().await.unwrap();
    costs(&postgres, "begin, the user's statement, the batch, commit", 4, async |n| {
        let mut tx = store.begin(partition(&store), now()).await.unwrap();
        sqlx::query("SELECT 'the user'").execute(tx.conn().await.unwrap()).await.unwrap();
        *tx.batch() = claim(&store, &n.to_string());
        store.finish(tx).await.unwrap();
    })
    .await;
    costs(&postgres, "a transaction that never connects", 1, async |n| {
        let mut tx = store.begin(partition(&store), now()).await.unwrap();
        *tx.batch() = claim(&store, &format!("again {n}"));
        store.finish(tx).await.unwrap();
    })
    .await;
}
