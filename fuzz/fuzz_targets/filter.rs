//! A filter and a document, a line of JSON each: a filter is written as it was read, and its negation
//! matches exactly what it does not.

#![no_main]

use evenkeel_flare::Filter;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let (filter, document) = text.split_once('\n').unwrap_or((text, text));
    let (Ok(json), Ok(document)) =
        (serde_json::from_str::<Value>(filter), serde_json::from_str::<Value>(document))
    else {
        return;
    };
    let Ok(filter) = Filter::parse(json.clone()) else { return };
    assert_eq!(serde_json::to_value(&filter).expect("a filter is JSON"), json);
    if let Ok(negation) = Filter::parse(json!({ "not": json })) {
        assert_ne!(negation.matches(&document), filter.matches(&document));
    }
});
