use std::collections::HashSet;

use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use redis::Value;

use crate::keys::{Keys, Place, Tag};
use crate::rows;
use crate::script::Arguments;

/// Door 2 on Redis: commands on keys of the user's own, which run with the commit or not at all.
///
/// The keys live beside the partition's, in its hash tag; [`key`](Self::key) tells the whole name,
/// by which the user reads them with any client. Redis does not roll back: before anything is
/// written, the type of every key and the number in every counter is checked, and a command that
/// would fail makes [`finish`](evenkeel_core::Transactional::finish) fail with `InvalidInput`. They
/// run in the order they were added, after the batch was judged.
///
/// A batch that is sent again and was applied already does not run them again.
///
/// While a cluster moves the partition to another server, a commit that takes something away from a
/// key (`DEL`, `HDEL`, `SREM`, `ZREM`, `PEXPIREAT`) and then writes that key again is `Unavailable`.
#[derive(Debug)]
pub struct RedisWrites {
    tag: Tag,
    writes: Vec<Write>,
}

/// A command of the user's, which cannot fail once it is judged.
#[derive(Debug)]
pub(crate) struct Write {
    key: String,
    command: &'static str,
    arguments: Vec<Vec<u8>>,
}

impl RedisWrites {
    pub(crate) const fn new(tag: Tag) -> Self {
        Self { tag, writes: Vec::new() }
    }

    /// The whole name of a key, for reading it.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        self.tag.key(Place::User(key))
    }

    /// `SET`: a string, whatever the key held before.
    pub fn set(&mut self, key: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "SET", [value.as_ref()])
    }

    /// `DEL`: nothing, whatever the key held before.
    pub fn del(&mut self, key: &str) -> &mut Self {
        self.add(key, "DEL", [])
    }

    /// `INCRBY`: adds to a whole number, 0 where the key is absent. A sum beyond 9.2 × 10^18 is
    /// refused, which is a little before it would overflow.
    pub fn incr_by(&mut self, key: &str, by: i64) -> &mut Self {
        self.add(key, "INCRBY", [by.to_string().as_bytes()])
    }

    /// `HSET`: a field of a hash.
    pub fn hset(&mut self, key: &str, field: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "HSET", [field.as_ref(), value.as_ref()])
    }

    /// `HDEL`: a field of a hash no more.
    pub fn hdel(&mut self, key: &str, field: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "HDEL", [field.as_ref()])
    }

    /// `HINCRBY`: adds to a whole number in a hash, as [`incr_by`](Self::incr_by) does.
    pub fn hincr_by(&mut self, key: &str, field: impl AsRef<[u8]>, by: i64) -> &mut Self {
        self.add(key, "HINCRBY", [field.as_ref(), by.to_string().as_bytes()])
    }

    /// `SADD`: a member of a set.
    pub fn sadd(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "SADD", [member.as_ref()])
    }

    /// `SREM`: a member of a set no more.
    pub fn srem(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "SREM", [member.as_ref()])
    }

    /// `ZADD`: a member of a sorted set. A score that is not a number is refused.
    pub fn zadd(&mut self, key: &str, score: f64, member: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "ZADD", [score.to_string().as_bytes(), member.as_ref()])
    }

    /// `ZREM`: a member of a sorted set no more.
    pub fn zrem(&mut self, key: &str, member: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "ZREM", [member.as_ref()])
    }

    /// `RPUSH`: the last element of a list.
    pub fn rpush(&mut self, key: &str, element: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "RPUSH", [element.as_ref()])
    }

    /// `LPUSH`: the first element of a list.
    pub fn lpush(&mut self, key: &str, element: impl AsRef<[u8]>) -> &mut Self {
        self.add(key, "LPUSH", [element.as_ref()])
    }

    /// `PEXPIREAT`: the server removes the key at `at` by its own clock, to the millisecond.
    pub fn expire_at(&mut self, key: &str, at: Timestamp) -> &mut Self {
        let millis = (at.as_micros() / 1000).max(1);
        self.add(key, "PEXPIREAT", [millis.to_string().as_bytes()])
    }

    /// `PERSIST`: the key expires no more.
    pub fn persist(&mut self, key: &str) -> &mut Self {
        self.add(key, "PERSIST", [])
    }

    fn add<const N: usize>(&mut self, key: &str, command: &'static str, arguments: [&[u8]; N]) -> &mut Self {
        let arguments = arguments.map(<[u8]>::to_vec).to_vec();
        self.writes.push(Write { key: key.to_owned(), command, arguments });
        self
    }

    /// The commands, once it is certain that what can be checked without the server is right.
    pub(crate) fn check(&self) -> Result<&[Write]> {
        match self.writes.iter().find(|write| write.command == "ZADD" && write.arguments[0] == b"NaN") {
            Some(write) => Err(invalid(&write.key, "the score is not a number")),
            None => Ok(&self.writes),
        }
    }
}

impl Write {
    /// Whether one of the commands may take a key away that a later one writes.
    pub(crate) fn may_miss_a_key(writes: &[Self]) -> bool {
        let mut gone = HashSet::new();
        writes.iter().any(|write| {
            let is_gone = gone.contains(write.key.as_str());
            if matches!(write.command, "DEL" | "HDEL" | "SREM" | "ZREM" | "PEXPIREAT") {
                gone.insert(write.key.as_str());
            }
            is_gone
        })
    }

    /// How many arguments it takes, as `lua/writes.lua` lists them.
    pub(crate) fn length(&self) -> usize {
        4 + self.arguments.len()
    }

    pub(crate) fn encode<'a>(&'a self, keys: &mut Keys<'a>, to: &mut Arguments) {
        to.push("write").display(keys.number(Place::User(&self.key))).push(self.command);
        to.display(self.arguments.len());
        for argument in &self.arguments {
            to.push(argument);
        }
    }

    /// Reads why a command was refused: the key, NUL, the reason.
    pub(crate) fn refused(found: Value) -> Result<Error> {
        let text = rows::text(found)?;
        let (key, why) = text.rsplit_once('\0').ok_or_else(|| rows::damaged("answer"))?;
        Ok(invalid(key, why.to_owned()))
    }
}

fn invalid(key: &str, why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, why).with("key", format_args!("{key:?}"))
}
