use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, Found, Hold, Merge, Partition, Read, Result, Session, Store, Token,
    Transactional, Tx,
};

use futures_util::future::try_join_all;

use super::{TxCase, kind};
use crate::tested::{HOLD, Tested, key};

/// Lists the cases for a store, on its own connection.
macro_rules! tx_cases {
    ($($case:ident),+ $(,)?) => {
        pub(crate) fn cases<S: Transactional>() -> Vec<TxCase<S>> {
            vec![$(TxCase {
                name: stringify!($case),
                run: |native, store| Box::pin($case(native, store)),
            }),+]
        }
    };
}

tx_cases![
    a_transaction_commits_its_batch,
    a_transaction_that_never_connects_commits_too,
    a_transaction_knows_its_partition_and_time,
    a_dropped_transaction_writes_nothing,
    a_transaction_rolled_back_writes_nothing,
    a_transaction_that_conflicts_writes_nothing,
    a_transaction_that_lost_its_lease_writes_nothing,
    a_transaction_with_an_invalid_batch_writes_nothing,
    a_transaction_on_a_partition_that_does_not_exist_is_invalid,
    a_transaction_finished_again_with_the_same_fenced_batch_applies_once,
    a_transaction_holds_a_job_from_its_birth,
    a_transaction_may_be_unsynced,
    a_lent_transaction_returns_to_its_lender,
    a_lent_transaction_whose_lender_is_gone_is_rolled_back,
    what_is_to_happen_before_connecting_happens_once,
    a_connection_that_may_not_be_taken_leaves_the_store_usable,
    a_transaction_of_another_store_is_invalid,
    of_transactions_that_claim_the_same_exactly_one_commits,
];

async fn begin<S: Transactional>(native: &S, store: &Tested) -> Result<Tx<S::Conn>> {
    native.begin(store.at.clone(), store.now()).await
}

/// A transaction with a live connection that would write a record, an event and a job.
async fn begin_writing<S: Transactional>(native: &S, store: &Tested) -> Result<Tx<S::Conn>> {
    let mut tx = begin(native, store).await?;
    tx.conn().await?;
    write(tx.batch(), store);
    tx.conn().await?;
    Ok(tx)
}

fn write(batch: &mut Batch, store: &Tested) {
    batch.put(key("a"), "joined", Expect::Absent).append_any("a", [store.event("Joined")]).push(
        "queue",
        "a",
        store.now(),
        "joined",
        Merge::Keep,
    );
}

async fn assert_nothing_written(store: &Tested) -> Result<()> {
    assert_eq!(store.value("a").await?, None);
    assert_eq!(store.read(Read::partition(0, 1)).await?.head, 0);
    assert_eq!(store.job("a").await?, None);
    Ok(())
}

/// That the same writes go through after all: nobody holds anything any more.
async fn assert_usable<S: Transactional>(native: &S, store: &Tested) -> Result<()> {
    store.put("usable", "").await?;
    let tx = begin_writing(native, store).await?;
    native.finish(tx).await?;
    assert_eq!(store.value("a").await?.unwrap(), "joined");
    Ok(())
}

async fn a_transaction_commits_its_batch<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let mut tx = begin_writing(&native, &store).await?;
    let version = tx.batch().version();
    assert_nothing_written(&store).await?;
    let committed = native.finish(tx).await?;
    assert_eq!(committed.version, version);
    assert_eq!((committed.appended[0].position, committed.appended[0].count), (1, 1));
    let record = store.record(&key("a")).await?.unwrap();
    assert_eq!((&record.value[..], record.version), (&b"joined"[..], version));
    assert_eq!(store.log_after(0).await?[0].batch, version.0);
    assert_eq!(store.job("a").await?.unwrap().payload, "joined");
    Ok(())
}

