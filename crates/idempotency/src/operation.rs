use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_core::{Key, Partition, Store, StoreExt, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::state::RECORDS;
use crate::{Error, ErrorKind, Fingerprint};

/// What is to run once: who asks, for what, under which key, and on which terms.
///
/// ```
/// # use std::time::Duration;
/// # use evenkeel_idempotency::{Operation, Scope};
/// let operation = Operation::new(Scope::Principal("tenant-a".into()), "charge", "key-1")
///     .payload(br#"{"amount": 100}"#)
///     .timeout(Duration::from_secs(10));
/// ```
///
/// What is not set here is taken from the [`Idempotency`](crate::Idempotency) that it is given to.
#[derive(Clone, Debug)]
pub struct Operation {
    pub(crate) identity: Identity,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) reference_time: Option<Timestamp>,
    pub(crate) timeout: Duration,
    pub(crate) expiration: Option<Duration>,
    pub(crate) on_running: Option<OnRunning>,
    pub(crate) on_interrupted: Option<OnInterrupted>,
}

/// Which operations share their keys: the same key in another scope is another operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All callers share one set of keys, so one caller can be answered with what another caused.
    Global,
    /// A set of keys for this tenant, user or API key; 1 to 2,048 bytes of printable text.
    Principal(String),
}

/// What makes two operations the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// Whose keys.
    pub scope: Scope,
    /// What is asked for, such as a route; 1 to 8,192 bytes of printable text.
    pub target: String,
    /// The client's word for this one request; 1 to 255 characters of printable text, at most 512
    /// bytes.
    pub key: String,
    /// What the operation lives beside, see [`Operation::beside`]; 1 to 512 bytes of printable
    /// text.
    pub beside: Option<String>,
}

/// What to do with an arrival while another attempt holds the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunning {
    /// Refuse it at once with [`ErrorKind::Running`].
    Reject,
    /// Wait for what comes of that attempt, for at most this long.
    Wait(Duration),
}

/// What to do with an arrival where the last attempt was cut off, so that nobody knows what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupted {
    /// Run again: right where the work's effects are all in its transaction, or harmless to repeat.
    Retry,
    /// Refuse with [`ErrorKind::Interrupted`] until somebody [releases](crate::Idempotency::release)
    /// the operation.
    Refuse,
}

impl Operation {
    /// An operation; what its texts may be is said at [`Identity`] and checked where it is used.
    #[must_use]
    pub fn new(scope: Scope, target: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            identity: Identity::new(scope, target, key),
            fingerprint: Fingerprint::default(),
            reference_time: None,
            timeout: Duration::ZERO,
            expiration: None,
            on_running: None,
            on_interrupted: None,
        }
    }

    /// Compares repetitions by these bytes.
    #[must_use]
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        self.fingerprint(Fingerprint::of(payload))
    }

    /// Compares repetitions by this fingerprint. Without one, any repetition is the same request.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Counts the expiration from here; by default from when the operation arrives.
    #[must_use]
    pub fn reference_time(mut self, at: Timestamp) -> Self {
        self.reference_time = Some(at);
        self
    }

    /// Renews the lease of an attempt for at most this long after it began; zero, the default, is
    /// without end.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the operation expire this long after its reference time; zero is never.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = Some(expiration);
        self
    }

    /// Keeps the operation in the partition of `name` (an aggregate, say), so that its transaction
    /// can write what lives there. It becomes part of the identity, so it must come from the
    /// request alone.
    #[must_use]
    pub fn beside(mut self, name: impl Into<String>) -> Self {
        self.identity.beside = Some(name.into());
        self
    }

    /// What to do while another attempt runs.
    #[must_use]
    pub fn on_running(mut self, policy: OnRunning) -> Self {
        self.on_running = Some(policy);
        self
    }

    /// What to do where the last attempt was cut off.
    #[must_use]
    pub fn on_interrupted(mut self, policy: OnInterrupted) -> Self {
        self.on_interrupted = Some(policy);
        self
    }

    /// What makes it the same operation as another.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Identity {
    /// An identity that lives beside nothing.
    #[must_use]
    pub fn new(scope: Scope, target: impl Into<String>, key: impl Into<String>) -> Self {
        Self { scope, target: target.into(), key: key.into(), beside: None }
    }

    /// The same beside `name`, see [`Operation::beside`].
    #[must_use]
    pub fn beside(mut self, name: impl Into<String>) -> Self {
        self.beside = Some(name.into());
        self
    }

    /// Its name in 43 letters, digits, `-` and `_`, for what is kept elsewhere on its behalf: a hash of
    /// all its parts, which does not change between releases.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest_in(&self.group())
    }

    fn digest_in(&self, group: &Fingerprint) -> String {
        let hash = Fingerprint::builder().part(group.as_bytes()).part(&self.key).finish();
        URL_SAFE_NO_PAD.encode(hash.as_bytes())
    }

    /// Where `store` keeps it.
    pub(crate) fn place(&self, store: &impl Store) -> Result<Place> {
        self.check()?;
        let group = self.group();
        let id = self.digest_in(&group);
        let at = store.partition_of(self.beside.as_deref().unwrap_or(&id));
        let group = URL_SAFE_NO_PAD.encode(group.as_bytes());
        Ok(Place { at, key: Key::new(RECORDS, group, self.key.as_str()), id })
    }

    /// The hash of all but the key: text without a small bound does not go into keys.
    fn group(&self) -> Fingerprint {
        let scope = match &self.scope {
            Scope::Global => Fingerprint::builder().part("global"),
            Scope::Principal(name) => Fingerprint::builder().part("principal").part(name),
        };
        let target = scope.part(&self.target);
        match &self.beside {
            None => target.finish(),
            Some(beside) => target.part(beside).finish(),
        }
    }

    fn check(&self) -> Result<()> {
        if let Scope::Principal(name) = &self.scope {
            check_text("principal", name, 2048)?;
        }
        check_text("target", &self.target, 8192)?;
        if let Some(beside) = &self.beside {
            check_text("name it is beside", beside, Key::MAX_PART)?;
        }
        check_text("key", &self.key, Key::MAX_PART)?;
        let characters = self.key.chars().count();
        if characters > 255 {
            return Err(Error::new(ErrorKind::InvalidInput, "the operation's key is too long")
                .with("characters", characters)
                .with("limit", 255));
        }
        Ok(())
    }
}

