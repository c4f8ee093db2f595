use proptest::prelude::*;
use serde_json::json;

use super::*;

fn filter(json: Value) -> Filter {
    Filter::parse(json).unwrap()
}

/// Which comparisons hold between a document's field and a value.
#[expect(clippy::needless_pass_by_value, reason = "the cases read better")]
fn check(found: Value, wanted: Value, holding: &[&str]) {
    let document = json!({ "a": { "b": found } });
    let ops: &[&str] = if wanted.is_null() { &["eq"] } else { &["eq", "ne", "lt", "le", "gt", "ge"] };
    for op in ops {
        let json = json!({ "field": "a.b", "op": op, "value": wanted });
        assert_eq!(filter(json.clone()).matches(&document), holding.contains(op), "{json} on {document}");
    }
    let json = json!({ "field": "a.b", "op": "in", "value": ["other", wanted] });
    assert_eq!(filter(json.clone()).matches(&document), holding.contains(&"eq"), "{json} on {document}");
}

const SAME: &[&str] = &["eq", "le", "ge"];
const LESS: &[&str] = &["ne", "lt", "le"];
const GREATER: &[&str] = &["ne", "gt", "ge"];

#[test]
fn values_of_one_type_compare() {
    check(json!(2), json!(2), SAME);
    check(json!(1), json!(2), LESS);
    check(json!(-1), json!(-2), GREATER);
    check(json!("a"), json!("a"), SAME);
    check(json!("b"), json!("a"), GREATER);
    check(json!("Z"), json!("a"), LESS);
    check(json!("a"), json!("ab"), LESS);
    check(json!(false), json!(true), LESS);
    check(json!(0.5), json!(0.25), GREATER);
    check(json!(null), json!(null), &["eq"]);
}

#[test]
fn numbers_compare_as_numbers_without_rounding() {
    check(json!(2), json!(2.0), SAME);
    check(json!(2.5), json!(2), GREATER);
    check(json!(-2), json!(-2.5), GREATER);
    check(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), GREATER);
    check(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0), GREATER);
    check(json!(u64::MAX), json!(i64::MAX), GREATER);
    check(json!(u64::MAX), json!(u64::MAX), SAME);
    check(json!(u64::MAX), json!(18_446_744_073_709_551_616.0), LESS);
    check(json!(i64::MIN), json!(-9_223_372_036_854_775_808.0), SAME);
    check(json!(i64::MIN), json!(-1e300), GREATER);
    check(json!(1e300), json!(1), GREATER);
}

#[test]
fn values_of_two_types_never_match() {
    check(json!("1"), json!(1), &[]);
    check(json!(1), json!("1"), &[]);
    check(json!(true), json!(1), &[]);
    check(json!("true"), json!(true), &[]);
    check(json!(null), json!(0), &[]);
    check(json!(0), json!(null), &[]);
    check(json!([1]), json!(1), &[]);
    check(json!({}), json!("a"), &[]);
}

#[test]
fn a_missing_field_matches_nothing_but_its_absence() {
    for document in [json!({}), json!({"a": {}}), json!({"a": 1}), json!({"a.b": 1}), json!([]), json!(null)]
    {
        for op in ["eq", "ne", "lt", "le", "gt", "ge"] {
            let filter = filter(json!({"field": "a.b", "op": op, "value": 1}));
            assert!(!filter.matches(&document), "{op} on {document}");
        }
        assert!(!filter(json!({"field": "a.b", "op": "eq", "value": null})).matches(&document));
        assert!(!filter(json!({"field": "a.b", "op": "in", "value": [1]})).matches(&document));
        assert!(!filter(json!({"field": "a.b", "op": "exists", "value": true})).matches(&document));
        assert!(filter(json!({"field": "a.b", "op": "exists", "value": false})).matches(&document));
        assert!(filter(json!({"not": {"field": "a.b", "op": "eq", "value": 1}})).matches(&document));
    }
    let document = json!({"a": {"b": null}});
    assert!(filter(json!({"field": "a.b", "op": "exists", "value": true})).matches(&document));
    assert!(!filter(json!({"field": "a.b", "op": "exists", "value": false})).matches(&document));
}

