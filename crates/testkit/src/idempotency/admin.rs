use std::collections::BTreeSet;

use evenkeel_core::Transactional;
use evenkeel_idempotency::{Ending, ErrorKind, Status};

use super::bench::{Bench, identity, kind, operation, replayed, won};

super::cases![
    running_operations_are_listed_page_by_page,
    an_operation_that_nobody_knows_shows_as_none,
    a_released_operation_runs_again_and_its_owner_records_nothing,
    what_is_not_held_up_cannot_be_released,
];

async fn running_operations_are_listed_page_by_page<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let mut guards = Vec::new();
    for i in 0..25 {
        guards.push(won(process.claim(operation(&format!("k{i}"))).await));
    }
    won(process.claim(operation("finished")).await).finish("").await.unwrap();
    won(process.claim(operation("failed")).await).fail("").await.unwrap();

    let (mut keys, mut after, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = process.running(after, 10).await.unwrap();
        assert!(page.operations.len() <= 10);
        assert!(page.operations.iter().all(|it| it.status == Status::Running));
        keys.extend(page.operations.into_iter().map(|it| it.identity.key));
        pages += 1;
        match page.cursor {
            Some(cursor) => after = Some(cursor),
            None => break,
        }
    }
    assert_eq!(keys, (0..25).map(|i| format!("k{i}")).collect());
    assert!(pages <= 4, "{pages} pages");
    assert_eq!(kind(process.running(None, 0).await), ErrorKind::InvalidInput);
}

async fn an_operation_that_nobody_knows_shows_as_none<S: Transactional + Clone>(bench: Bench<S>) {
    assert_eq!(bench.process().show(&identity("k")).await.unwrap(), None);
    assert_eq!(kind(bench.process().show(&identity("")).await), ErrorKind::InvalidInput);
}

async fn a_released_operation_runs_again_and_its_owner_records_nothing<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    let owner = won(process.claim(operation("k")).await);
    let released = bench.process().release(&identity("k"), "it hangs").await.unwrap();
    assert_eq!((released.status, released.ending), (Status::Failed, Some(Ending::Released)));
    assert_eq!(released.error.as_deref(), Some("it hangs"));
    assert!(process.running(None, 10).await.unwrap().operations.is_empty());

    assert_eq!(kind(owner.finish("late").await), ErrorKind::LeaseLost);
    let next = won(process.claim(operation("k")).await);
    assert_eq!(next.attempt(), 2);
    next.finish("in time").await.unwrap();
    assert_eq!(replayed(process.claim(operation("k")).await), b"in time");
}

async fn what_is_not_held_up_cannot_be_released<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    won(process.claim(operation("finished")).await).finish("").await.unwrap();
    won(process.claim(operation("failed")).await).fail("").await.unwrap();
    for key in ["finished", "failed", "unknown"] {
        assert_eq!(kind(process.release(&identity(key), "why not").await), ErrorKind::InvalidInput, "{key}");
    }
}
