//! Database files as they come: shared, locked, read-only, damaged, of another make.

mod common;

use std::time::Duration;

use common::{Folder, claim, exists, key, now, partition};
use evenkeel_core::{
    Batch, Durability, Error, ErrorKind, Expect, NewEvent, Read, Store, StoreExt, SystemClock, Transactional,
};
use evenkeel_storage_sqlite::{SqliteConfig, SqliteStore, Synchronous};
use sqlx::{Connection, SqliteConnection};

async fn open_error(url: &str) -> Error {
    SqliteStore::open(url).await.unwrap_err()
}

fn assert_error(error: &Error, kind: ErrorKind, says: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(says), "{error:?}");
}

async fn execute(folder: &Folder, sql: &'static str) {
    let mut conn = SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let folder = Folder::new();
    let store = folder.open().await;
    store.commit(claim(&store, "a")).await.unwrap();
    drop(store);
    assert!(exists(&folder.open().await, "a").await);
}

#[tokio::test]
async fn an_in_memory_store_is_shared_by_its_handles_and_nobody_else() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
    assert!(exists(&store.clone(), "a").await);
    let other = SqliteStore::open("sqlite::memory:").await.unwrap();
    assert!(!exists(&other, "a").await);
}

async fn pragma<T>(store: &SqliteStore, sql: &'static str) -> T
where
    T: sqlx::Type<sqlx::Sqlite> + for<'r> sqlx::Decode<'r, sqlx::Sqlite> + Send + Unpin,
{
    let mut tx = store.begin(partition(store), now()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(tx.conn().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn commits_are_durable_unless_told_otherwise() {
    const FULL: i64 = 2;
    const NORMAL: i64 = 1;
    let folder = Folder::new();
    let store = folder.open().await;
    assert_eq!(pragma::<String>(&store, "PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma::<i64>(&store, "PRAGMA synchronous").await, FULL);
    assert_eq!(store.info().durability, Durability::Machine);

    let relaxed = folder.config().synchronous(Synchronous::Normal).open().await.unwrap();
    assert_eq!(pragma::<i64>(&relaxed, "PRAGMA synchronous").await, NORMAL);
    assert_eq!(relaxed.info().durability, Durability::Process);
}

#[tokio::test]
async fn another_partition_count_is_refused() {
    let folder = Folder::new();
    drop(folder.config().partitions(4).open().await.unwrap());
    let error = folder.config().partitions(8).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "created with: 4, opened with: 8");
    let error = folder.config().partitions(0).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "1 to 65,536 partitions");
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let folder = Folder::new();
    drop(folder.open().await);
    execute(&folder, "INSERT INTO evenkeel_migration (version) VALUES (99)").await;
    assert_error(&open_error(&folder.url()).await, ErrorKind::Config, "newer evenkeel");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    for url in ["", "shop.db", "postgres://x", "sqlite://x.db?mode=wild", "sqlite://x.db?colour=red"] {
        assert_error(&open_error(url).await, ErrorKind::Config, "url");
    }
}

#[tokio::test]
async fn a_file_that_must_exist_and_does_not_is_refused() {
    let folder = Folder::new();
    for mode in ["ro", "rw"] {
        let error = open_error(&format!("{}?mode={mode}", folder.url())).await;
        assert_error(&error, ErrorKind::Config, "cannot be opened");
    }
    let nowhere = format!("sqlite://{}/no/such/folder.db", folder.path().display());
    assert_error(&open_error(&nowhere).await, ErrorKind::Config, "cannot be opened");
}

#[tokio::test]
async fn a_read_only_store_reads_and_refuses_to_write() {
    let folder = Folder::new();
    let writable = folder.open().await;
    writable.commit(claim(&writable, "a")).await.unwrap();

    let store = SqliteStore::open(&format!("{}?mode=ro", folder.url())).await.unwrap();
    assert!(exists(&store, "a").await);
    let error = store.commit(claim(&store, "b")).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, "opened read-only");
    let error = store.sweep(&partition(&store), now(), 10).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, "opened read-only");
}

#[tokio::test]
async fn a_read_only_file_without_the_schema_is_refused() {
    let folder = Folder::new();
    let mut conn = SqliteConnection::connect(&format!("{}?mode=rwc", folder.url())).await.unwrap();
    sqlx::raw_sql("CREATE TABLE mine (id)").execute(&mut conn).await.unwrap();
    let error = open_error(&format!("{}?mode=ro", folder.url())).await;
    assert_error(&error, ErrorKind::Config, "no current evenkeel schema");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let folder = Folder::new();
    std::fs::write(folder.path(), "once upon a time ".repeat(1000)).unwrap();
    assert_error(&open_error(&folder.url()).await, ErrorKind::Corrupt, "not a sqlite database");
}

#[tokio::test]
async fn a_damaged_database_is_corrupt() {
    let folder = Folder::new();
    let store = folder.open().await;
    for n in 0..200 {
        store.commit(claim(&store, &format!("r{n}"))).await.unwrap();
    }
    drop(store);
    execute(&folder, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let mut bytes = std::fs::read(folder.path()).unwrap();
    bytes[4096..].fill(0xA5);
    std::fs::write(folder.path(), bytes).unwrap();

    let error = open_error(&folder.url()).await;
    assert_error(&error, ErrorKind::Corrupt, "damaged");
}

#[tokio::test]
async fn a_file_that_another_process_keeps_locked_is_unavailable() {
    let folder = Folder::new();
    let store = folder.config().busy_timeout(Duration::from_millis(20)).open().await.unwrap();
    let mut other = SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();

    let error = store.commit(claim(&store, "a")).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, "locked by another connection");
    let opening = folder.config().busy_timeout(Duration::from_millis(20)).open().await;
    assert_error(&opening.unwrap_err(), ErrorKind::Unavailable, "locked by another connection");

    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_lose_and_double_nothing() {
    let folder = Folder::new();
    let stores = [folder.open().await, folder.open().await];
    let tasks: Vec<_> = (0..100_usize)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move {
                let mut batch = Batch::new(partition(&store), now());
                // Each name is claimed once through either store.
                batch.put(key(&format!("r{}", n / 2)), "v", Expect::Absent);
                batch.append_any("s", [NewEvent::new("Claimed", "{}", now())]);
                store.commit(batch).await.map_err(|error| error.kind())
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
        }
    }
    assert_eq!(won, 50);
    for store in &stores {
        let slice = store.read(&partition(store), Read::partition(0, 1000)).await.unwrap();
        let positions: Vec<u64> = slice.events.iter().map(|event| event.position).collect();
        assert_eq!(positions, (1..=50).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn many_openings_at_once_make_one_schema() {
    let folder = Folder::new();
    let openings: Vec<_> = (0..8).map(|_| tokio::spawn(folder.config().open())).collect();
    for opening in openings {
        let store = opening.await.unwrap().unwrap();
        store.get_one(&partition(&store), now(), &key("a")).await.unwrap();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_leaves_no_task_and_no_file_open_behind() {
    let folder = Folder::new();
    let files_open = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(folder.path().parent().unwrap())).count()
    };
    let tasks_alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let tasks_before = tasks_alive();

    let store = folder.open().await;
    // Whoever still listens does not keep the store.
    let _signals = store.signals();
    store.commit(claim(&store, "a")).await.unwrap();
    store.get_one(&partition(&store), now(), &key("a")).await.unwrap();
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    sqlx::query("CREATE TABLE users (id TEXT)").execute(tx.conn().await.unwrap()).await.unwrap();
    store.finish(tx).await.unwrap();
    let mut unfinished = store.begin(partition(&store), now()).await.unwrap();
    unfinished.conn().await.unwrap();
    // The writer's thread has files open as long as it runs.
    assert!(files_open() > 0, "there is something to leave behind");

    drop((unfinished, store));
    let clock = SystemClock::shared();
    let gone = async {
        while files_open() > 0 || tasks_alive() > tasks_before {
            clock.sleep(Duration::from_millis(1)).await;
        }
    };
    let deadline = clock.now() + Duration::from_secs(20);
    let in_time = clock.timeout_at(deadline, gone).await;
    assert!(in_time.is_some(), "{} files, {} tasks are left", files_open(), tasks_alive() - tasks_before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_spoils_its_fold_fails_alone() {
    let folder = Folder::new();
    let store = folder.open().await;
    execute(
        &folder,
        "CREATE TRIGGER poison BEFORE INSERT ON evenkeel_record WHEN NEW.id = 'poison' \
         BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
    )
    .await;

    // While the file is locked the commits line up, and make one fold.
    let mut other = SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            let id = if n == 7 { "poison".to_owned() } else { format!("r{n}") };
            tokio::spawn(async move { store.commit(claim(&store, &id)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    for (n, task) in tasks.into_iter().enumerate() {
        let result = task.await.unwrap();
        if n == 7 {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unexpected);
            assert!(format!("{error:?}").contains("poisoned"), "{error:?}");
        } else {
            result.unwrap();
        }
    }
}

#[tokio::test]
async fn a_config_is_checked_before_anything_is_opened() {
    assert_error(&SqliteConfig::new("mysql://x").unwrap_err(), ErrorKind::Config, "begins with \"sqlite:\"");
}
