use std::time::Duration;

use evenkeel_core::{Expect, Namespace, Read, Result, Store, StoreExt};

use super::{Case, cases};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_namespace_has_records_log_and_queues_of_its_own,
    handles_of_one_namespace_share_what_is_stored,
    a_namespace_belongs_to_the_handle,
    a_sweep_stays_within_its_partition,
    a_name_maps_to_the_same_partition_index_in_every_namespace,
];

/// The same store in another namespace.
fn elsewhere(store: &Tested, name: &str) -> Result<Tested> {
    let namespace = Namespace::new(format!("{}.{name}", &store.at.namespace().as_str()[..40]))?;
    Ok(store.elsewhere(namespace))
}

async fn a_namespace_has_records_log_and_queues_of_its_own(store: Tested) -> Result<()> {
    let other = elsewhere(&store, "other")?;
    store.put("a", "mine").await?;
    store.append("a", 3).await?;
    store.push("a").await?;

    assert_eq!(other.value("a").await?, None);
    assert!(other.ids(other.scan(10)).await?.is_empty());
    assert_eq!(other.read(Read::partition(0, 10)).await?.head, 0);
    assert_eq!(other.stream_version("a").await?, 0);
    assert!(other.lease(10).await?.jobs.is_empty());
    assert_eq!(other.append("a", 1).await?.appended[0].position, 1);
    other.put("a", "other's").await?;
    other.commit(|batch| batch.cancel("queue", "a")).await?;

    assert_eq!(store.value("a").await?.unwrap(), "mine");
    assert_eq!(store.log_after(0).await?.len(), 3);
    assert!(store.job("a").await?.is_some());
    Ok(())
}

async fn handles_of_one_namespace_share_what_is_stored(store: Tested) -> Result<()> {
    let (one, two) = (elsewhere(&store, "shared")?, elsewhere(&store, "shared")?);
    one.put("a", "1").await?;
    assert_eq!(two.value("a").await?.unwrap(), "1");
    two.commit(|batch| batch.put(key("a"), "2", Expect::Present)).await?;
    assert_eq!(one.value("a").await?.unwrap(), "2");
    Ok(())
}

async fn a_namespace_belongs_to_the_handle(store: Tested) -> Result<()> {
    let namespace = Namespace::new("another")?;
    let handle = store.store.namespace(namespace.clone());
    assert_eq!(handle.info().namespace, namespace);
    assert_eq!(handle.info().partitions, store.store.info().partitions);
    assert_eq!(store.store.info().namespace, *store.at.namespace());
    assert!(handle.partitions().iter().all(|at| *at.namespace() == namespace));
    assert_eq!(handle.partitions().len(), 4);
    Ok(())
}

async fn a_sweep_stays_within_its_partition(store: Tested) -> Result<()> {
    let other = elsewhere(&store, "other")?;
    let expires_at = store.in_seconds(1);
    for store in [&store, &other] {
        store.commit(|batch| batch.put_until(key("a"), "", Expect::Any, expires_at)).await?;
        store.append("a", 2).await?;
        store.commit(|batch| batch.trim("a", 2)).await?;
    }
    store.advance(Duration::from_secs(1_000_000));
    assert_eq!(store.store.sweep(&store.at, store.now(), 100).await?, 3);
    assert_eq!(store.store.sweep(&store.at, store.now(), 100).await?, 0);
    assert_eq!(other.store.sweep(&other.at, other.now(), 100).await?, 3);
    Ok(())
}

async fn a_name_maps_to_the_same_partition_index_in_every_namespace(store: Tested) -> Result<()> {
    let other = elsewhere(&store, "other")?;
    let mut indexes = std::collections::BTreeSet::new();
    for n in 0..100 {
        let name = format!("order-{n}");
        let index = store.store.partition_of(&name).index();
        assert_eq!(other.store.partition_of(&name).index(), index);
        indexes.insert(index);
        let mut batch = evenkeel_core::Batch::new(store.store.partition_of(&name), store.now());
        batch.put(key(name), "", Expect::Absent);
        store.store.commit(batch).await?;
    }
    assert_eq!(indexes.len(), 4, "names spread over all partitions");
    Ok(())
}
