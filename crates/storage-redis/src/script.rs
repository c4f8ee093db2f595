//! The scripts, and calls of them.

use std::fmt;
use std::io::Write;
use std::sync::LazyLock;

use redis::Cmd;

/// A script that servers keep by its hash.
pub(crate) struct Script {
    code: &'static str,
    hash: LazyLock<redis::Script>,
}

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $shebang:literal, $($part:literal),+) => {
        $(#[$doc])*
        pub(crate) static $name: Script = Script {
            code: concat!($shebang, "\n", $(include_str!(concat!("lua/", $part, ".lua"))),+),
            hash: LazyLock::new(|| redis::Script::new($name.code)),
        };
    };
}

script!(
    /// Commits batches.
    COMMIT, "#!lua", "time", "changes", "record", "job", "log", "arguments", "ops", "commit"
);
script!(
    /// Commits a batch with the user's writes.
    COMMIT_WITH, "#!lua", "time", "changes", "record", "job", "log", "arguments", "ops", "writes", "commit"
);
script!(GET, "#!lua flags=no-writes", "get");
script!(SCAN, "#!lua flags=no-writes", "scan");
script!(READ_LOG, "#!lua flags=no-writes", "changes", "log", "read_log");
script!(READ_STREAM, "#!lua flags=no-writes", "changes", "log", "read_stream");
script!(LEASE, "#!lua", "time", "changes", "job", "lease");
// What makes room is allowed where there is none left.
script!(SWEEP_RECORDS, "#!lua flags=allow-oom", "time", "changes", "record", "sweep_records");
script!(SWEEP_EVENTS, "#!lua flags=allow-oom", "changes", "log", "sweep_events");
script!(OPEN, "#!lua", "open");

/// All of them: a new connection makes sure that its server has them.
pub(crate) const ALL: [&Script; 10] = [
    &COMMIT,
    &COMMIT_WITH,
    &GET,
    &SCAN,
    &READ_LOG,
    &READ_STREAM,
    &LEASE,
    &SWEEP_RECORDS,
    &SWEEP_EVENTS,
    &OPEN,
];

impl Script {
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// The command that runs it.
    pub(crate) fn call(&self, keys: &[String], arguments: &Arguments) -> Cmd {
        let bytes = arguments.bytes.len() + keys.iter().map(String::len).sum::<usize>();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + arguments.ends.len(), bytes + 64);
        cmd.arg("EVALSHA").arg(self.hash.get_hash()).arg(keys.len()).arg(keys);
        for argument in arguments.iter() {
            cmd.arg(argument);
        }
        cmd
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.hash.get_hash()).finish()
    }
}

/// The arguments of a call, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    pub(crate) fn push(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.write(|bytes| bytes.extend_from_slice(argument.as_ref()))
    }

    pub(crate) fn display(&mut self, argument: impl fmt::Display) -> &mut Self {
        self.write(|bytes| write!(bytes, "{argument}").expect("memory takes everything"))
    }

    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        self
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut begin, end)..end])
    }
}