async fn a_transaction_that_never_connects_commits_too<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin(&native, &store).await?;
    write(tx.batch(), &store);
    native.finish(tx).await?;
    assert_eq!(store.value("a").await?.unwrap(), "joined");
    let empty = begin(&native, &store).await?;
    native.finish(empty).await?;
    Ok(())
}

async fn a_transaction_knows_its_partition_and_time<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin(&native, &store).await?;
    assert_eq!(*tx.partition(), store.at);
    assert_eq!(*tx.batch().at(), store.at);
    assert_eq!(tx.batch().now(), store.now());
    assert!(tx.batch().is_empty());
    Ok(())
}

async fn a_dropped_transaction_writes_nothing<S: Transactional>(native: S, store: Tested) -> Result<()> {
    drop(begin_writing(&native, &store).await?);
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn a_transaction_rolled_back_writes_nothing<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let tx = begin_writing(&native, &store).await?;
    native.rollback(tx).await;
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn a_transaction_that_conflicts_writes_nothing<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin_writing(&native, &store).await?;
    tx.batch().check(key("missing"), Expect::Present);
    let error = native.finish(tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.into_conflict()?.op, 3);
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn a_transaction_that_lost_its_lease_writes_nothing<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin_writing(&native, &store).await?;
    tx.batch().ack("queue", "missing", Token::fresh());
    assert_eq!(kind(native.finish(tx).await), ErrorKind::LeaseLost);
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn a_transaction_with_an_invalid_batch_writes_nothing<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin_writing(&native, &store).await?;
    tx.batch().check(key("a"), Expect::Any);
    assert_eq!(kind(native.finish(tx).await), ErrorKind::InvalidInput);
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn a_transaction_on_a_partition_that_does_not_exist_is_invalid<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let beyond = Partition::new(store.at.namespace().clone(), store.store.info().partitions);
    let attempt = async {
        let tx = native.begin(beyond, store.now()).await?;
        native.finish(tx).await
    };
    assert_eq!(kind(attempt.await), ErrorKind::InvalidInput);
    Ok(())
}

async fn a_transaction_finished_again_with_the_same_fenced_batch_applies_once<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin_writing(&native, &store).await?;
    let batch = tx.batch().clone();
    let first = native.finish(tx).await?;
    let mut again = begin(&native, &store).await?;
    again.conn().await?;
    *again.batch() = batch;
    assert_eq!(native.finish(again).await?, first);
    assert_eq!(store.stream_version("a").await?, 1);
    Ok(())
}

async fn a_transaction_holds_a_job_from_its_birth<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let hold = Hold { token: Token::fresh(), until: store.now() + HOLD };
    let due = store.now();
    let mut tx = begin_writing(&native, &store).await?;
    tx.batch().push_leased("queue", "held", due, "joined", hold);
    let batch = tx.batch().clone();
    let first = native.finish(tx).await?;
    let job = store.job("held").await?.unwrap();
    assert!(job.is_held_by(hold.token) && job.attempt == 1);

    let mut again = begin(&native, &store).await?;
    again.conn().await?;
    *again.batch() = batch;
    assert_eq!(native.finish(again).await?, first);
    assert_eq!(store.job("held").await?, Some(job.clone()));

    let mut other = begin(&native, &store).await?;
    other.conn().await?;
    let hold = Hold { token: Token::fresh(), ..hold };
    other.batch().put(key("b"), "", Expect::Any).push_leased("queue", "held", due, "", hold);
    let conflict = native.finish(other).await.unwrap_err().into_conflict()?;
    let found = Found::Occupied { queue: "queue".into(), id: "held".into(), job };
    assert_eq!((conflict.op, conflict.found), (1, found));
    assert_eq!(store.value("b").await?, None);
    Ok(())
}

