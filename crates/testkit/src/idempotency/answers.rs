use evenkeel_core::{Batch, Expect, Key, MemoryStore, Scan, Store, StoreExt, Transactional};
use evenkeel_idempotency::{Claim, Content, ErrorKind};

use super::bench::{Bench, identity, kind, operation, replayed, run_kind, won};

super::cases![
    an_answer_comes_back_byte_for_byte,
    an_answer_of_the_limit_is_stored_whatever_its_bytes,
    an_answer_beyond_the_limit_is_left_out_and_said_so,
    a_value_that_does_not_fit_is_kept_by_its_caller_and_never_runs_again,
    a_value_that_json_cannot_hold_never_runs_again,
    a_large_answer_goes_to_the_second_store,
    an_answer_whose_parts_are_gone_is_corrupt,
    an_answer_in_a_second_store_that_is_not_set_is_corrupt,
];

async fn an_answer_comes_back_byte_for_byte<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (i, answer) in
        [&b""[..], b"text \"\\\0\n", "\u{1F30A}".as_bytes(), &all_bytes].into_iter().enumerate()
    {
        let key = format!("k{i}");
        won(process.claim(operation(&key)).await).finish(answer.to_vec()).await.unwrap();
        assert_eq!(replayed(process.claim(operation(&key)).await), answer);
    }
}

async fn an_answer_of_the_limit_is_stored_whatever_its_bytes<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let answer = vec![0xff; process.answer_limit()];
    let long = || {
        evenkeel_idempotency::Operation::new(
            evenkeel_idempotency::Scope::Principal("\"".repeat(2048)),
            "\\".repeat(8192),
            "\"".repeat(255),
        )
    };
    won(process.claim(long()).await).fail("\u{1}".repeat(10_000)).await.unwrap();
    won(process.claim(long()).await).finish(answer.clone()).await.unwrap();
    assert_eq!(replayed(process.claim(long()).await), answer);
}

async fn an_answer_beyond_the_limit_is_left_out_and_said_so<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let bytes = bench.store.info().limits.value + 1;
    let content = Content::NotStored { bytes: bytes as u64 };
    let answer = won(process.claim(operation("k")).await).finish(vec![b'a'; bytes]).await.unwrap();
    assert_eq!(answer.content, content);
    match process.claim(operation("k")).await.unwrap() {
        Claim::Replay(answer) => assert_eq!(answer.content, content),
        Claim::Run(guard) => panic!("it was not to run again: {guard:?}"),
    }

    won(process.claim(operation("said")).await).finish_without_answer(9).await.unwrap();
    match process.claim(operation("said")).await.unwrap() {
        Claim::Replay(answer) => assert_eq!(answer.content, Content::NotStored { bytes: 9 }),
        Claim::Run(guard) => panic!("it was not to run again: {guard:?}"),
    }
}

async fn a_value_that_does_not_fit_is_kept_by_its_caller_and_never_runs_again<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    let long = "a".repeat(bench.store.info().limits.value);
    let outcome = process.run(operation("k"), async || Ok::<_, String>(long.clone())).await.unwrap();
    assert_eq!((outcome.value, outcome.replayed), (long, false));
    let again = process.run(operation("k"), async || -> Result<String, String> { unreachable!() }).await;
    assert_eq!(run_kind(again), ErrorKind::AnswerNotStored);
}

async fn a_value_that_json_cannot_hold_never_runs_again<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let value = || std::collections::BTreeMap::from([((1, 2), 3)]);
    let run = process.run(operation("k"), async || Ok::<_, String>(value())).await;
    assert_eq!(run_kind(run), ErrorKind::InvalidInput);
    let run = process.run(operation("k"), async || -> Result<u8, String> { unreachable!() }).await;
    assert_eq!(run_kind(run), ErrorKind::AnswerNotStored);

    // In a transaction nothing has happened, so it may run again.
    let run = process.run_tx(operation("tx"), async |_tx| Ok::<_, String>(value())).await;
    assert_eq!(run_kind(run), ErrorKind::InvalidInput);
    let run = process.run_tx(operation("tx"), async |_tx| Ok::<_, String>(3)).await.unwrap();
    assert_eq!(run.value, 3);
}

async fn a_large_answer_goes_to_the_second_store<S: Transactional + Clone>(bench: Bench<S>) {
    let second = MemoryStore::with_partitions(4).unwrap();
    let process = bench.process().offload(second.clone(), 1000);
    assert_eq!(process.answer_limit(), usize::MAX);
    for (key, length) in [("small", 1000), ("large", 1001), ("many parts", 1_000_000)] {
        let answer: Vec<u8> = (0..length).map(|i: u32| i.to_le_bytes()[1]).collect();
        won(process.claim(operation(key)).await).finish(answer.clone()).await.unwrap();
        assert_eq!(replayed(process.claim(operation(key)).await), answer, "{key}");
    }
    let guard = won(process.claim(operation("tx")).await);
    let tx = guard.begin().await.unwrap();
    guard.finish_in(tx, Content::Stored(vec![7; 2000].into())).await.unwrap();
    assert_eq!(replayed(process.claim(operation("tx")).await), vec![7; 2000]);

    assert_eq!(chunks(&bench, &second, "small").await, 0);
    assert_eq!(chunks(&bench, &second, "large").await, 1);
    assert_eq!(chunks(&bench, &second, "many parts").await, 4);
}

async fn an_answer_whose_parts_are_gone_is_corrupt<S: Transactional + Clone>(bench: Bench<S>) {
    let second = MemoryStore::new();
    let process = bench.process().offload(second.clone(), 10);
    won(process.claim(operation("k")).await).finish(vec![1; 700_000]).await.unwrap();
    let at = second.partition_of("");
    let group = group(&bench, "k").await;
    let mut batch = Batch::new(at, bench.now());
    batch.delete(Key::new("idempotency.answer", group, "00001"), Expect::Present);
    second.commit(batch).await.unwrap();

    let error = process.claim(operation("k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store(evenkeel_core::ErrorKind::Corrupt));
    assert_eq!(error.message(), "a part of the answer is missing");
}

async fn an_answer_in_a_second_store_that_is_not_set_is_corrupt<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().offload(MemoryStore::new(), 10);
    won(process.claim(operation("k")).await).finish(vec![1; 11]).await.unwrap();
    let claim = bench.process().claim(operation("k")).await;
    assert_eq!(kind(claim), ErrorKind::Store(evenkeel_core::ErrorKind::Corrupt));
}

async fn chunks<S: Transactional + Clone>(bench: &Bench<S>, second: &MemoryStore, key: &str) -> usize {
    let group = group(bench, key).await;
    if group.is_empty() {
        return 0;
    }
    second.scan_merged(Scan::new("idempotency.answer", group, 100, bench.now())).await.unwrap().len()
}

/// Where the record says that its answer is; empty where it has the answer itself.
async fn group<S: Transactional + Clone>(bench: &Bench<S>, key: &str) -> String {
    let tracked = bench.process().show(&identity(key)).await.unwrap().unwrap();
    let json = serde_json::to_value(tracked).unwrap();
    json["result"]["chunks"]["group"].as_str().unwrap_or_default().to_owned()
}
