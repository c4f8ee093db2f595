//! Committing: assume, judge, write under guards, learn, repeat.
//!
//! ```text
//!   assume ── what each operation expects is so ──┐
//!                                                 ▼
//!   learn  ◄── an item was otherwise ── write ◄── judge ── fails on what was read ──► verdict
//!                                         └── all was as assumed ──► verdicts
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::TransactWriteItem;
use evenkeel_core::fold::CommitFold;
use evenkeel_core::{Batch, Committed, Error, ErrorKind, Partition, Result, SignalHub, judge};
use futures_util::future::{join_all, try_join_all};

use crate::apart;
use crate::client::{Dynamo, Forwards, Of, Query};
use crate::hints::{AllHints, Hints};
use crate::keys;
use crate::knowledge::{Knowledge, Subject, needs_log_head};
use crate::read::not_yet;
use crate::rows::{self, Item, Reclaim};
use crate::tx::{UserItems, user_item_failed};
use crate::working_set::{Settled, WorkingSet, Writes};
use crate::write::{Answer, Outcome, Write};

/// How often a commit learns and begins anew. Each time somebody else has written to the same items
/// in between.
const ROUNDS: u32 = 30;

/// Commits batches.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    pub(crate) dynamo: Arc<Dynamo>,
    pub(crate) hints: Arc<AllHints>,
    pub(crate) signals: SignalHub,
    pub(crate) reclaim: Reclaim,
}

#[async_trait]
impl CommitFold for Committer {
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
        // What has nothing in common is not made into one transaction, which would cost twice as much.
        let groups = related(batches);
        let commits = groups.iter().map(|group| self.commit_group(at, group, batches));
        let committed = join_all(commits).await.into_iter().flatten();
        let mut verdicts: Vec<_> = groups.into_iter().flatten().zip(committed).collect();
        verdicts.sort_unstable_by_key(|(place, _)| *place);
        Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
    }
}

impl Committer {
    /// Commits the batches at certain places; a verdict for each.
    async fn commit_group(
        &self,
        at: &Partition,
        places: &[usize],
        batches: &[Batch],
    ) -> Vec<Result<Committed>> {
        let group: Vec<&Batch> = places.iter().map(|&place| &batches[place]).collect();
        match self.commit(at, &group, None).await {
            Ok(verdicts) => verdicts,
            Err(error) if group.len() == 1 => vec![Err(error)],
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {
                group.iter().map(|_| Err(error.repeated())).collect()
            }
            // One of them may have spoilt it for the others.
            Err(_) => {
                let mut verdicts = Vec::with_capacity(group.len());
                for batch in group {
                    let alone = self.commit(at, &[batch], None).await;
                    verdicts.push(alone.and_then(|mut verdicts| verdicts.pop().expect(A_VERDICT_EACH)));
                }
                verdicts
            }
        }
    }

    /// Commits one batch with the user's items.
    pub(crate) async fn commit_with(&self, batch: &Batch, user: UserItems) -> Result<Committed> {
        let mut verdicts = self.commit(batch.at(), &[batch], Some(user)).await?;
        verdicts.pop().expect(A_VERDICT_EACH)
    }

    /// Commits related batches as one physical write, with the user's items where there are any.
    async fn commit(
        &self,
        at: &Partition,
        batches: &[&Batch],
        user: Option<UserItems>,
    ) -> Result<Vec<Result<Committed>>> {
        let needs_hints = batches.iter().flat_map(|batch| batch.ops()).any(needs_log_head);
        let verdicts = if needs_hints {
            let hints = self.hints.of(at);
            let mut hints = hints.lock().await;
            Attempt { committer: self, at, batches, user }.run(&mut hints).await
        } else {
            Attempt { committer: self, at, batches, user }.run(&mut Hints::default()).await
        }?;
        for (batch, verdict) in batches.iter().zip(&verdicts) {
            if verdict.is_ok() {
                self.signals.committed(batch);
            }
        }
        Ok(verdicts)
    }
}

