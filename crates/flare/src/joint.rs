//! Committing as one batch what is to be committed at the same moment.
//!
//! A store commits together what waits, too, but judges each batch by itself. Publications all name their
//! resource and the pumps of its subscribers: as one batch, once.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use async_trait::async_trait;
use evenkeel_core::fold::{CommitFold, FoldLimits, Folding};
use evenkeel_core::{AnyStore, Batch, Committed, ErrorKind, Merge, Op, Partition, Result, Store};
use futures_util::future::join_all;

/// Commits batches, as one those that wait at the same moment, each with its own verdict. Where one of
/// them fails, each is committed by itself.
pub(crate) type Joint = Folding<Joiner>;

/// What commits jointly to `store`.
pub(crate) fn joint(store: &AnyStore) -> Joint {
    let most = store.info().limits;
    let limits = FoldLimits {
        batches: 128,
        units: 8 * most.units,
        bytes: most.bytes,
        // One gathers while another is committed.
        in_flight: NonZeroUsize::new(2).expect("two is not zero"),
    };
    Folding::new(Joiner { store: store.clone() }, limits)
}

/// Makes one batch of several.
#[derive(Debug)]
pub(crate) struct Joiner {
    store: AnyStore,
}

#[async_trait]
impl CommitFold for Joiner {
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
        let most = self.store.info().limits.units;
        let mut joined: Vec<Joined<'_>> = Vec::new();
        for batch in batches {
            if !joined.last_mut().is_some_and(|last| last.add(batch, most)) {
                joined.push(Joined::new(batch));
            }
        }
        let verdicts = join_all(joined.into_iter().map(|joined| self.commit(at, joined))).await;
        Ok(verdicts.into_iter().flatten().collect())
    }
}

impl Joiner {
    async fn commit(&self, at: &Partition, joined: Joined<'_>) -> Vec<Result<Committed>> {
        let (members, batch) = joined.into_batch(at);
        let verdicts = |verdict: &dyn Fn() -> Result<Committed>| members.iter().map(|_| verdict()).collect();
        match self.store.commit(batch).await {
            Ok(committed) => verdicts(&|| Ok(committed.clone())),
            Err(error) if members.len() == 1 => vec![Err(error)],
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {
                verdicts(&|| Err(error.repeated()))
            }
            // Nothing was written, and each is asked whether it is the one to blame.
            Err(_) => join_all(members.into_iter().map(|batch| self.store.commit(batch.clone()))).await,
        }
    }
}

/// Batches that can be one.
struct Joined<'a> {
    members: Vec<&'a Batch>,
    units: usize,
    ops: Vec<Op>,
    /// Where among the operations something is named.
    named: HashMap<Name<'a>, usize>,
}

impl<'a> Joined<'a> {
    fn new(batch: &'a Batch) -> Self {
        let mut joined = Self { members: Vec::new(), units: 0, ops: Vec::new(), named: HashMap::new() };
        joined.add(batch, usize::MAX);
        joined
    }

    /// Adds a batch, where it and the others are at most so many units, and mean the same by what both
    /// name; whether it was added.
    fn add(&mut self, batch: &'a Batch, most: usize) -> bool {
        let shared = |op| self.named.get(&name(op)).map(|place| merged(&self.ops[*place], op));
        let ops: Vec<_> = batch.ops().iter().map(|op| (op, shared(op))).collect();
        let count = ops.iter().filter(|(_, shared)| shared.is_some()).count();
        let units = self.units + batch.units() - count;
        if units > most || ops.iter().any(|(_, shared)| matches!(shared, Some(None))) {
            return false;
        }
        self.units = units;
        self.members.push(batch);
        for (op, shared) in ops {
            match shared.flatten() {
                Some(merged) => self.ops[self.named[&name(op)]] = merged,
                None => {
                    self.named.insert(name(op), self.ops.len());
                    self.ops.push(op.clone());
                }
            }
        }
        true
    }

    fn into_batch(self, at: &Partition) -> (Vec<&'a Batch>, Batch) {
        if let [alone] = self.members[..] {
            return (self.members, alone.clone());
        }
        let now = self.members.iter().map(|batch| batch.now()).max().unwrap_or_default();
        let mut batch = Batch::new(at.clone(), now);
        for op in self.ops {
            batch.op(op);
        }
        (self.members, batch)
    }
}

/// What an operation is about: a record, a stream or a job.
type Name<'a> = (&'static str, &'a str, &'a str, &'a str);

fn name(op: &Op) -> Name<'_> {
    match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => {
            ("record", &key.space, &key.group, &key.id)
        }
        Op::Append { stream, .. } | Op::Trim { stream, .. } => ("stream", stream, "", ""),
        Op::Push { queue, id, .. }
        | Op::PushLeased { queue, id, .. }
        | Op::Ack { queue, id, .. }
        | Op::Retry { queue, id, .. }
        | Op::Extend { queue, id, .. }
        | Op::Cancel { queue, id } => ("job", queue, id, ""),
    }
}

