use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Expect, ExpectStream, Hold, Key, Merge, NewEvent, Op, Token, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use uuid::Uuid;

use super::reference::Reference;
use crate::tested::Tested;

/// One step of a history. Names are few, so that steps get in each other's way.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Advance(Duration),
    Commit(Vec<Act>),
    /// An earlier batch again, id and all.
    Resend(usize),
    Lease {
        queue: usize,
        max: usize,
        hold_for: Duration,
    },
    Sweep,
}

/// An operation whose version or token is chosen when it is its turn.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Put { key: usize, value: u8, expect: Standing, expires_in: Option<Duration> },
    Delete { key: usize, expect: Standing },
    Check { key: usize, expect: Standing },
    Append { stream: usize, expect: StreamStanding, events: usize },
    Trim { stream: usize, through: u64 },
    Push { job: usize, due_in: Duration, payload: u8, merge: Merge },
    PushLeased { job: usize, due_in: Duration, payload: u8, hold_for: Duration },
    Ack { job: usize, held: Held },
    Retry { job: usize, held: Held, due_in: Duration },
    Extend { job: usize, held: Held, by: Duration },
    Cancel { job: usize },
}

/// What is expected of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    Any,
    Absent,
    Present,
    AsItStands,
    Otherwise,
}

/// What is expected of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamStanding {
    Any,
    NoStream,
    Exists,
    AsItStands,
    OneLess,
}

/// Whose lease a token is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    Current,
    First,
    Nobodys,
}

const SPACE: &str = "model";

pub(super) fn keys() -> impl Iterator<Item = Key> {
    (0..4).map(key)
}

pub(super) fn groups() -> impl Iterator<Item = String> {
    ["a".to_owned(), "a/b".to_owned()].into_iter()
}

pub(super) fn streams() -> impl Iterator<Item = String> {
    (0..2).map(stream)
}

pub(super) fn queues() -> impl Iterator<Item = String> {
    (0..2).map(queue)
}

pub(super) fn queue(n: usize) -> String {
    format!("queue {n}")
}

fn key(n: usize) -> Key {
    Key::new(SPACE, if n.is_multiple_of(2) { "a" } else { "a/b" }, format!("{}", n / 2))
}

fn stream(n: usize) -> String {
    format!("stream {n}")
}

fn job(n: usize) -> (String, String) {
    (queue(n % 2), format!("{}", n / 2))
}

/// A history of up to 40 steps.
pub(super) fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => vec(act(), 1..5).prop_map(Step::Commit),
        3 => (0..2_usize, 1..4_usize, seconds()).prop_map(|(queue, max, hold_for)| Step::Lease { queue, max, hold_for }),
        2 => any::<usize>().prop_map(Step::Resend),
        2 => seconds().prop_map(Step::Advance),
        1 => Just(Step::Sweep),
        1 => Just(Step::Advance(Duration::from_secs(60))),
    ];
    vec(step, 1..40)
}

fn seconds() -> impl Strategy<Value = Duration> {
    (0..10_u64).prop_map(Duration::from_secs)
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0..4_usize;
    let stream = 0..2_usize;
    let job = 0..4_usize;
    prop_oneof![
        4 => (key.clone(), any::<u8>(), standing(), option::of(seconds()))
            .prop_map(|(key, value, expect, expires_in)| Act::Put { key, value, expect, expires_in }),
        2 => (key.clone(), standing()).prop_map(|(key, expect)| Act::Delete { key, expect }),
        1 => (key, standing()).prop_map(|(key, expect)| Act::Check { key, expect }),
        3 => (stream.clone(), stream_standing(), 0..3_usize)
            .prop_map(|(stream, expect, events)| Act::Append { stream, expect, events }),
        1 => (stream, 0..6_u64).prop_map(|(stream, through)| Act::Trim { stream, through }),
        4 => (job.clone(), seconds(), any::<u8>(), prop_oneof![Just(Merge::Keep), Just(Merge::Sooner)])
            .prop_map(|(job, due_in, payload, merge)| Act::Push { job, due_in, payload, merge }),
        2 => (job.clone(), seconds(), any::<u8>(), seconds()).prop_map(
            |(job, due_in, payload, hold_for)| Act::PushLeased { job, due_in, payload, hold_for },
        ),
        2 => (job.clone(), held()).prop_map(|(job, held)| Act::Ack { job, held }),
        2 => (job.clone(), held(), seconds()).prop_map(|(job, held, due_in)| Act::Retry { job, held, due_in }),
        1 => (job.clone(), held(), seconds()).prop_map(|(job, held, by)| Act::Extend { job, held, by }),
        1 => job.prop_map(|job| Act::Cancel { job }),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        3 => Just(Standing::Any),
        2 => Just(Standing::Absent),
        1 => Just(Standing::Present),
        3 => Just(Standing::AsItStands),
        1 => Just(Standing::Otherwise),
    ]
}

