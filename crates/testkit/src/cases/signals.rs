use evenkeel_core::{Expect, Hold, Merge, Partition, Result, Signal, Signals, Store, Timestamp, Token};
use futures_util::FutureExt;

use super::{Case, cases};
use crate::fixture::Hints;
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_push_is_followed_by_a_hint,
    a_job_given_back_is_followed_by_a_hint,
    an_append_is_followed_by_a_hint,
    dropping_a_wait_loses_no_hint,
    a_hint_is_about_what_a_commit_touched,
];

/// Waits for the hint; in a store without hints, that none came.
async fn expect(store: &Tested, signals: &mut Signals, expected: Signal) {
    match store.hints {
        Hints::Given => loop {
            let signal = signals.next().await;
            if signal == expected || signal == Signal::Missed {
                return;
            }
        },
        Hints::None => assert_eq!(signals.next().now_or_never(), None),
    }
}

fn queue(store: &Tested) -> Signal {
    Signal::Queue { at: store.at.clone(), queue: "queue".into() }
}

async fn a_push_is_followed_by_a_hint(store: Tested) -> Result<()> {
    let mut signals = store.store.signals();
    store.push("a").await?;
    expect(&store, &mut signals, queue(&store)).await;
    let never = Timestamp::MAX;
    store.commit(|batch| batch.push("queue", "b", never, "", Merge::Sooner)).await?;
    expect(&store, &mut signals, queue(&store)).await;
    Ok(())
}

async fn a_job_given_back_is_followed_by_a_hint(store: Tested) -> Result<()> {
    let held = store.hold_new("a").await?;
    let mut signals = store.store.signals();
    let now = store.now();
    store.commit(|batch| batch.retry("queue", "a", held.token, now)).await?;
    expect(&store, &mut signals, queue(&store)).await;

    let held = store.lease_one().await?;
    store.push("a").await?;
    let mut signals = store.store.signals();
    store.commit(|batch| batch.ack("queue", "a", held.token)).await?;
    expect(&store, &mut signals, queue(&store)).await;
    Ok(())
}

async fn an_append_is_followed_by_a_hint(store: Tested) -> Result<()> {
    let mut signals = store.store.signals();
    store.append("a", 1).await?;
    expect(&store, &mut signals, Signal::Log { at: store.at.clone() }).await;
    Ok(())
}

async fn dropping_a_wait_loses_no_hint(store: Tested) -> Result<()> {
    let mut signals = store.store.signals();
    for _ in 0..3 {
        // A store that begins to listen elsewhere says that it does not know what was before.
        let hint = signals.next().now_or_never();
        assert!(hint.is_none_or(|hint| hint == Signal::Missed));
    }
    store.push("a").await?;
    expect(&store, &mut signals, queue(&store)).await;
    Ok(())
}

async fn a_hint_is_about_what_a_commit_touched(store: Tested) -> Result<()> {
    let mut signals = store.store.signals();
    store.put("a", "").await?;
    store.commit(|batch| batch.check(key("b"), Expect::Present)).await.unwrap_err();
    // Nobody else has a use for a job that is leased.
    let hold = Hold { token: Token::fresh(), until: Timestamp::MAX };
    store.commit(|batch| batch.push_leased("leased", "a", store.now(), "", hold)).await?;
    store.push("a").await?;
    let first = match store.hints {
        Hints::Given => first_about(&store.at, &mut signals).await,
        Hints::None => signals.next().now_or_never(),
    };
    assert!(first.is_none_or(|signal| signal == queue(&store) || signal == Signal::Missed));
    Ok(())
}

/// The first hint about the partition; other cases may share the store.
async fn first_about(partition: &Partition, signals: &mut Signals) -> Option<Signal> {
    loop {
        let signal = signals.next().await;
        match &signal {
            Signal::Queue { at, .. } | Signal::Log { at } if at != partition => {}
            _ => return Some(signal),
        }
    }
}