const JUDGING: &str = "judging";

const A_VERDICT_EACH: &str = "each batch has a verdict";

struct Attempt<'a> {
    committer: &'a Committer,
    at: &'a Partition,
    batches: &'a [&'a Batch],
    user: Option<UserItems>,
}

impl Attempt<'_> {
    async fn run(self, hints: &mut Hints) -> Result<Vec<Result<Committed>>> {
        let dynamo = &self.committer.dynamo;
        let mut verdicts: Vec<Option<Result<Committed>>> = self.batches.iter().map(|_| None).collect();
        let mut knowledge = Knowledge::default();
        for round in 1..=ROUNDS {
            self.settle(&mut verdicts, &mut knowledge, hints).await?;
            let open: Vec<usize> = (0..verdicts.len()).filter(|&place| verdicts[place].is_none()).collect();
            if open.is_empty() {
                return Ok(verdicts.into_iter().flatten().collect());
            }
            let batches: Vec<&Batch> = open.iter().map(|&place| self.batches[place]).collect();
            let set = WorkingSet::new(&batches, &knowledge, hints);
            let mut set = set.expect("settling has read what is needed");
            let judged: Vec<_> = batches.iter().map(|batch| judge::commit(&mut set, batch)).collect();
            let Writes { subjects, writes, payloads } = set.writes(self.at, self.committer.reclaim)?;
            payloads.write(dynamo).await?;
            match self.write(writes).await? {
                Outcome::Written => {
                    set.note(hints);
                    payloads.clean_up(dynamo).await;
                    for (place, verdict) in open.into_iter().zip(judged) {
                        verdicts[place] = Some(verdict);
                    }
                    return Ok(verdicts.into_iter().flatten().collect());
                }
                Outcome::Cancelled(answers) => {
                    let answers = self.fetch_payloads(&subjects, answers).await?;
                    let learned = learn(&subjects, answers, &mut knowledge)?;
                    knowledge.tell(hints);
                    if learned == Learned::Nothing || round > 3 {
                        dynamo.pause(round.saturating_sub(3).max(1)).await;
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others keep writing to the same items")
            .with("partition", self.at))
    }

    /// Reads what cannot be assumed, and gives their verdicts to those that are certain.
    async fn settle(
        &self,
        verdicts: &mut [Option<Result<Committed>>],
        knowledge: &mut Knowledge,
        hints: &Hints,
    ) -> Result<()> {
        loop {
            let open = || self.batches.iter().enumerate().filter(|(place, _)| verdicts[*place].is_none());
            let batches: Vec<&Batch> = open().map(|(_, batch)| *batch).collect();
            let mut look = Vec::new();
            let mut settled = Vec::new();
            match WorkingSet::new(&batches, knowledge, hints) {
                Err(unknown) => look = unknown,
                Ok(set) => {
                    for (place, batch) in open() {
                        match set.settle(batch) {
                            Settled::Verdict(verdict) => settled.push((place, verdict)),
                            Settled::Look(unseen) => look.extend(unseen),
                            Settled::Open => {}
                        }
                    }
                }
            }
            let missing: Vec<_> =
                batches.iter().flat_map(|batch| knowledge.missing_pointers(batch)).collect();
            if !missing.is_empty() {
                // Without these no verdict is certain.
                self.read_pointers(missing, knowledge).await?;
                continue;
            }
            let nothing_new = settled.is_empty() && look.is_empty();
            for (place, verdict) in settled {
                verdicts[place] = Some(verdict);
            }
            if nothing_new {
                return Ok(());
            }
            self.read(look, knowledge).await?;
        }
    }

    async fn read(&self, subjects: Vec<Subject>, knowledge: &mut Knowledge) -> Result<()> {
        let mut keys: Vec<_> = subjects.iter().map(|subject| subject.key(self.at)).collect();
        keys.sort_unstable_by(|a, b| (&a.pk, &a.sk).cmp(&(&b.pk, &b.sk)));
        keys.dedup();
        let items = self.committer.dynamo.get_all(keys, JUDGING).await?;
        let whole = subjects.iter().map(|subject| {
            let item = items.get(&subject.key(self.at)).cloned();
            self.whole(subject, item)
        });
        let whole = try_join_all(whole).await?;
        subjects.iter().zip(whole).try_for_each(|(subject, item)| knowledge.learn(subject, item.as_ref()))
    }

    /// The same answers, with the payloads that the jobs they show refer to.
    async fn fetch_payloads(
        &self,
        subjects: &[Option<Subject>],
        answers: Vec<Answer>,
    ) -> Result<Vec<Answer>> {
        let whole = answers.into_iter().enumerate().map(|(place, answer)| async move {
            match (answer, subjects.get(place)) {
                (Answer::Failed(item), Some(Some(subject))) => {
                    Ok(Answer::Failed(self.whole(subject, item).await?))
                }
                (answer, _) => Ok(answer),
            }
        });
        try_join_all(whole).await
    }

    /// An item with the payload that it refers to, where it is a job's.
    async fn whole(&self, subject: &Subject, item: Option<Item>) -> Result<Option<Item>> {
        match subject {
            Subject::Job { .. } => {
                apart::fetch(&self.committer.dynamo, &subject.key(self.at), item, JUDGING).await
            }
            Subject::Record(_) | Subject::Stream(_) | Subject::LogHead => Ok(item),
        }
    }

    async fn read_pointers(&self, missing: Vec<(String, u64)>, knowledge: &mut Knowledge) -> Result<()> {
        for (stream, version) in missing {
            let query = Query {
                of: Of::Table,
                condition: "pk = :pk AND sk BETWEEN :from AND :to",
                values: vec![
                    (":pk", keys::text(keys::stream(self.at, &stream))),
                    (":from", keys::text(keys::place(version))),
                    (":to", keys::text(keys::place(u64::MAX))),
                ],
                forwards: Forwards::Yes,
                limit: 1,
            };
            let found = self.committer.dynamo.query(&query, JUDGING).await?;
            let pointer = found.items.first().map(rows::pointer).transpose()?;
            // A query may see a commit in part.
            let pointer = pointer.filter(|pointer| pointer.first <= version).ok_or_else(|| {
                not_yet("the place of an event cannot be read yet")
                    .with("stream", format_args!("{stream:?}"))
                    .with("version", version)
            })?;
            knowledge.learn_pointer(&stream, version, pointer);
        }
        Ok(())
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Outcome> {
        let dynamo = &self.committer.dynamo;
        let Some(user) = &self.user else { return dynamo.write(writes).await };
        user.check_room(&writes)?;
        let own = writes.into_iter().map(|write| write.part(&dynamo.table));
        let items: Vec<TransactWriteItem> = own.chain(user.items().cloned()).collect();
        if items.is_empty() { Ok(Outcome::Written) } else { dynamo.transact(items).await }
    }
}

/// What came of a cancelled write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learned {
    Something,
    /// Another's request kept an item of the store's from being judged.
    Nothing,
}

/// Takes in how items stand that are not as they were taken to be. The user's come after the
/// store's: what is wrong with those is said once the store's are known to be right.
fn learn(subjects: &[Option<Subject>], answers: Vec<Answer>, knowledge: &mut Knowledge) -> Result<Learned> {
    let mut learned = false;
    let mut unjudged = false;
    let mut stands_beyond_head = false;
    let mut failed_users = None;
    for (place, answer) in answers.into_iter().enumerate() {
        let item = match answer {
            Answer::Fine => continue,
            Answer::Contended => {
                unjudged |= place < subjects.len();
                continue;
            }
            Answer::Failed(item) => item,
        };
        match subjects.get(place) {
            Some(Some(subject)) => {
                knowledge.learn(subject, item.as_ref())?;
                learned = true;
            }
            Some(None) => stands_beyond_head = true,
            None => {
                failed_users.get_or_insert((place - subjects.len(), item));
            }
        }
    }
    match failed_users {
        _ if learned => Ok(Learned::Something),
        _ if unjudged => Ok(Learned::Nothing),
        _ if stands_beyond_head => {
            let message =
                "the log has events beyond its head: was the table restored to the midst of a commit?";
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        Some((index, item)) => Err(user_item_failed(index, item)),
        None => Ok(Learned::Nothing),
    }
}

/// Groups the batches that have a subject in common; their places, in order.
fn related(batches: &[Batch]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of: HashMap<Subject, usize> = HashMap::new();
    for (place, batch) in batches.iter().enumerate() {
        let mut subjects: Vec<Subject> = batch.ops().iter().map(Subject::of).collect();
        if batch.ops().iter().any(needs_log_head) {
            subjects.push(Subject::LogHead);
        }
        let mut met: Vec<usize> =
            subjects.iter().filter_map(|subject| group_of.get(subject).copied()).collect();
        met.sort_unstable();
        met.dedup();
        let mut merged = vec![place];
        for &group in &met {
            merged.append(&mut groups[group]);
        }
        merged.sort_unstable();
        let group = groups.len();
        groups.push(merged);
        for of in group_of.values_mut().filter(|of| met.contains(of)) {
            *of = group;
        }
        group_of.extend(subjects.into_iter().map(|subject| (subject, group)));
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Expect, Key, Namespace, NewEvent, Timestamp};

    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn batch(fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
        let mut batch = Batch::new(Partition::new(Namespace::default(), 0), NOW);
        fill(&mut batch);
        batch
    }

    fn put(ids: &[&str]) -> Batch {
        batch(|batch| ids.iter().fold(batch, |batch, id| batch.put(Key::new("s", "g", *id), "", Expect::Any)))
    }

    fn append(stream: &str) -> Batch {
        batch(|batch| batch.append_any(stream, [NewEvent::new("E", "", NOW)]))
    }

    #[test]
    fn batches_with_a_subject_in_common_are_one_group() {
        let batches = [put(&["a"]), put(&["b"]), put(&["a", "c"]), put(&["c"]), put(&["d"])];
        assert_eq!(related(&batches), [vec![1], vec![0, 2, 3], vec![4]]);
        let batches = [put(&["a"]), put(&["b"]), put(&["a", "b"])];
        assert_eq!(related(&batches), [vec![0, 1, 2]]);
    }

    /// What is learned where the store writes the head of the log and a page, and the user an item.
    fn learn_of(answers: [Answer; 3]) -> Result<Learned, ErrorKind> {
        let subjects = [Some(Subject::LogHead), None];
        learn(&subjects, answers.into(), &mut Knowledge::default()).map_err(|error| error.kind())
    }

    #[test]
    fn nothing_is_said_for_certain_while_an_item_of_the_stores_was_not_judged() {
        use Answer::{Contended, Failed, Fine};
        assert_eq!(learn_of([Fine, Failed(None), Fine]), Err(ErrorKind::Corrupt));
        assert_eq!(learn_of([Contended, Failed(None), Fine]), Ok(Learned::Nothing));
        assert_eq!(learn_of([Failed(None), Failed(None), Fine]), Ok(Learned::Something));
        assert_eq!(learn_of([Fine, Fine, Failed(None)]), Err(ErrorKind::Conflict));
        assert_eq!(learn_of([Contended, Fine, Failed(None)]), Ok(Learned::Nothing));
        assert_eq!(learn_of([Failed(None), Fine, Failed(None)]), Ok(Learned::Something));
        assert_eq!(learn_of([Fine, Failed(None), Contended]), Err(ErrorKind::Corrupt));
    }

    #[test]
    fn all_that_append_share_the_head_of_the_log() {
        let batches = [append("a"), put(&["a"]), append("b")];
        assert_eq!(related(&batches), [vec![1], vec![0, 2]]);
    }
}