/// One operation that does what two about the same do, one after the other, if there is one.
fn merged(first: &Op, second: &Op) -> Option<Op> {
    match (first, second) {
        (Op::Check { expect: a, .. }, Op::Check { expect: b, .. }) if a == b => Some(first.clone()),
        (
            Op::Push { due, payload: a, merge: Merge::Sooner, .. },
            Op::Push { due: later, queue, id, payload: b, merge: Merge::Sooner },
        ) if a == b => Some(Op::Push {
            queue: queue.clone(),
            id: id.clone(),
            due: *due.min(later),
            payload: a.clone(),
            merge: Merge::Sooner,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Expect, Jobs, Key, MemoryStore, Namespace, StoreExt, Timestamp, Version};
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn at() -> Partition {
        Partition::new(Namespace::default(), 0)
    }

    fn key(id: &str) -> Key {
        Key::new("space", "group", id)
    }

    /// Puts a record, checks one that all check, and wakes what all wake.
    fn publication(id: &str, expect: Expect, due: i64) -> Batch {
        let mut batch = Batch::new(at(), NOW);
        batch.put(key(id), id.to_owned(), expect);
        batch.check(key("checked"), Expect::Absent);
        batch.push("pumps", "one", Timestamp::from_micros(due), "", Merge::Sooner);
        batch
    }

    async fn commit(store: &MemoryStore, batches: &[Batch]) -> Vec<Result<Committed>> {
        let joiner = Joiner { store: store.clone().into() };
        joiner.commit_fold(&at(), batches).await.unwrap()
    }

    async fn versions(store: &MemoryStore, ids: &[&str]) -> Vec<Option<Version>> {
        let keys: Vec<_> = ids.iter().copied().map(key).collect();
        let found = store.get(&at(), NOW, &keys).await.unwrap();
        found.into_iter().map(|record| record.map(|record| record.version)).collect()
    }

    #[tokio::test]
    async fn what_agrees_is_one_batch_and_names_what_it_shares_once() {
        let store = MemoryStore::new();
        let batches = [
            publication("a", Expect::Absent, 3),
            publication("b", Expect::Absent, 2),
            publication("c", Expect::Absent, 4),
        ];
        let verdicts = commit(&store, &batches).await;
        let committed: Vec<_> = verdicts.into_iter().map(|verdict| Some(verdict.unwrap().version)).collect();
        assert_eq!(versions(&store, &["a", "b", "c"]).await, committed);
        assert!(committed.windows(2).all(|both| both[0] == both[1]), "one batch, one version");
        let ids = Jobs::ByIds { queue: "pumps".to_owned(), ids: vec!["one".to_owned()] };
        let (_, pump) = store.jobs(&at(), ids).await.unwrap().jobs.remove(0);
        assert_eq!(pump.due, Timestamp::from_micros(2), "as the soonest asks");
    }

    #[tokio::test]
    async fn one_that_fails_fails_alone() {
        let store = MemoryStore::new();
        let version = Version(Uuid::from_u128(7));
        let batches = [
            publication("a", Expect::Absent, 1),
            publication("b", Expect::Version(version), 1),
            publication("c", Expect::Absent, 1),
        ];
        let verdicts = commit(&store, &batches).await;
        let kinds: Vec<_> = verdicts.iter().map(|verdict| verdict.as_ref().err().map(|e| e.kind())).collect();
        assert_eq!(kinds, [None, Some(ErrorKind::Conflict), None]);
        let found = versions(&store, &["a", "b", "c"]).await;
        assert_eq!(found, [Some(batches[0].version()), None, Some(batches[2].version())]);
    }

    #[tokio::test]
    async fn what_means_different_things_by_a_name_goes_one_after_the_other() {
        let store = MemoryStore::new();
        let batches = [publication("a", Expect::Absent, 1), publication("a", Expect::Absent, 1)];
        let verdicts = commit(&store, &batches).await;
        assert!(verdicts[0].is_ok());
        assert_eq!(verdicts[1].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn a_joined_batch_is_within_the_limits_of_the_store() {
        let store = MemoryStore::new();
        let most = store.info().limits.units;
        let ids: Vec<_> = (0..3 * most).map(|id| id.to_string()).collect();
        let batches: Vec<_> = ids.iter().map(|id| publication(id, Expect::Absent, 1)).collect();
        assert!(commit(&store, &batches).await.iter().all(Result::is_ok));
        assert!(store.get_one(&at(), NOW, &key(&ids[3 * most - 1])).await.unwrap().is_some());
    }
}
