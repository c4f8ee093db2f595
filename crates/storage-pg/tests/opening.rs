//! Opening a store: many at once, and what is refused.

mod common;

use std::time::Duration;

use common::{Home, batch, claim, exists, key};
use evenkeel_core::{
    AnyStore, Batch, Clock, Durability, ErrorKind, Expect, Key, ManualClock, Merge, NewEvent, Read, Signal,
    Store, StoreExt, Writers,
};
use evenkeel_storage_pg::{PgConfig, PgStore};
use evenkeel_testkit::services;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Row};

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        many_nodes_create_the_schema_at_once,
        a_store_is_there_when_opened_again,
        another_number_of_partitions_is_refused,
        a_newer_format_is_refused,
        stores_in_two_schemas_are_two,
        a_clock_too_far_from_the_servers_is_refused,
        a_role_that_may_not_create_a_schema_may_use_one,
        a_server_that_is_not_there_is_unavailable,
        a_user_that_is_not_known_is_misconfigured,
        what_the_server_keeps_data_through_is_told,
        people_can_read_what_is_stored,
    ],
    "pgbouncer", services::pgbouncer_url => [
        many_nodes_create_the_schema_at_once_through_a_proxy,
        a_proxy_that_was_not_told_of_is_misconfigured,
        every_kind_of_text_arrives_through_a_proxy,
        signals_reach_a_proxys_user_on_a_direct_connection,
    ],
}

async fn open_many(config: impl Fn() -> PgConfig) -> Vec<PgStore> {
    let openings = (0..12).map(|_| tokio::spawn(config().open()));
    join_all(openings).await.into_iter().map(|store| store.unwrap().unwrap()).collect()
}

async fn assert_one_store(home: &Home, nodes: &[PgStore]) {
    for (n, node) in nodes.iter().enumerate() {
        node.commit(claim(node, &n.to_string())).await.unwrap();
    }
    for n in 0..nodes.len() {
        assert!(exists(&nodes[0], &n.to_string()).await);
    }
    assert_eq!(home.number("SELECT count(*) FROM evenkeel.store").await, 1);
}

async fn many_nodes_create_the_schema_at_once() {
    let home = Home::shared();
    let nodes = open_many(|| home.config().connections(1)).await;
    assert_one_store(&home, &nodes).await;
}

async fn many_nodes_create_the_schema_at_once_through_a_proxy() {
    let home = Home::on(services::pgbouncer_url().unwrap());
    let nodes = open_many(|| home.config().connections(1).pooled()).await;
    assert_one_store(&Home { url: services::pg_url().unwrap(), ..home }, &nodes).await;
}

async fn a_store_is_there_when_opened_again() {
    let home = Home::shared();
    let store = home.open().await;
    store.commit(claim(&store, "a")).await.unwrap();
    drop(store);
    assert!(exists(&home.open().await, "a").await);
}

async fn refused(config: PgConfig) -> ErrorKind {
    config.open().await.unwrap_err().kind()
}

async fn another_number_of_partitions_is_refused() {
    let home = Home::shared();
    home.config().partitions(4).open().await.unwrap();
    let error = home.config().partitions(2).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let told = error.to_string();
    assert!(told.contains("created with: 4") && told.contains("opened with: 2"), "{told}");
}

async fn a_newer_format_is_refused() {
    let home = Home::shared();
    let store = home.open().await;
    home.run("UPDATE evenkeel.store SET format = format + 1").await;
    let error = home.config().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("newer evenkeel: open it with that release"), "{error}");
    store.commit(claim(&store, "a")).await.expect("nodes that run go on");
}

async fn stores_in_two_schemas_are_two() {
    let (one, other) = (Home::shared(), Home::shared());
    let (one, other) = (one.open().await, other.open().await);
    one.commit(claim(&one, "a")).await.unwrap();
    assert!(!exists(&other, "a").await);
    assert!(one.info() == other.info());
}

async fn a_clock_too_far_from_the_servers_is_refused() {
    let home = Home::shared();
    let skewed = ManualClock::at(common::now() + Duration::from_secs(60));
    assert_eq!(refused(home.config().clock(skewed.shared())).await, ErrorKind::Config);
    let lenient = home.config().clock(skewed.shared()).max_skew(Duration::from_secs(90));
    lenient.open().await.unwrap();

    // A clock that goes astray later is found out within a minute.
    let clock = ManualClock::at(common::now());
    let store = home.config().clock(clock.shared()).open().await.unwrap();
    clock.advance(Duration::from_secs(61));
    let at = common::partition(&store);
    common::until("the clocks are compared", async || {
        store.get(&at, clock.now(), &[]).await.is_err_and(|error| error.kind() == ErrorKind::Config)
    })
    .await;
}