#[test]
fn and_or_and_not_combine() {
    let is = |field: &str, value: i64| json!({"field": field, "op": "eq", "value": value});
    let (a, b) = (is("a", 1), is("b", 2));
    for (document, both, either, neither) in [
        (json!({"a": 1, "b": 2}), true, true, false),
        (json!({"a": 1, "b": 0}), false, true, false),
        (json!({"a": 0, "b": 2}), false, true, false),
        (json!({"a": 0, "b": 0}), false, false, true),
    ] {
        assert_eq!(filter(json!({"and": [a, b]})).matches(&document), both, "{document}");
        assert_eq!(filter(json!({"or": [a, b]})).matches(&document), either, "{document}");
        assert_eq!(filter(json!({"not": {"or": [a, b]}})).matches(&document), neither, "{document}");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the cases read better")]
fn check_refused(json: Value, at: &str, rule: &str) {
    let error = Filter::parse(json.clone()).unwrap_err().to_string();
    assert!(error.contains(&format!("field: {at}, value: ")), "{json}: {error}");
    assert!(error.contains(rule), "{json}: {error}");
}

#[test]
fn what_is_no_filter_is_refused_with_path_and_value() {
    let some = json!({"field": "a", "op": "eq", "value": 1});
    check_refused(json!(null), "filter", "a filter is an object");
    check_refused(json!([]), "filter", "a filter is an object");
    check_refused(json!("a = 1"), "filter", "a filter is an object");
    check_refused(json!({}), "filter", "one of the members");
    check_refused(json!({"status": "open"}), "filter", "one of the members");
    check_refused(json!({"op": "eq", "value": 1}), "filter", "one of the members");
    check_refused(
        json!({"field": "a", "op": "eq", "value": 1, "colour": 7}),
        "filter.colour",
        "no member \"colour\"",
    );
    check_refused(json!({"and": [some], "or": [some]}), "filter.or", "no member \"or\"");
    check_refused(json!({"and": [some, {"not": {"x": 1}}]}), "filter.and[1].not", "one of the members");
    check_refused(json!({"field": 1, "op": "eq", "value": 1}), "filter.field", "a path of member names");
    check_refused(json!({"field": "", "op": "eq", "value": 1}), "filter.field", "is empty");
    check_refused(json!({"field": "a..b", "op": "eq", "value": 1}), "filter.field", "empty member name");
    check_refused(json!({"field": "a"}), "filter.op", "expected one of eq, ne");
    check_refused(json!({"field": "a", "op": 1, "value": 1}), "filter.op", "expected one of eq, ne");
    check_refused(
        json!({"and": [some, some, {"field": "a", "op": "like"}]}),
        "filter.and[2].op",
        "value: \"like\"",
    );
    check_refused(json!({"field": "a", "op": "eq"}), "filter.value", "eq takes a value");
    check_refused(json!({"field": "a", "op": "eq", "value": [1]}), "filter.value", "a string, a number");
    check_refused(json!({"field": "a", "op": "lt", "value": {}}), "filter.value", "a string, a number");
    check_refused(json!({"field": "a", "op": "ne", "value": null}), "filter.value", "ne never matches null");
    check_refused(json!({"field": "a", "op": "ge", "value": null}), "filter.value", "ge never matches null");
    check_refused(json!({"field": "a", "op": "in"}), "filter.value", "1 to 256 values");
    check_refused(json!({"field": "a", "op": "in", "value": 1}), "filter.value", "1 to 256 values");
    check_refused(json!({"field": "a", "op": "in", "value": []}), "filter.value", "1 to 256 values");
    check_refused(
        json!({"field": "a", "op": "in", "value": vec![1; 257]}),
        "filter.value",
        "1 to 256 values",
    );
    check_refused(
        json!({"field": "a", "op": "in", "value": [1, [2]]}),
        "filter.value[1]",
        "a string, a number",
    );
    check_refused(json!({"field": "a", "op": "exists"}), "filter.value", "true or false");
    check_refused(json!({"field": "a", "op": "exists", "value": 1}), "filter.value", "true or false");
    check_refused(json!({"and": []}), "filter.and", "at least one filter");
    check_refused(json!({"or": {}}), "filter.or", "at least one filter");
    check_refused(json!({"or": [1]}), "filter.or[0]", "a filter is an object");
    check_refused(json!({"not": [some]}), "filter.not", "a filter is an object");
    check_refused(json!("x".repeat(100)), "filter", "xxx...");
}

#[test]
fn a_filter_is_bounded_in_depth_and_parts() {
    let some = json!({"field": "a", "op": "eq", "value": 1});
    let nested = |depth: usize| (1..depth).fold(some.clone(), |inner, _| json!({ "not": inner }));
    assert!(!filter(nested(16)).matches(&json!({"a": 1})), "negated fifteen times");
    check_refused(nested(17), &format!("filter{}", ".not".repeat(16)), "deeper than 16");

    let wide = |parts: usize| json!({ "or": vec![some.clone(); parts - 1] });
    assert!(filter(wide(256)).matches(&json!({"a": 1})));
    check_refused(wide(257), "filter.or[255]", "more than 256 parts");
}

#[test]
fn a_filter_is_written_as_it_was_read() {
    let text = r#"{"and":[{"field":"a.b","op":"ne","value":1.0},{"field":"c","op":"exists","value":false}]}"#;
    let filter: Filter = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&filter).unwrap(), text);
    let error = serde_json::from_str::<Filter>(r#"{"and":[]}"#).unwrap_err().to_string();
    assert!(error.contains("field: filter.and, value: []"), "{error}");
}

proptest! {
    #[test]
    fn whole_numbers_that_floating_point_has_compare_as_there(
        integer in -(1_i64 << 53)..1 << 53,
        float in prop_oneof![-1e3_f64..1e3, -1e19..1e19],
    ) {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let same = integer as f64;
        prop_assert_eq!(compare_mixed(integer.into(), float), same.partial_cmp(&float).unwrap());
        prop_assert_eq!(compare_mixed(integer.into(), same), Ordering::Equal);
    }
}
