use std::time::Duration;

use evenkeel_core::{Draft, ErrorKind, Expect, Found, Hold, Result, Token, Transactional, Tx};

use super::{Case, cases, kind};
use crate::tested::{HOLD, Tested, key};

pub(crate) const CASES: &[Case] = cases![
    a_draft_writes_nothing_before_its_commit,
    a_draft_commits_with_its_batch,
    a_draft_commits_with_a_job_that_is_leased_from_its_birth,
    a_draft_sees_its_own_writes,
    a_read_that_is_no_longer_so_is_a_conflict,
    an_absence_that_is_no_longer_so_is_a_conflict,
    a_write_without_a_read_expects_nothing,
    a_key_read_and_written_is_named_once,
    a_key_in_both_the_draft_and_its_batch_is_invalid,
    a_drafted_record_may_expire,
];

async fn begin(store: &Tested) -> Result<Tx<Draft>> {
    store.store.begin(store.at.clone(), store.now()).await
}

async fn a_draft_writes_nothing_before_its_commit(store: Tested) -> Result<()> {
    store.put("there", "before").await?;
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    draft.put(key("a"), "1");
    draft.delete(key("there"));
    assert_eq!(store.value("a").await?, None);
    drop(tx);
    assert_eq!(store.value("a").await?, None);
    assert_eq!(store.value("there").await?.unwrap(), "before");
    Ok(())
}

async fn a_draft_commits_with_its_batch(store: Tested) -> Result<()> {
    store.put("there", "before").await?;
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    draft.put(key("a"), "1");
    draft.delete(key("there"));
    tx.batch().append_any("a", [store.event("Joined")]);
    let committed = store.store.finish(tx).await?;
    assert_eq!(committed.appended.len(), 1);
    assert_eq!(store.value("a").await?.unwrap(), "1");
    assert_eq!(store.value("there").await?, None);
    assert_eq!(store.stream_version("a").await?, 1);

    let mut tx = begin(&store).await?;
    tx.conn().await?.put(key("a"), "2");
    tx.batch().check(key("missing"), Expect::Present);
    assert_eq!(kind(store.store.finish(tx).await), ErrorKind::Conflict);
    assert_eq!(store.value("a").await?.unwrap(), "1");
    Ok(())
}

async fn a_draft_commits_with_a_job_that_is_leased_from_its_birth(store: Tested) -> Result<()> {
    let now = store.now();
    let [hold, other] = [(); 2].map(|()| Hold { token: Token::fresh(), until: now + HOLD });
    let mut tx = begin(&store).await?;
    tx.conn().await?.put(key("a"), "1");
    tx.batch().push_leased("queue", "a", now, "payload", hold);
    store.store.finish(tx).await?;
    assert!(store.job("a").await?.unwrap().is_held_by(hold.token));

    let mut tx = begin(&store).await?;
    tx.conn().await?.put(key("a"), "2");
    tx.batch().push_leased("queue", "a", now, "payload", other);
    let conflict = store.store.finish(tx).await.unwrap_err().into_conflict()?;
    assert!(matches!(conflict.found, Found::Occupied { .. }), "{conflict:?}");
    assert_eq!(store.value("a").await?.unwrap(), "1");
    Ok(())
}

async fn a_draft_sees_its_own_writes(store: Tested) -> Result<()> {
    store.put("a", "before").await?;
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    assert_eq!(draft.get(&key("a")).await?.unwrap(), "before");
    draft.put(key("a"), "1");
    assert_eq!(draft.get(&key("a")).await?.unwrap(), "1");
    draft.put(key("a"), "2");
    assert_eq!(draft.get(&key("a")).await?.unwrap(), "2");
    draft.delete(key("a"));
    assert_eq!(draft.get(&key("a")).await?, None);
    draft.put(key("b"), "unread");
    assert_eq!(draft.get(&key("b")).await?.unwrap(), "unread");
    store.store.finish(tx).await?;
    assert_eq!(store.value("a").await?, None);
    assert_eq!(store.value("b").await?.unwrap(), "unread");
    Ok(())
}

async fn a_read_that_is_no_longer_so_is_a_conflict(store: Tested) -> Result<()> {
    store.put("read", "before").await?;
    for write_it_too in [false, true] {
        let mut tx = begin(&store).await?;
        let draft = tx.conn().await?;
        draft.get(&key("read")).await?;
        draft.put(key("a"), "decided on what was read");
        if write_it_too {
            draft.put(key("read"), "mine");
        }
        store.put("read", "another's").await?;
        let conflict = store.store.finish(tx).await.unwrap_err().into_conflict()?;
        let Found::Record { key: at, record: Some(record) } = conflict.found else { panic!("{conflict:?}") };
        assert_eq!((at, &record.value[..]), (key("read"), &b"another's"[..]));
        assert_eq!(store.value("a").await?, None);
    }
    Ok(())
}

async fn an_absence_that_is_no_longer_so_is_a_conflict(store: Tested) -> Result<()> {
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    assert_eq!(draft.get(&key("a")).await?, None);
    draft.put(key("a"), "mine");
    store.put("a", "another's").await?;
    assert_eq!(kind(store.store.finish(tx).await), ErrorKind::Conflict);
    assert_eq!(store.value("a").await?.unwrap(), "another's");
    Ok(())
}

async fn a_write_without_a_read_expects_nothing(store: Tested) -> Result<()> {
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    draft.put(key("a"), "mine");
    draft.delete(key("b"));
    store.put("a", "another's").await?;
    store.put("b", "another's").await?;
    store.store.finish(tx).await?;
    assert_eq!(store.value("a").await?.unwrap(), "mine");
    assert_eq!(store.value("b").await?, None);
    Ok(())
}

async fn a_key_read_and_written_is_named_once(store: Tested) -> Result<()> {
    store.put("a", "1").await?;
    let mut tx = begin(&store).await?;
    let draft = tx.conn().await?;
    for id in ["a", "absent"] {
        draft.get(&key(id)).await?;
        draft.get(&key(id)).await?;
        draft.put(key(id), "2");
        draft.delete(key(id));
        draft.put(key(id), "3");
    }
    store.store.finish(tx).await?;
    assert_eq!(store.value("a").await?.unwrap(), "3");
    assert_eq!(store.value("absent").await?.unwrap(), "3");
    Ok(())
}

async fn a_key_in_both_the_draft_and_its_batch_is_invalid(store: Tested) -> Result<()> {
    let mut tx = begin(&store).await?;
    tx.conn().await?.put(key("a"), "draft");
    tx.batch().put(key("a"), "batch", Expect::Any);
    assert_eq!(kind(store.store.finish(tx).await), ErrorKind::InvalidInput);
    assert_eq!(store.value("a").await?, None);
    Ok(())
}

async fn a_drafted_record_may_expire(store: Tested) -> Result<()> {
    let mut tx = begin(&store).await?;
    let expires_at = store.in_seconds(10);
    tx.conn().await?.put_until(key("a"), "1", expires_at);
    store.store.finish(tx).await?;
    assert_eq!(store.record(&key("a")).await?.unwrap().expires_at, Some(expires_at));
    store.advance(Duration::from_secs(10));
    assert_eq!(store.value("a").await?, None);
    Ok(())
}
