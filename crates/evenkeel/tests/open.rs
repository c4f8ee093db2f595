//! Any store by its URL, and why not.

use evenkeel::core::{ErrorKind, Store};

#[tokio::test]
async fn a_scheme_that_no_store_has_is_refused_and_named() {
    for url in ["mysql://localhost", "", "sqlite3://x.db"] {
        let error = evenkeel::open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url:?}");
        assert!(error.to_string().contains("memory, sqlite, pg, dynamo, redis"), "{error}");
    }
}

#[tokio::test]
async fn a_store_whose_feature_is_off_says_which_to_add() {
    for (url, feature, is_on) in [
        ("memory:", "memory", cfg!(feature = "memory")),
        ("sqlite::memory:", "sqlite", cfg!(feature = "sqlite")),
        ("pg://nobody@127.0.0.1:1/none", "pg", cfg!(feature = "pg")),
        ("dynamo://", "dynamo", cfg!(feature = "dynamo")),
        ("redis://127.0.0.1:1", "redis", cfg!(feature = "redis")),
    ] {
        match evenkeel::open(url).await {
            Ok(store) => assert!(is_on && store.info().name == feature, "{url}"),
            Err(error) => {
                assert_eq!(error.kind() == ErrorKind::Unsupported, !is_on, "{error:?}");
                assert_eq!(error.to_string().contains(&format!("\"{feature}\"")), !is_on, "{error}");
            }
        }
    }
}
