use evenkeel_core::{Expect, Key, Result, Scan, Store};

use super::{Case, cases};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    ids_come_in_byte_order,
    backwards_ids_come_in_reverse_byte_order,
    a_scan_begins_strictly_after_an_id,
    a_scan_ends_strictly_before_an_id,
    a_scan_whose_bounds_leave_nothing_between_is_empty,
    a_group_without_records_is_empty,
    a_scan_stays_within_its_group,
    following_the_cursors_returns_every_record_exactly_once,
    what_exists_throughout_a_scan_is_returned_exactly_once,
    a_cursor_outlives_its_record,
    the_longest_ids_are_scanned,
];

async fn put_all(store: &Tested, ids: &[&str]) -> Result<()> {
    for some in ids.chunks(50) {
        let mut batch = store.batch(|batch| batch);
        for &id in some {
            batch.put(key(id), id.to_owned(), Expect::Any);
        }
        store.send(&batch).await?;
    }
    Ok(())
}

/// In byte order, which is neither any language's order nor that of UTF-16.
const IDS: [&str; 14] = ["\u{1}", " ", "!", "-", "10", "9", "A", "B", "_", "a", "a!", "b", "ä", "\u{ffee}"];

async fn ids_come_in_byte_order(store: Tested) -> Result<()> {
    let mut shuffled = IDS;
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled);
    put_all(&store, &shuffled).await?;
    put_all(&store, &["\u{10000}"]).await?;

    let found = store.ids(store.scan(100)).await?;
    assert_eq!(found[..IDS.len()], IDS);
    assert_eq!(found[IDS.len()..], ["\u{10000}"]);
    Ok(())
}

async fn backwards_ids_come_in_reverse_byte_order(store: Tested) -> Result<()> {
    put_all(&store, &IDS).await?;
    let mut found = store.ids(store.scan(100).backwards()).await?;
    found.reverse();
    assert_eq!(found, IDS);
    Ok(())
}

async fn a_scan_begins_strictly_after_an_id(store: Tested) -> Result<()> {
    put_all(&store, &["a", "b", "c", "d"]).await?;
    for (after, forwards, backwards) in [
        ("b", &["c", "d"][..], &["a"][..]),
        ("bb", &["c", "d"], &["b", "a"]),
        ("d", &[], &["c", "b", "a"]),
        ("A", &["a", "b", "c", "d"], &[]),
    ] {
        assert_eq!(store.ids(store.scan(10).after(after)).await?, forwards, "after {after:?}");
        assert_eq!(store.ids(store.scan(10).after(after).backwards()).await?, backwards, "before {after:?}");
    }
    Ok(())
}

async fn a_scan_ends_strictly_before_an_id(store: Tested) -> Result<()> {
    put_all(&store, &["a", "b", "c", "d"]).await?;
    assert_eq!(store.ids(store.scan(10).until("c")).await?, ["a", "b"]);
    assert_eq!(store.ids(store.scan(10).until("bb")).await?, ["a", "b"]);
    assert_eq!(store.ids(store.scan(10).until("b").backwards()).await?, ["d", "c"]);
    assert_eq!(store.ids(store.scan(1).after("a").until("d")).await?, ["b", "c"]);
    assert_eq!(store.ids(store.scan(1).after("d").until("a").backwards()).await?, ["c", "b"]);
    Ok(())
}

async fn a_scan_whose_bounds_leave_nothing_between_is_empty(store: Tested) -> Result<()> {
    put_all(&store, &["a", "b", "c"]).await?;
    for (after, until) in [("b", "b"), ("c", "a"), ("a", "b")] {
        assert!(store.ids(store.scan(10).after(after).until(until)).await?.is_empty(), "{after} to {until}");
        let backwards = store.scan(10).after(until).until(after).backwards();
        assert!(store.ids(backwards).await?.is_empty(), "{until} back to {after}");
    }
    Ok(())
}

async fn a_group_without_records_is_empty(store: Tested) -> Result<()> {
    for scan in [store.scan(10), store.scan(10).backwards(), store.scan(10).after("a")] {
        let page = store.store.scan(&store.at, scan).await?;
        assert!(page.records.is_empty());
        assert_eq!(page.cursor, None);
    }
    Ok(())
}

