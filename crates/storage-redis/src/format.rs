//! What the store is, and whether these servers can keep it.

use std::collections::HashMap;

use evenkeel_core::{Durability, Error, ErrorKind, Result, Timestamp};
use redis::cluster_routing::Slot;
use redis::{Cmd, Value};
use uuid::Uuid;

use crate::commit::Wait;
use crate::config::RedisConfig;
use crate::error::parse_redis_error;
use crate::rows;
use crate::script::{self, Arguments};
use crate::server::{Failure, Server};
use crate::servers::{Effect, OF_A_CLUSTER, Request, Servers};

/// The form in which this release stores things. A script that would misread what an older one
/// wrote, or write what an older one would misread, makes another.
const FORMAT: u64 = 1;

/// The id of the store, which is created where there is none, and how many partitions it has.
pub(crate) async fn open(servers: &Servers, config: &RedisConfig) -> Result<(Uuid, u32)> {
    let prefix = &config.prefix;
    let key = format!("{{{prefix}}}:store");
    let mut arguments = Arguments::default();
    arguments.display(FORMAT).display(config.partitions_at_first()).display(Uuid::new_v4());
    let cmd = script::OPEN.call(std::slice::from_ref(&key), &arguments);
    let request = Request::new(Slot::for_key(&key), Effect::Reads, "opening", cmd);
    let found = rows::array(servers.ask(&request).await?)?;
    let [format, created_with, id] = <[Value; 3]>::try_from(found).map_err(|_| rows::damaged("store"))?;
    let format = rows::number(&format)?;
    if format > FORMAT {
        return Err(Error::new(
            ErrorKind::Config,
            "the store was written by a newer evenkeel: upgrade this process",
        )
        .with("prefix", prefix)
        .with("format", format)
        .with("known", FORMAT));
    }
    let created_with = u32::try_from(rows::number(&created_with)?).map_err(|_| rows::damaged("store"))?;
    if let Some(wanted) = config.partitions.filter(|wanted| *wanted != created_with) {
        return Err(Error::new(ErrorKind::Config, "the store has another number of partitions")
            .with("prefix", prefix)
            .with("created with", created_with)
            .with("opened with", wanted));
    }
    let id =
        Uuid::parse_str(&rows::text(id)?).map_err(|source| rows::damaged("store").with_source(source))?;
    Ok((id, created_with))
}

/// Checks each server, and says what commits outlive on all of them.
pub(crate) async fn check(servers: &Servers, wait: Option<Wait>) -> Result<Durability> {
    let mut durability = Durability::Machine;
    for server in servers.masters() {
        let info = rows::text(ask(&server, &redis::cmd("INFO")).await?)?;
        let info = Info::parse(&info);
        if info.says("cluster_enabled") == "1" && !servers.is_cluster() {
            return Err(Error::new(ErrorKind::Config, OF_A_CLUSTER).with("server", server.address()));
        }
        durability = lesser(durability, check_server(&server, &info, wait).await?);
    }
    Ok(durability)
}

/// What a server's clock says.
pub(crate) async fn time(server: &Server) -> Result<Timestamp> {
    let time = rows::array(ask(server, &redis::cmd("TIME")).await?)?;
    let [seconds, micros] = <[Value; 2]>::try_from(time).map_err(|_| rows::damaged("time"))?;
    let micros = rows::number(&seconds)?.saturating_mul(1_000_000).saturating_add(rows::number(&micros)?);
    Ok(Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
}

async fn check_server(server: &Server, info: &Info<'_>, wait: Option<Wait>) -> Result<Durability> {
    let version = info.version();
    let refuse = |why| {
        let error = Error::new(ErrorKind::Config, why).with("server", server.address());
        error.with("version", info.says("redis_version"))
    };
    if version < (7, 0) {
        return Err(refuse("redis is older than 7.0"));
    }
    let policy = info.says("maxmemory_policy");
    if policy.starts_with("allkeys") {
        return Err(refuse(
            "the server throws away what does not expire when its memory is full: set maxmemory-policy to \
             noeviction, or to one that begins with \"volatile\"",
        )
        .with("maxmemory-policy", policy));
    }
    let appends = info.says("aof_enabled") == "1";
    if matches!(wait, Some(Wait::Disk { .. })) {
        if version < (7, 2) {
            return Err(refuse("waiting for the disk needs WAITAOF, of redis 7.2"));
        }
        if !appends {
            return Err(refuse("waiting for the disk needs appendonly yes"));
        }
        return Ok(Durability::Machine);
    }
    if !appends {
        return Ok(Durability::None);
    }
    Ok(match setting(server, "appendfsync").await.as_deref() {
        Some("always") => Durability::Machine,
        // Where the server does not say, it is as it comes: everysec.
        _ => Durability::Process,
    })
}

/// A setting of the server, where it tells: managed ones keep theirs to themselves.
async fn setting(server: &Server, name: &str) -> Option<String> {
    let answer = ask(server, redis::cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
    match answer {
        Value::Map(settings) => settings.into_iter().next().and_then(|(_, value)| rows::text(value).ok()),
        _ => None,
    }
}

async fn ask(server: &Server, cmd: &Cmd) -> Result<Value> {
    let doing = "looking at the server";
    match server.send(cmd).await {
        Ok(Value::ServerError(error)) => Err(parse_redis_error(error.into(), ErrorKind::Unavailable, doing)),
        Ok(Value::VerbatimString { text, .. }) => Ok(Value::BulkString(text.into_bytes())),
        Ok(answer) => Ok(answer),
        Err(Failure::NotSent(error)) => Err(error),
        Err(Failure::Lost(error)) => Err(parse_redis_error(error, ErrorKind::Unavailable, doing)),
    }
}

/// What `INFO` says, by name.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).collect())
    }

    fn says(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Major and minor; Valkey says which Redis it is like.
    fn version(&self) -> (u32, u32) {
        let mut parts = self.says("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next())
    }
}

const fn lesser(one: Durability, other: Durability) -> Durability {
    match (one, other) {
        (Durability::None, _) | (_, Durability::None) => Durability::None,
        (Durability::Process, _) | (_, Durability::Process) => Durability::Process,
        _ => Durability::Machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_read() {
        let info = Info::parse("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!(info.version(), (7, 0));
        assert_eq!(info.says("maxmemory_policy"), "noeviction");
        assert_eq!(info.says("aof_enabled"), "");
        assert!(Info::parse("redis_version:6.2.14").version() < (7, 0));
        assert!(Info::parse("redis_version:7.2.4\nvalkey_version:8.0.1").version() >= (7, 2));
        assert_eq!(Info::parse("").version(), (0, 0));
    }
}