fn stream_standing() -> impl Strategy<Value = StreamStanding> {
    prop_oneof![
        3 => Just(StreamStanding::Any),
        1 => Just(StreamStanding::NoStream),
        1 => Just(StreamStanding::Exists),
        3 => Just(StreamStanding::AsItStands),
        1 => Just(StreamStanding::OneLess),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    prop_oneof![6 => Just(Held::Current), 2 => Just(Held::First), 1 => Just(Held::Nobodys)]
}

impl Act {
    /// The operation, as things stand now.
    pub(super) fn resolve(&self, reference: &Reference, store: &Tested) -> Op {
        let now = store.now();
        match *self {
            Self::Put { key: at, value, expect, expires_in } => Op::Put {
                key: key(at),
                value: Bytes::from(vec![value; 3]),
                expect: expect.resolve(&key(at), reference, store),
                expires_at: expires_in.map(|after| now + after),
            },
            Self::Delete { key: at, expect } => {
                Op::Delete { key: key(at), expect: expect.resolve(&key(at), reference, store) }
            }
            Self::Check { key: at, expect } => {
                Op::Check { key: key(at), expect: expect.resolve(&key(at), reference, store) }
            }
            Self::Append { stream: at, expect, events } => Op::Append {
                stream: stream(at),
                expect: expect.resolve(&stream(at), reference),
                events: (0..events)
                    .map(|n| NewEvent::new("Happened", "{}", now).with("n", n.to_string()))
                    .collect(),
            },
            Self::Trim { stream: at, through } => Op::Trim { stream: stream(at), through },
            Self::Push { job: at, due_in, payload, merge } => {
                let ((queue, id), payload) = (job(at), Bytes::from(vec![payload; 2]));
                Op::Push { queue, id, due: now + due_in, payload, merge }
            }
            Self::PushLeased { job: at, due_in, payload, hold_for } => {
                let ((queue, id), payload) = (job(at), Bytes::from(vec![payload; 2]));
                let hold = Hold { token: Token::fresh(), until: now + hold_for };
                Op::PushLeased { queue, id, due: now + due_in, payload, hold }
            }
            Self::Ack { job: at, held } => {
                let (queue, id) = job(at);
                Op::Ack { token: held.resolve(&queue, &id, reference), queue, id }
            }
            Self::Retry { job: at, held, due_in } => {
                let (queue, id) = job(at);
                Op::Retry { token: held.resolve(&queue, &id, reference), queue, id, due: now + due_in }
            }
            Self::Extend { job: at, held, by } => {
                let (queue, id) = job(at);
                Op::Extend { token: held.resolve(&queue, &id, reference), queue, id, until: now + by }
            }
            Self::Cancel { job: at } => {
                let (queue, id) = job(at);
                Op::Cancel { queue, id }
            }
        }
    }
}

impl Standing {
    fn resolve(self, key: &Key, reference: &Reference, store: &Tested) -> Expect {
        match self {
            Self::Any => Expect::Any,
            Self::Absent => Expect::Absent,
            Self::Present => Expect::Present,
            Self::AsItStands => Expect::unchanged(reference.live(key, store.now()).as_ref()),
            Self::Otherwise => Expect::Version(Version(Uuid::from_u128(7))),
        }
    }
}

impl StreamStanding {
    fn resolve(self, stream: &str, reference: &Reference) -> ExpectStream {
        let version = reference.stream_version(stream);
        match self {
            Self::Any => ExpectStream::Any,
            Self::NoStream => ExpectStream::NoStream,
            Self::Exists => ExpectStream::Exists,
            Self::AsItStands => ExpectStream::Version(version),
            Self::OneLess => ExpectStream::Version(version.saturating_sub(1)),
        }
    }
}

impl Held {
    fn resolve(self, queue: &str, id: &str, reference: &Reference) -> Token {
        let token = match self {
            Self::Current => reference.current_token(queue, id),
            Self::First => reference.first_token(queue, id),
            Self::Nobodys => None,
        };
        token.unwrap_or(Token(Uuid::nil()))
    }
}
