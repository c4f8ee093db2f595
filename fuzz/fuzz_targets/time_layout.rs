//! A field's format and its value, a line each: nothing panics, and what has a revision keeps it when
//! the change was written and read.

#![no_main]

use evenkeel_flare::Change;
use libfuzzer_sys::fuzz_target;
use serde_json::{json, value::RawValue};

fuzz_target!(|text: &str| {
    let (format, value) = text.split_once('\n').unwrap_or((text, text));
    let Ok(change) = Change::new("v", format) else { return };
    let json = serde_json::to_vec(&change).expect("a change is JSON");
    let again: Change = serde_json::from_slice(&json).expect("a change is read as it was written");
    assert_eq!(again, change);

    let text = json!({ "v": value }).to_string();
    let _ = change.revision_of(text.as_bytes());
    if let Ok(value) = serde_json::from_str::<&RawValue>(value) {
        let _ = change.revision_of(format!(r#"{{"v":{value}}}"#).as_bytes());
    }
});
