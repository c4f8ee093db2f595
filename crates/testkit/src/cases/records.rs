use evenkeel_core::{Expect, Key, Result, Store};

use super::{Case, cases};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_read_sees_what_was_committed_before,
    get_answers_in_the_order_of_the_keys,
    no_keys_give_an_empty_answer,
    any_bytes_survive_as_a_value,
    a_put_replaces_the_record,
    a_record_of_another_space_group_or_id_is_another_record,
    ids_are_compared_byte_by_byte,
    the_version_is_the_id_of_the_batch_that_wrote_last,
    a_version_never_comes_back_not_even_after_a_delete,
    deleting_removes_the_record,
    deleting_an_absent_key_succeeds,
];

async fn a_read_sees_what_was_committed_before(store: Tested) -> Result<()> {
    for round in 0..20 {
        let value = format!("round {round}");
        store.put("a", value.clone()).await?;
        assert_eq!(store.value("a").await?.unwrap(), value);
        let page = store.store.scan(&store.at, store.scan(1)).await?;
        assert_eq!(page.records[0].1.value, value);
    }
    Ok(())
}

async fn get_answers_in_the_order_of_the_keys(store: Tested) -> Result<()> {
    store.commit(|batch| batch.put(key("a"), "1", Expect::Any).put(key("b"), "2", Expect::Any)).await?;
    let keys = [key("b"), key("missing"), key("a"), key("b")];
    let found = store.store.get(&store.at, store.now(), &keys).await?;
    let values: Vec<_> = found.into_iter().map(|record| record.map(|record| record.value)).collect();
    assert_eq!(values, [Some("2".into()), None, Some("1".into()), Some("2".into())]);
    Ok(())
}

async fn no_keys_give_an_empty_answer(store: Tested) -> Result<()> {
    store.put("a", "1").await?;
    assert_eq!(store.store.get(&store.at, store.now(), &[]).await?, []);
    Ok(())
}

async fn any_bytes_survive_as_a_value(store: Tested) -> Result<()> {
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [Vec::new(), vec![0], vec![0xff, 0xfe, 0], every_byte] {
        store.put("a", value.clone()).await?;
        assert_eq!(store.value("a").await?.unwrap(), value);
    }
    Ok(())
}

async fn a_put_replaces_the_record(store: Tested) -> Result<()> {
    let expires_at = store.in_seconds(10);
    store.commit(|batch| batch.put_until(key("a"), "long before", Expect::Any, expires_at)).await?;
    assert_eq!(store.record(&key("a")).await?.unwrap().expires_at, Some(expires_at));

    store.put("a", "").await?;
    let record = store.record(&key("a")).await?.unwrap();
    assert_eq!(record.value, "");
    assert_eq!(record.expires_at, None);
    Ok(())
}

async fn a_record_of_another_space_group_or_id_is_another_record(store: Tested) -> Result<()> {
    let keys = [
        Key::new("s", "g", "i"),
        Key::new("s", "g", "i2"),
        Key::new("s", "gi", "i"),
        Key::new("sg", "i", "i"),
        Key::new("s", "g/i", "i"),
        Key::new("s/g", "i", "i"),
    ];
    for key in &keys {
        store.commit(|batch| batch.put(key.clone(), key.to_string(), Expect::Absent)).await?;
    }
    for key in &keys {
        assert_eq!(store.record(key).await?.unwrap().value, key.to_string());
    }
    Ok(())
}

async fn ids_are_compared_byte_by_byte(store: Tested) -> Result<()> {
    // Equal to a database that folds case, ignores accents or trailing spaces, or normalises.
    let ids = [
        "cafe",
        "CAFE",
        "cafe ",
        "café",
        "cafe\u{301}",
        "ｃafe",
        "straße",
        "strasse",
        "%",
        "_",
        "\u{10ffff}",
    ];
    for id in ids {
        store.commit(|batch| batch.put(key(id), id, Expect::Absent)).await?;
    }
    for id in ids {
        assert_eq!(store.value(id).await?.unwrap(), id);
    }
    Ok(())
}

async fn the_version_is_the_id_of_the_batch_that_wrote_last(store: Tested) -> Result<()> {
    for _ in 0..3 {
        let batch =
            store.batch(|batch| batch.put(key("a"), "1", Expect::Any).put(key("b"), "2", Expect::Any));
        let committed = store.send(&batch).await?;
        assert_eq!(committed.version, batch.version());
        for id in ["a", "b"] {
            let record = store.record(&key(id)).await?.unwrap();
            assert_eq!(record.version, batch.version());
            assert_eq!(record.version.0, batch.id());
        }
    }
    Ok(())
}

async fn a_version_never_comes_back_not_even_after_a_delete(store: Tested) -> Result<()> {
    let mut versions = Vec::new();
    for _ in 0..3 {
        store.put("a", "the same").await?;
        versions.push(store.record(&key("a")).await?.unwrap().version);
        store.put("a", "the same").await?;
        versions.push(store.record(&key("a")).await?.unwrap().version);
        store.commit(|batch| batch.delete(key("a"), Expect::Any)).await?;
    }
    let mut different = versions.clone();
    different.sort_by_key(|version| version.0);
    different.dedup();
    assert_eq!(different.len(), versions.len(), "{versions:?}");
    Ok(())
}

async fn deleting_removes_the_record(store: Tested) -> Result<()> {
    store.put("a", "1").await?;
    store.put("b", "2").await?;
    store.commit(|batch| batch.delete(key("a"), Expect::Any)).await?;
    assert_eq!(store.value("a").await?, None);
    assert_eq!(store.ids(store.scan(10)).await?, ["b"]);
    store.commit(|batch| batch.check(key("a"), Expect::Absent)).await?;
    Ok(())
}

async fn deleting_an_absent_key_succeeds(store: Tested) -> Result<()> {
    store.commit(|batch| batch.delete(key("a"), Expect::Any)).await?;
    store.commit(|batch| batch.delete(key("a"), Expect::Absent)).await?;
    assert_eq!(store.value("a").await?, None);
    Ok(())
}
