use std::time::Duration;

use evenkeel_core::{Expect, Found, Result, Store, StoreExt, Timestamp};

use super::{Case, cases};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_record_reads_as_absent_from_the_instant_it_expires,
    an_expired_record_is_not_scanned,
    a_scan_passes_over_what_expired,
    an_expectation_takes_an_expired_record_as_absent,
    a_batch_judges_expiry_at_its_own_now,
    a_record_put_already_expired_is_never_seen,
    a_record_may_be_put_anew_after_it_expired,
    sweep_removes_only_what_expired_more_than_max_skew_ago,
    sweep_removes_at_most_its_limit,
    sweep_leaves_what_is_live,
    sweep_leaves_what_was_put_anew,
];

const MICROSECOND: Duration = Duration::from_micros(1);
const EXPIRES_AFTER: u64 = 10;

/// Puts a record that expires in ten seconds; says when.
async fn put_expiring(store: &Tested, id: &str) -> Result<Timestamp> {
    let expires_at = store.in_seconds(EXPIRES_AFTER);
    store.commit(|batch| batch.put_until(key(id), id.to_owned(), Expect::Any, expires_at)).await?;
    Ok(expires_at)
}

/// Whether the record is still there physically: at an earlier instant it reads as present.
async fn is_stored(store: &Tested, id: &str, expires_at: Timestamp) -> Result<bool> {
    Ok(store.store.get_one(&store.at, expires_at - MICROSECOND, &key(id)).await?.is_some())
}

async fn a_record_reads_as_absent_from_the_instant_it_expires(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    store.advance_to(expires_at - MICROSECOND);
    assert_eq!(store.record(&key("a")).await?.unwrap().expires_at, Some(expires_at));
    store.advance(MICROSECOND);
    assert_eq!(store.record(&key("a")).await?, None);
    store.advance(Duration::from_secs(1_000_000));
    assert_eq!(store.record(&key("a")).await?, None);
    Ok(())
}

async fn an_expired_record_is_not_scanned(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    store.put("b", "for ever").await?;
    store.advance_to(expires_at - MICROSECOND);
    assert_eq!(store.ids(store.scan(10)).await?, ["a", "b"]);
    store.advance(MICROSECOND);
    assert_eq!(store.ids(store.scan(10)).await?, ["b"]);
    assert_eq!(store.ids(store.scan(10).backwards()).await?, ["b"]);
    Ok(())
}

async fn a_scan_passes_over_what_expired(store: Tested) -> Result<()> {
    for n in 0..40 {
        put_expiring(&store, &format!("{n:02}")).await?;
    }
    store.put("00+", "").await?;
    store.put("39+", "").await?;
    store.advance(Duration::from_secs(EXPIRES_AFTER));
    for limit in [1, 3, 50] {
        assert_eq!(store.ids(store.scan(limit)).await?, ["00+", "39+"]);
        assert_eq!(store.ids(store.scan(limit).backwards()).await?, ["39+", "00+"]);
    }
    Ok(())
}

async fn an_expectation_takes_an_expired_record_as_absent(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    let version = store.record(&key("a")).await?.unwrap().version;
    store.advance_to(expires_at - MICROSECOND);
    store.commit(|batch| batch.check(key("a"), Expect::Present)).await?;
    store.commit(|batch| batch.check(key("a"), Expect::Version(version))).await?;
    store.commit(|batch| batch.check(key("a"), Expect::Absent)).await.unwrap_err();

    store.advance(MICROSECOND);
    store.commit(|batch| batch.check(key("a"), Expect::Absent)).await?;
    for expect in [Expect::Present, Expect::Version(version)] {
        let conflict =
            store.commit(|batch| batch.check(key("a"), expect)).await.unwrap_err().into_conflict()?;
        assert_eq!(conflict.found, Found::Record { key: key("a"), record: None }, "{expect:?}");
    }
    Ok(())
}

async fn a_batch_judges_expiry_at_its_own_now(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    let mut batch = store.batch(|batch| batch.check(key("a"), Expect::Absent));
    store.send(&batch).await.unwrap_err();
    batch.set_now(expires_at);
    store.send(&batch).await?;
    batch.set_now(expires_at - MICROSECOND);
    store.send(&batch).await.unwrap_err();
    Ok(())
}

async fn a_record_put_already_expired_is_never_seen(store: Tested) -> Result<()> {
    store.put("a", "before").await?;
    let now = store.now();
    store.commit(|batch| batch.put_until(key("a"), "expired", Expect::Present, now)).await?;
    assert_eq!(store.value("a").await?, None);
    assert!(store.ids(store.scan(10)).await?.is_empty());
    Ok(())
}

async fn a_record_may_be_put_anew_after_it_expired(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    store.advance_to(expires_at);
    store.commit(|batch| batch.put(key("a"), "anew", Expect::Absent)).await?;
    store.advance(Duration::from_secs(1_000_000));
    let record = store.record(&key("a")).await?.unwrap();
    assert_eq!((&record.value[..], record.expires_at), (&b"anew"[..], None));
    Ok(())
}

async fn sweep_removes_only_what_expired_more_than_max_skew_ago(store: Tested) -> Result<()> {
    let expires_at = put_expiring(&store, "a").await?;
    let last_kept = expires_at + store.store.info().max_skew;
    for now in [store.now(), expires_at, last_kept] {
        assert_eq!(store.store.sweep(&store.at, now, 100).await?, 0, "at {now}");
        assert!(is_stored(&store, "a", expires_at).await?, "at {now}");
    }
    assert_eq!(store.store.sweep(&store.at, last_kept + MICROSECOND, 100).await?, 1);
    assert!(!is_stored(&store, "a", expires_at).await?);
    Ok(())
}

async fn sweep_removes_at_most_its_limit(store: Tested) -> Result<()> {
    for id in ["a", "b", "c", "d", "e"] {
        put_expiring(&store, id).await?;
    }
    store.advance(Duration::from_secs(1_000_000));
    let mut removed = Vec::new();
    for _ in 0..4 {
        removed.push(store.store.sweep(&store.at, store.now(), 2).await?);
    }
    assert_eq!(removed, [2, 2, 1, 0]);
    Ok(())
}

async fn sweep_leaves_what_is_live(store: Tested) -> Result<()> {
    store.put("for ever", "").await?;
    let late = store.in_seconds(2_000_000);
    store.commit(|batch| batch.put_until(key("for long"), "", Expect::Any, late)).await?;
    store.append("stream", 3).await?;
    store.push("job").await?;
    store.advance(Duration::from_secs(1_000_000));
    assert_eq!(store.store.sweep(&store.at, store.now(), 100).await?, 0);
    assert_eq!(store.ids(store.scan(10)).await?, ["for ever", "for long"]);
    assert_eq!(store.log_after(0).await?.len(), 3);
    assert!(store.job("job").await?.is_some());
    Ok(())
}

async fn sweep_leaves_what_was_put_anew(store: Tested) -> Result<()> {
    put_expiring(&store, "a").await?;
    put_expiring(&store, "b").await?;
    store.advance(Duration::from_secs(1_000_000));
    let expires_at = put_expiring(&store, "a").await?;
    assert_eq!(store.store.sweep(&store.at, store.now(), 100).await?, 1);
    assert_eq!(store.record(&key("a")).await?.unwrap().expires_at, Some(expires_at));
    Ok(())
}
