use evenkeel_core::Result;

use crate::absolute::invalid;

/// The wildcard that every text may have and no template.
pub(crate) const REVISION: &str = "revision";

/// The name between the braces of a wildcard in `text`.
pub(crate) fn name<'a>(field: &str, text: &str, inner: &'a str) -> Result<&'a str> {
    let name = inner.trim_matches(' ');
    if name.is_empty() {
        return Err(invalid("has empty braces", field, text));
    }
    if name.contains(['{', '}']) {
        return Err(invalid("has nested braces", field, text));
    }
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_name {
        let rule = format!("has a wildcard {name:?} whose name is not of the form [A-Za-z_][A-Za-z0-9_-]*");
        return Err(invalid(&rule, field, text));
    }
    Ok(name)
}
