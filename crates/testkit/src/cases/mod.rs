//! One function per sentence of the contract. A case that its group's list leaves out is dead code,
//! which does not compile.
#![deny(dead_code)]

mod batch;
mod concurrency;
mod draft;
mod expectations;
mod expiry;
mod limits;
mod log;
mod log_filter;
mod log_trim;
mod model;
mod namespaces;
mod push;
mod push_leased;
mod queue;
mod records;
mod resend;
mod scan;
mod signals;
mod tx;

use std::fmt::Debug;

use evenkeel_core::{ErrorKind, Result};
use futures_util::future::BoxFuture;

pub(crate) use self::draft::CASES as DRAFT;
pub(crate) use self::tx::cases as tx_cases;
use crate::tested::Tested;

/// A sentence of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Tested) -> BoxFuture<'static, Result<()>>,
}

/// A sentence about door 2, on the store's own connection. The other argument is the same store.
pub(crate) struct TxCase<S> {
    pub(crate) name: &'static str,
    pub(crate) run: fn(S, Tested) -> BoxFuture<'static, Result<()>>,
}

/// Sentences that belong together, and with how many partitions they are tested.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) partitions: &'static [u32],
    pub(crate) cases: &'static [Case],
}

/// The sentences about every door.
pub(crate) const GROUPS: &[Group] = &[
    Group { name: "records", partitions: &[1], cases: records::CASES },
    Group { name: "scan", partitions: &[1], cases: scan::CASES },
    Group { name: "expiry", partitions: &[1], cases: expiry::CASES },
    Group { name: "log", partitions: &[1, 4], cases: log::CASES },
    Group { name: "log_filter", partitions: &[1, 4], cases: log_filter::CASES },
    Group { name: "log_trim", partitions: &[1, 4], cases: log_trim::CASES },
    Group { name: "queue", partitions: &[1], cases: queue::CASES },
    Group { name: "push", partitions: &[1], cases: push::CASES },
    Group { name: "push_leased", partitions: &[1], cases: push_leased::CASES },
    Group { name: "batch", partitions: &[1], cases: batch::CASES },
    Group { name: "expectations", partitions: &[1], cases: expectations::CASES },
    Group { name: "resend", partitions: &[1], cases: resend::CASES },
    Group { name: "limits", partitions: &[1], cases: limits::CASES },
    Group { name: "concurrency", partitions: &[1, 4], cases: concurrency::CASES },
    Group { name: "signals", partitions: &[1], cases: signals::CASES },
    Group { name: "namespaces", partitions: &[4], cases: namespaces::CASES },
    Group { name: "model", partitions: &[1], cases: model::CASES },
];

/// Lists the cases of a group.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        &[$($crate::cases::Case { name: stringify!($case), run: |store| Box::pin($case(store)) }),+]
    };
}
use cases;

/// The kind of a failure; the call was not to succeed.
#[track_caller]
fn kind<T: Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("the call was to fail").kind()
}
