//! Reclaiming.

use evenkeel_core::{Result, Timestamp};
use redis::{Cmd, Value};

use crate::keys::{Place, Tag};
use crate::rows;
use crate::script::{self, Arguments};
use crate::servers::{Effect, Request, Servers};

/// How much one call of a script reclaims at most, so that it does not keep everybody else waiting.
const CHUNK: usize = 500;

/// Removes expired records and the contents of trimmed events, at most `limit`.
pub(crate) async fn sweep(
    servers: &Servers,
    tag: &Tag,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let sweep = Sweep { servers, tag };
    let mut swept = 0;
    while swept < limit {
        match sweep.records(expired_before, CHUNK.min(limit - swept)).await? {
            0 => break,
            some => swept += some,
        }
    }
    while swept < limit {
        match sweep.events(CHUNK.min(limit - swept)).await? {
            0 => break,
            some => swept += some,
        }
    }
    Ok(swept)
}

struct Sweep<'a> {
    servers: &'a Servers,
    tag: &'a Tag,
}

impl Sweep<'_> {
    async fn records(&self, expired_before: Timestamp, limit: usize) -> Result<usize> {
        let expiries = self.tag.key(Place::Expiries);
        let mut find = redis::cmd("ZRANGEBYSCORE");
        find.arg(&expiries).arg("-inf").arg(format!("({}", expired_before.as_micros()));
        find.arg("LIMIT").arg(0).arg(limit);
        let expired = rows::array(self.ask(Effect::Reads, find).await?)?;
        if expired.is_empty() {
            return Ok(0);
        }
        let mut keys = vec![expiries];
        let mut arguments = Arguments::default();
        arguments.display(self.tag.name_begins()).push(rows::time(expired_before));
        for name in expired {
            let name = rows::text(name)?;
            let mut parts = name.splitn(3, '\0');
            let [Some(space), Some(group), Some(id)] = [(); 3].map(|()| parts.next()) else {
                return Err(rows::damaged("expiry"));
            };
            keys.extend(self.tag.keys(Place::Group { space, group }));
            arguments.push(id);
        }
        self.count(script::SWEEP_RECORDS.call(&keys, &arguments)).await
    }

    /// Empties trimmed events of one stream; returns how many.
    async fn events(&self, limit: usize) -> Result<usize> {
        let [heads, log, trims] = self.tag.log();
        let stream = self.ask(Effect::Reads, redis::cmd("HRANDFIELD").arg(&trims).take()).await?;
        let Some(stream) = rows::optional_bytes(stream)? else { return Ok(0) };
        let stream = rows::text(Value::BulkString(stream))?;
        let mut arguments = Arguments::default();
        arguments.push(&stream).display(limit);
        let keys = [log, heads, trims, self.tag.key(Place::Stream(&stream))];
        self.count(script::SWEEP_EVENTS.call(&keys, &arguments)).await
    }

    async fn count(&self, cmd: Cmd) -> Result<usize> {
        let swept = rows::number(&self.ask(Effect::Writes, cmd).await?)?;
        usize::try_from(swept).map_err(|_| rows::damaged("answer"))
    }

    async fn ask(&self, effect: Effect, cmd: Cmd) -> Result<Value> {
        self.servers.ask(&Request::new(self.tag.slot(), effect, "sweeping", cmd)).await
    }
}