async fn a_role_that_may_not_create_a_schema_may_use_one() {
    let home = Home::shared();
    home.open().await;
    let role = format!("r_{}", home.schema);
    home.run(&format!(
        "CREATE ROLE {role} LOGIN;
         GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        schema = home.schema
    ))
    .await;
    let humble =
        Home { url: home.url.replace("postgres@", &format!("{role}@")), schema: home.schema.clone() };
    let store = humble.open().await;
    store.commit(claim(&store, "a")).await.unwrap();

    let elsewhere = Home { schema: format!("{}_", home.schema), ..humble };
    assert_eq!(refused(elsewhere.config()).await, ErrorKind::Config);
}

async fn a_server_that_is_not_there_is_unavailable() {
    let config = PgConfig::new("pg://127.0.0.1:1/nothing").unwrap();
    assert_eq!(refused(config.acquire_timeout(Duration::from_millis(100))).await, ErrorKind::Unavailable);
}

async fn a_user_that_is_not_known_is_misconfigured() {
    let home = Home::shared();
    let stranger = Home::on(home.url.replace("postgres@", "a_stranger@"));
    assert_eq!(refused(stranger.config()).await, ErrorKind::Config);
}

async fn what_the_server_keeps_data_through_is_told() {
    let home = Home::shared();
    let store = home.open().await;
    assert_eq!((store.info().name, store.info().writers), ("pg", Writers::Many));
    let asked = "SELECT (current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off')::int::bigint";
    let expected = if home.number(asked).await == 1 { Durability::Machine } else { Durability::Process };
    assert_eq!(store.info().durability, expected);

    let url = format!("{}?options=-c%20synchronous_commit%3Doff", home.url);
    let careless = Home { url, schema: home.schema.clone() };
    assert_eq!(careless.open().await.info().durability, Durability::Process);
}

async fn people_can_read_what_is_stored() {
    let home = Home::shared();
    let store = home.open().await;
    let mut batch = batch(&store);
    batch
        .put(key("json"), r#"{"total": 7}"#, Expect::Absent)
        .put(key("text"), "not {json", Expect::Absent)
        .put(key("binary"), vec![0xff, 0x00], Expect::Absent)
        .append_any("s", [NewEvent::new("Placed", r#"{"id": 17}"#, common::now()).with("by", "Ann\0")])
        .push("mail", "17", common::now(), "thanks", Merge::Keep);
    store.commit(batch).await.unwrap();

    let mut conn = home.connect().await;
    let mut lines = Vec::new();
    for sql in [
        "SELECT id || ' ' || value::text AS line FROM evenkeel.record_json ORDER BY id",
        "SELECT kind || ' ' || (payload ->> 'id') AS line FROM evenkeel.event_json",
        "SELECT id || ' ' || payload::text || ' ' || leased AS line FROM evenkeel.job_json",
    ] {
        let rows = sqlx::query(AssertSqlSafe(home.sql(sql))).fetch_all(&mut conn).await.unwrap();
        lines.extend(rows.iter().map(|row| row.get::<String, _>("line")));
    }
    let expected = [
        r#"binary "/wA=""#,
        r#"json {"total": 7}"#,
        r#"text "not {json""#,
        "Placed 17",
        r#"17 "thanks" false"#,
    ];
    assert_eq!(lines, expected);
}

async fn a_proxy_that_was_not_told_of_is_misconfigured() {
    let home = Home::on(services::pgbouncer_url().unwrap());
    let error = home.config().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`pooled`"), "{error}");
}

async fn every_kind_of_text_arrives_through_a_proxy() {
    let home = Home::on(services::pgbouncer_url().unwrap());
    let store: AnyStore = home.config().pooled().open().await.unwrap().into();
    let at = store.partition_of("here");
    let texts =
        ["it's", "\\", "\\'", "'; DROP TABLE record; --", "$1", "\u{1}\t\r\n", "ä☃\u{10ffff}", "E'\\x41'"];
    for text in texts {
        let key = Key::new("test", text, text);
        let mut batch = Batch::new(at.clone(), common::now());
        let event = NewEvent::new(text, text, common::now()).with(text, text);
        batch.put(key.clone(), text, Expect::Absent).append_any(text, [event.clone()]);
        store.commit(batch).await.unwrap();
        let found = store.get(&at, common::now(), &[key]).await.unwrap();
        assert_eq!(found[0].as_ref().unwrap().value, text);
        let slice = store.read(&at, Read::stream(text, 0, 1)).await.unwrap();
        assert_eq!((&*slice.events[0].kind, &slice.events[0].metadata), (text, &event.metadata));
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut batch = Batch::new(at.clone(), common::now());
    batch.put(key("bytes"), every_byte.clone(), Expect::Absent);
    store.commit(batch).await.unwrap();
    let found = store.get(&at, common::now(), &[key("bytes")]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().value, every_byte);
}

async fn signals_reach_a_proxys_user_on_a_direct_connection() {
    let home = Home::on(services::pgbouncer_url().unwrap());
    let config = home.config().pooled().direct_url(&services::pg_url().unwrap()).unwrap();
    let (listening, other) = (config.open().await.unwrap(), home.config().pooled().open().await.unwrap());
    let mut signals = listening.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    other.commit(common::append(&other, "s")).await.unwrap();
    assert_eq!(signals.next().await, Signal::Log { at: common::partition(&other) });
}
