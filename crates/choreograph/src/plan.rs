//! A definition as it is run, without the types of its inputs and values.

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::callback::{
    Classifier, RawCheck, RawCondition, RawInput, RawInstant, RawItemJob, RawItems, RawJob, RawProbe,
    RawTxJob, RawUndo,
};
use crate::key::{Codec, Stored, Value};
use crate::policy::{Join, OnInterrupted, RetryPolicy, VersionPolicy};

pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) input: Codec,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) root: Vec<Node>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) version_policy: VersionPolicy,
    /// Of names, order and structure.
    pub(crate) hash: String,
}

/// The structure over the leaves, which are numbered in the order of their declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Leaf(usize),
    Sequence(Vec<Self>),
    Parallel { join: Join, branches: Vec<Self> },
}

pub(crate) struct Leaf {
    pub(crate) name: Cow<'static, str>,
    pub(crate) value: Codec,
    pub(crate) pre_value: Codec,
    pub(crate) types: (TypeId, TypeId),
    pub(crate) kind: LeafKind,
    pub(crate) condition: Option<RawCondition>,
    pub(crate) pre_check: Option<RawCheck>,
    pub(crate) probe: Option<RawProbe>,
    pub(crate) undo: Option<(RawUndo, RetryPolicy)>,
    pub(crate) retry: RetryPolicy,
    pub(crate) non_retryable: Option<Classifier>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_interrupted: OnInterrupted,
}

pub(crate) enum LeafKind {
    Job(RawJob),
    TxJob(RawTxJob),
    ForEach(ForEach),
    Sleep(RawInstant),
    Signal { timeout: Option<Duration> },
    Child { definition: &'static str, input: RawInput },
}

pub(crate) struct ForEach {
    pub(crate) items: RawItems,
    pub(crate) item: Codec,
    pub(crate) job: RawItemJob,
    pub(crate) item_value: Codec,
    pub(crate) collect: fn(Vec<Stored>) -> Stored,
    pub(crate) at_once: usize,
}

impl LeafKind {
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Job(_) => "step",
            Self::TxJob(_) => "transaction",
            Self::ForEach(_) => "for each",
            Self::Sleep(_) => "sleep",
            Self::Signal { .. } => "signal",
            Self::Child { .. } => "child",
        }
    }

    /// Whether it has no job of its own, but waits for something.
    pub(crate) const fn waits(&self) -> bool {
        matches!(self, Self::Sleep(_) | Self::Signal { .. } | Self::Child { .. })
    }

    pub(crate) const fn needs_store(&self) -> bool {
        matches!(self, Self::TxJob(_) | Self::Signal { .. } | Self::Child { .. })
    }
}

impl Leaf {
    pub(crate) fn new<T: Value, P: Value>(name: Cow<'static, str>, kind: LeafKind) -> Self {
        Self {
            name,
            value: Codec::of::<T>(),
            pre_value: Codec::of::<P>(),
            types: (TypeId::of::<T>(), TypeId::of::<P>()),
            kind,
            condition: None,
            pre_check: None,
            probe: None,
            undo: None,
            retry: RetryPolicy::NONE,
            non_retryable: None,
            timeout: None,
            on_interrupted: OnInterrupted::default(),
        }
    }

    pub(crate) fn has_types<T: Value, P: Value>(&self) -> bool {
        self.types == (TypeId::of::<T>(), TypeId::of::<P>())
    }
}

impl Plan {
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.name == name)
    }

    /// Gathers the steps that come to their end before a step is reached.
    pub(crate) fn before(&self, step: usize, before: &mut Vec<usize>) {
        gather_before(&self.root, step, before);
    }

    /// The hash of a structure: stored with each run, so it never changes for the same structure.
    pub(crate) fn hash(root: &[Node], leaves: &[Leaf]) -> String {
        let mut text = String::new();
        root.iter().for_each(|node| describe(node, leaves, &mut text));
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }
}

/// Gathers the leaves before a leaf; all of them where it is not among these nodes. Whether it is.
fn gather_before(nodes: &[Node], step: usize, before: &mut Vec<usize>) -> bool {
    nodes.iter().any(|node| match node {
        Node::Leaf(leaf) if *leaf == step => true,
        Node::Leaf(leaf) => {
            before.push(*leaf);
            false
        }
        Node::Sequence(nodes) => gather_before(nodes, step, before),
        Node::Parallel { branches, .. } => {
            let reached = before.len();
            branches.iter().any(|branch| {
                let beside = before.len();
                let found = gather_before(std::slice::from_ref(branch), step, before);
                if found {
                    before.drain(reached..beside);
                }
                found
            })
        }
    })
}

fn describe(node: &Node, leaves: &[Leaf], text: &mut String) {
    match node {
        Node::Leaf(index) => {
            let leaf = &leaves[*index];
            write!(text, "{} {:?};", leaf.kind.word(), leaf.name).expect("a string takes any text");
        }
        Node::Sequence(nodes) => {
            text.push('(');
            nodes.iter().for_each(|node| describe(node, leaves, text));
            text.push(')');
        }
        Node::Parallel { join, branches } => {
            text.push_str(match join {
                Join::All => "all[",
                Join::FailFast => "fail fast[",
            });
            branches.iter().for_each(|node| describe(node, leaves, text));
            text.push(']');
        }
    }
}
