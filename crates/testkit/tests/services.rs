//! Private servers come up, can be killed and restarted where they were, keep what they promised to
//! keep, and leave nothing behind.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::TcpStream;

use evenkeel_testkit::services::{PgBouncer, Postgres, Redis, RedisCluster};

/// The address in a URL.
fn address(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    rest.split('/').next().unwrap()
}

/// Whether PostgreSQL lets its superuser in; a proxy does after it asked the server.
fn welcomes(url: &str) -> bool {
    let hello = || -> Result<u8> {
        let mut connection = TcpStream::connect(address(url))?;
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(8 + parameters.len()).unwrap();
        connection.write_all(&[&length.to_be_bytes(), &[0, 3, 0, 0], &parameters[..]].concat())?;
        let mut kind = [0];
        connection.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    hello().is_ok_and(|kind| kind == b'R')
}

/// Redis' first line of an answer.
fn redis(url: &str, command: &str) -> Result<String> {
    let mut connection = BufReader::new(TcpStream::connect(address(url))?);
    connection.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

async fn postgres_comes_back_where_it_was() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.url();
    assert!(welcomes(&url));

    postgres.kill();
    assert!(!welcomes(&url));
    postgres.restart().unwrap();
    assert!(welcomes(&url));
    assert!(postgres.log().contains("was not properly shut down"), "{}", postgres.log());

    postgres.stop();
    assert!(!welcomes(&url));
    postgres.restart().unwrap();
    assert!(welcomes(&url));
    assert!(!postgres.log().contains("was not properly shut down"), "{}", postgres.log());

    assert_eq!(postgres.url(), url);
    drop(postgres);
    assert!(!welcomes(&url));
}

async fn postgres_takes_settings_and_names_those_it_does_not_know() {
    let postgres = Postgres::start_with(&["log_checkpoints=off", "log_connections=on"]).unwrap();
    assert!(welcomes(&postgres.url()));
    assert!(postgres.log().contains("connection authorized: user=postgres"), "{}", postgres.log());

    let error = Postgres::start_with(&["no_such_setting=on"]).unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
}

async fn pgbouncer_outlives_the_server_behind_it() {
    let postgres = Postgres::start_careless().unwrap();
    let pgbouncer = PgBouncer::start(&postgres).unwrap();
    assert!(welcomes(&pgbouncer.url()));
    postgres.kill();
    postgres.restart().unwrap();
    assert!(welcomes(&pgbouncer.url()));

    pgbouncer.kill();
    assert!(!welcomes(&pgbouncer.url()));
    pgbouncer.restart().unwrap();
    assert!(welcomes(&pgbouncer.url()));
}

async fn redis_keeps_what_it_was_asked_to_keep() {
    let keeps = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let forgets = Redis::start(&[]).unwrap();
    for (server, kept) in [(&keeps, "$5"), (&forgets, "$-1")] {
        let url = server.url();
        assert_eq!(redis(&url, "SET key value").unwrap(), "+OK");
        server.kill();
        assert!(redis(&url, "PING").is_err());
        server.restart().unwrap();
        assert_eq!(redis(&url, "GET key").unwrap(), kept);
    }
    let url = keeps.url();
    drop(keeps);
    assert!(redis(&url, "PING").is_err());
}

async fn a_redis_cluster_is_whole_again_after_a_node_was_killed() {
    let cluster = RedisCluster::start(&["--appendonly", "yes"]).unwrap();
    let urls = cluster.url();
    let urls: Vec<_> = urls.split(',').collect();
    assert_eq!(urls.len(), 3);
    let answers: Vec<_> = urls.iter().map(|url| redis(url, "SET key value").unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "+OK").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("-MOVED")).count(), 2, "{answers:?}");

    cluster.nodes()[0].kill();
    cluster.nodes()[0].restart().unwrap();
    cluster.wait_until_whole().unwrap();
    cluster.kill();
    cluster.restart().unwrap();
    assert_eq!(cluster.url().split(',').collect::<Vec<_>>(), urls);
    let found: Vec<_> = urls.iter().map(|url| redis(url, "GET key").unwrap()).collect();
    assert!(found.contains(&"$5".to_owned()), "{found:?}");
}

evenkeel_testkit::server_tests! {
    "pg", Postgres::available => [
        postgres_comes_back_where_it_was,
        postgres_takes_settings_and_names_those_it_does_not_know,
    ],
    "pgbouncer", PgBouncer::available => [pgbouncer_outlives_the_server_behind_it],
    "redis", Redis::available => [redis_keeps_what_it_was_asked_to_keep],
    "redis-cluster", Redis::available => [a_redis_cluster_is_whole_again_after_a_node_was_killed],
}