/// Where an operation is kept.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) at: Partition,
    pub(crate) key: Key,
    /// The hash of the whole identity.
    pub(crate) id: String,
}

fn check_text(what: &'static str, text: &str, longest: usize) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty"
    } else if text.len() > longest {
        "is too long"
    } else if text.chars().any(char::is_control) {
        "has a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("the operation's {what} {problem}"))
        .with("bytes", text.len())
        .with("limit", longest))
}

#[cfg(test)]
mod tests {
    use evenkeel_core::MemoryStore;

    use super::*;

    fn place(identity: &Identity) -> Result<Place> {
        identity.place(&MemoryStore::with_partitions(16).unwrap())
    }

    #[test]
    fn every_part_of_the_identity_matters() {
        let principal = |name: &str| Scope::Principal(name.to_owned());
        let all = [
            Identity::new(Scope::Global, "t", "k"),
            Identity::new(Scope::Global, "t", "k2"),
            Identity::new(Scope::Global, "t2", "k"),
            Identity::new(principal("t"), "k", "k"),
            Identity::new(principal("a"), "t", "k"),
            Identity::new(principal("b"), "t", "k"),
            Identity::new(Scope::Global, "t", "k").beside("x"),
            Identity::new(Scope::Global, "x", "k").beside("t"),
        ];
        let places: Vec<_> = all.iter().map(|identity| place(identity).unwrap()).collect();
        for (i, one) in places.iter().enumerate() {
            for other in &places[i + 1..] {
                assert_ne!(one.key, other.key);
                assert_ne!(one.id, other.id);
            }
        }
    }

    #[test]
    fn an_operation_lives_where_what_it_is_beside_lives() {
        let store = MemoryStore::with_partitions(16).unwrap();
        for key in ["a", "b", "c", "d"] {
            let place = Identity::new(Scope::Global, "t", key).beside("order-17").place(&store).unwrap();
            assert_eq!(place.at, store.partition_of("order-17"));
        }
    }

    #[test]
    fn where_an_operation_is_kept_never_changes() {
        let identity = Identity::new(Scope::Principal("tenant".into()), "[POST]/charges", "k-1");
        let place = place(&identity).unwrap();
        assert_eq!(identity.digest(), place.id);
        assert_eq!(
            format!("{} {} {}", place.at.index(), place.key, place.id), // The hashes were computed by another program. A change orphans what users have stored.
            "10 idempotency.op/qUV2g0iVeJ-uZ6x25WUxAWXSf6_G--f2pux1vxrH58Y/k-1 ky9CtonkRcuM1hdwWlCRSodh6QCdZ-vGq1KAAf6A_NM"
        );
    }

    #[test]
    fn text_out_of_bounds_is_invalid_input_that_names_it() {
        let long = |n| "x".repeat(n);
        let principal = |name: String| Identity::new(Scope::Principal(name), "t", "k");
        for (identity, message) in [
            (Identity::new(Scope::Global, "t", ""), "the operation's key is empty"),
            (Identity::new(Scope::Global, "t", long(256)), "the operation's key is too long"),
            (Identity::new(Scope::Global, "t", "ä".repeat(257)), "the operation's key is too long"),
            (Identity::new(Scope::Global, "t", "a\nb"), "the operation's key has a control character"),
            (Identity::new(Scope::Global, "", "k"), "the operation's target is empty"),
            (Identity::new(Scope::Global, long(8193), "k"), "the operation's target is too long"),
            (principal(String::new()), "the operation's principal is empty"),
            (principal(long(2049)), "the operation's principal is too long"),
            (
                Identity::new(Scope::Global, "t", "k").beside("\0"),
                "the operation's name it is beside has a control character",
            ),
        ] {
            let error = place(&identity).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, message));
        }
        for key in [long(255), "ä".repeat(255)] {
            assert!(place(&Identity::new(Scope::Global, long(8192), key)).is_ok());
        }
    }
}
