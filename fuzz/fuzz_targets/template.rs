//! A template and a URL, a line each: normalised forms are their own, and what a template captures,
//! it has wildcards for.

#![no_main]

use evenkeel_flare::{DocumentUrl, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (template, url) = text.split_once('\n').unwrap_or((text, text));
    let template = Template::parse(template);
    if let Ok(template) = &template {
        let again = Template::parse(template.as_str()).expect("a normalised template is one");
        assert_eq!(again.as_str(), template.as_str());
    }
    let Ok(url) = DocumentUrl::from_path(url) else { return };
    assert_eq!(DocumentUrl::parse(url.as_str()).expect("a normalised URL is one"), url);
    if let Ok(template) = template
        && let Some(captures) = template.captures(&url)
    {
        assert!(captures.iter().map(|(name, _)| name).eq(template.wildcards()));
    }
});