async fn a_transaction_may_be_unsynced<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let mut known_before = begin(&native, &store).await?;
    known_before.batch().set_unsynced();
    known_before.conn().await?;
    known_before.batch().put(key("before"), "", Expect::Absent);
    native.finish(known_before).await?;
    assert!(store.value("before").await?.is_some());

    let mut refused = begin_writing(&native, &store).await?;
    refused.batch().set_unsynced().check(key("missing"), Expect::Present);
    assert_eq!(kind(native.finish(refused).await), ErrorKind::Conflict);
    assert_nothing_written(&store).await?;

    let mut known_late = begin_writing(&native, &store).await?;
    known_late.batch().set_unsynced();
    native.finish(known_late).await?;
    assert_eq!(store.value("a").await?.unwrap(), "joined");
    Ok(())
}

async fn a_lent_transaction_returns_to_its_lender<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let tx = begin(&native, &store).await?;
    let (mut lent, loan) = tx.lend();
    lent.conn().await?;
    write(lent.batch(), &store);
    drop(lent);
    let tx = loan.reclaim().expect("the borrower dropped it");
    native.finish(tx).await?;
    assert_eq!(store.value("a").await?.unwrap(), "joined");

    let (still_used, loan) = begin(&native, &store).await?.lend();
    assert!(loan.reclaim().is_none());
    drop(still_used);
    Ok(())
}

async fn a_lent_transaction_whose_lender_is_gone_is_rolled_back<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let (lent, loan) = begin_writing(&native, &store).await?.lend();
    drop(loan);
    drop(lent);
    assert_nothing_written(&store).await?;
    assert_usable(&native, &store).await
}

async fn what_is_to_happen_before_connecting_happens_once<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin(&native, &store).await?;
    let happened = Arc::new(AtomicU32::new(0));
    tx.before_connect({
        let (happened, store) = (Arc::clone(&happened), store.clone());
        async move {
            // The connection is not taken yet: another commit gets through, whatever the store.
            store.put("before", "").await?;
            happened.fetch_add(1, Ordering::SeqCst);
            Ok(Duration::MAX)
        }
    });
    assert_eq!(happened.load(Ordering::SeqCst), 0);
    tx.conn().await?;
    tx.conn().await?;
    assert_eq!(happened.load(Ordering::SeqCst), 1);
    write(tx.batch(), &store);
    native.finish(tx).await?;
    assert!(store.value("before").await?.is_some());
    Ok(())
}

async fn a_connection_that_may_not_be_taken_leaves_the_store_usable<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    let mut tx = begin(&native, &store).await?;
    tx.before_connect(async { Err(Error::new(ErrorKind::LeaseLost, "too late")) });
    assert_eq!(tx.conn().await.err().map(|error| error.kind()), Some(ErrorKind::LeaseLost));
    drop(tx);
    assert_usable(&native, &store).await
}

/// The session of no store.
struct Foreign;

#[async_trait]
impl<C: Send + 'static> Session<C> for Foreign {
    async fn connect(&mut self, _hold_for: Duration) -> Result<&mut C> {
        Err(Error::new(ErrorKind::Unsupported, "there is nothing to connect to"))
    }
}

async fn a_transaction_of_another_store_is_invalid<S: Transactional>(native: S, store: Tested) -> Result<()> {
    let mut batch = Batch::new(store.at.clone(), store.now());
    write(&mut batch, &store);
    assert_eq!(kind(native.finish(Tx::new(batch, Foreign)).await), ErrorKind::InvalidInput);
    assert_nothing_written(&store).await
}

async fn of_transactions_that_claim_the_same_exactly_one_commits<S: Transactional>(
    native: S,
    store: Tested,
) -> Result<()> {
    for round in 0..5 {
        let claims = (0..4).map(|_| async {
            let mut tx = begin(&native, &store).await?;
            tx.conn().await?;
            tx.batch().put(key(format!("lock {round}")), "", Expect::Absent);
            match native.finish(tx).await {
                Ok(_) => Result::Ok(1),
                Err(error) => error.into_conflict().map(|_| 0),
            }
        });
        let won: u32 = try_join_all(claims).await?.into_iter().sum();
        assert_eq!(won, 1, "round {round}");
    }
    Ok(())
}