async fn a_scan_stays_within_its_group(store: Tested) -> Result<()> {
    let groups = [
        ("s", "a"),
        ("s", "a/b"),
        ("s", "ab"),
        ("s", "a\u{1}"),
        ("s", "A"),
        ("s", "%"),
        ("sa", "a"),
        ("s/a", "a"),
        ("r", "a"),
        ("t", "a"),
    ];
    for (space, group) in groups {
        for id in ["b", "m", "\u{10ffff}"] {
            let value = format!("{space} {group}");
            store.commit(|batch| batch.put(Key::new(space, group, id), value, Expect::Absent)).await?;
        }
    }
    for (space, group) in groups {
        for scan in
            [Scan::new(space, group, 2, store.now()), Scan::new(space, group, 2, store.now()).backwards()]
        {
            let found = store.scan_to_end(scan).await?;
            assert_eq!(found.len(), 3, "{space} {group}: {found:?}");
            assert!(found.iter().all(|(_, record)| record.value == format!("{space} {group}")), "{found:?}");
        }
    }
    Ok(())
}

async fn following_the_cursors_returns_every_record_exactly_once(store: Tested) -> Result<()> {
    let ids: Vec<String> = (0..23).map(|n| format!("{n:02}")).collect();
    put_all(&store, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let reversed: Vec<String> = ids.iter().rev().cloned().collect();
    for limit in [1, 2, 5, 22, 23, 24, 1000] {
        assert_eq!(store.ids(store.scan(limit)).await?, ids, "by {limit}");
        assert_eq!(store.ids(store.scan(limit).backwards()).await?, reversed, "backwards by {limit}");
    }
    Ok(())
}

async fn what_exists_throughout_a_scan_is_returned_exactly_once(store: Tested) -> Result<()> {
    let steady: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    for backwards in [false, true] {
        put_all(&store, &steady.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let mut random = fastrand::Rng::with_seed(2);
        let mut scan = if backwards { store.scan(3).backwards() } else { store.scan(3) };
        let mut found = Vec::new();
        loop {
            let page = store.store.scan(&store.at, scan.clone()).await?;
            found.extend(page.records.into_iter().map(|(id, _)| id));
            let Some(cursor) = page.cursor else { break };
            scan = scan.after(cursor);
            // Others come and go on both sides of the cursor.
            for _ in 0..4 {
                let other = key(format!("{:02}+", random.u8(0..20)));
                store.commit(|batch| batch.put(other, "", Expect::Any)).await?;
                let other = key(format!("{:02}+", random.u8(0..20)));
                store.commit(|batch| batch.delete(other, Expect::Any)).await?;
            }
        }
        let mut kept: Vec<String> = found.iter().filter(|id| !id.ends_with('+')).cloned().collect();
        if backwards {
            kept.reverse();
        }
        assert_eq!(kept, steady);
        found.sort();
        let count = found.len();
        found.dedup();
        assert_eq!(found.len(), count, "an id came twice");
    }
    Ok(())
}

async fn a_cursor_outlives_its_record(store: Tested) -> Result<()> {
    put_all(&store, &["a", "b", "c", "d"]).await?;
    let page = store.store.scan(&store.at, store.scan(2)).await?;
    let cursor = page.cursor.expect("there is more");
    let seen = page.records.len();
    store.commit(|batch| batch.delete(key(cursor.clone()), Expect::Present)).await?;
    let rest = store.ids(store.scan(2).after(cursor)).await?;
    assert_eq!(rest, ["a", "b", "c", "d"][seen..]);
    Ok(())
}

async fn the_longest_ids_are_scanned(store: Tested) -> Result<()> {
    let long = |last: &str| format!("{}{last}", "ä".repeat((Key::MAX_PART - last.len()) / 2));
    let ids = [long("ay"), long("az"), long("by")];
    put_all(&store, &ids.each_ref().map(String::as_str)).await?;
    assert_eq!(store.ids(store.scan(1)).await?, ids);
    assert_eq!(store.ids(store.scan(1).after(ids[0].clone()).until(ids[2].clone())).await?, [ids[1].clone()]);
    Ok(())
}
