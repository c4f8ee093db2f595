use std::collections::HashMap;
use std::fmt;

use evenkeel_core::{Error, ErrorKind, Result};

use crate::template::Segment;
use crate::{DocumentUrl, Template};

/// Values by template, found by a document's URL.
///
/// A template matches a URL of the same scheme, host and number of segments. Where several match, a
/// literal beats a wildcard at the earliest segment in which they differ.
///
/// A trie of segments; finding looks at each of its nodes at most once.
#[derive(Clone)]
pub(crate) struct Routes<T> {
    origins: HashMap<String, Node<T>>,
}

#[derive(Clone)]
struct Node<T> {
    value: Option<T>,
    literals: HashMap<String, Self>,
    wildcard: Option<Box<Self>>,
}

impl<T> Routes<T> {
    /// Adds a value.
    ///
    /// # Errors
    /// `AlreadyExists` where a template of the same pattern is there.
    pub(crate) fn insert(&mut self, template: &Template, value: T) -> Result<()> {
        let mut node = self.origins.entry(template.origin().to_owned()).or_default();
        for segment in template.segments() {
            node = match segment {
                Segment::Literal(literal) => node.literals.entry(literal.clone()).or_default(),
                Segment::Wildcard(_) => node.wildcard.get_or_insert_default(),
            };
        }
        if node.value.is_some() {
            let error = Error::new(ErrorKind::AlreadyExists, "another template has the same pattern");
            return Err(error.with("endpoint", template));
        }
        node.value = Some(value);
        Ok(())
    }

    /// The value of the template that matches the URL best.
    pub(crate) fn find(&self, url: &DocumentUrl) -> Option<&T> {
        let segments: Vec<_> = url.segments().collect();
        self.origins.get(url.origin())?.find(&segments)
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { origins: HashMap::new() }
    }
}

impl<T> fmt::Debug for Routes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("origins", &self.origins.keys()).finish_non_exhaustive()
    }
}

impl<T> Node<T> {
    fn find(&self, segments: &[&str]) -> Option<&T> {
        let Some((first, rest)) = segments.split_first() else {
            return self.value.as_ref();
        };
        let literal = self.literals.get(*first).and_then(|node| node.find(rest));
        literal.or_else(|| self.wildcard.as_ref()?.find(rest))
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { value: None, literals: HashMap::new(), wildcard: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn url(text: &str) -> DocumentUrl {
        DocumentUrl::parse(text).unwrap()
    }

    /// Which of the templates is found for each of the URLs.
    fn check(templates: &[&str], cases: &[(&str, Option<&str>)]) {
        let mut routes = Routes::default();
        for text in templates {
            routes.insert(&template(text), *text).unwrap();
        }
        for (text, expected) in cases {
            assert_eq!(routes.find(&url(text)).copied(), *expected, "{text} among {templates:?}");
        }
    }

    #[test]
    fn scheme_host_and_number_of_segments_must_be_the_same() {
        let (first, second) = ("https://a.example/orders/{id}", "https://a.example/users/{id}");
        let (other, plain) = ("https://b.example/{x}/{y}", "http://a.example/orders/{id}");
        check(
            &[first, second, other, plain],
            &[
                ("https://a.example/orders/1", Some(first)),
                ("https://a.example/users/1", Some(second)),
                ("https://b.example/users/1", Some(other)),
                ("http://a.example/orders/1", Some(plain)),
                ("http://a.example/users/1", None),
                ("https://a.example/orders", None),
                ("https://a.example/orders/1/2", None),
                ("https://a.example:8443/orders/1", None),
                ("https://c.example/orders/1", None),
                ("https://a.example", None),
            ],
        );
    }

    #[test]
    fn a_literal_beats_a_wildcard_at_the_earliest_segment() {
        let (early, late) = ("https://a.example/x/{b}/{c}", "https://a.example/{a}/y/z");
        check(
            &[late, early],
            &[
                ("https://a.example/x/y/z", Some(early)),
                ("https://a.example/w/y/z", Some(late)),
                ("https://a.example/w/y/w", None),
            ],
        );
    }

    #[test]
    fn a_literal_that_leads_nowhere_is_left_again() {
        let (deep, wide) = ("https://a.example/x/{b}/end", "https://a.example/{a}/y/{c}");
        check(
            &[deep, wide],
            &[
                ("https://a.example/x/y/end", Some(deep)),
                ("https://a.example/x/y/other", Some(wide)),
                ("https://a.example/x/z/other", None),
            ],
        );
    }

    #[test]
    fn a_template_of_the_same_pattern_is_refused() {
        let mut routes = Routes::default();
        routes.insert(&template("https://a.example/{a}"), 1).unwrap();
        let error = routes.insert(&template("https://a.example/{b}"), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(routes.find(&url("https://a.example/1")), Some(&1));
    }

    /// Literals before wildcards, segment by segment.
    fn rank(template: &Template) -> Vec<bool> {
        template.segments().iter().map(|segment| matches!(segment, Segment::Wildcard(_))).collect()
    }

    fn templates() -> impl Strategy<Value = Vec<Template>> {
        let segments = || prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("{}")], 0..3);
        let path = (segments(), segments()).prop_map(|(before, after)| {
            let path = before.into_iter().chain(["{}"]).chain(after).enumerate();
            let named = path.map(|(i, segment)| match segment {
                "{}" => format!("/{{w{i}}}"),
                literal => format!("/{literal}"),
            });
            template(&format!("https://a.example{}", named.collect::<String>()))
        });
        prop::collection::vec(path, 0..20)
    }

    proptest! {
        #[test]
        fn finding_agrees_with_trying_every_template(
            inserted in templates(),
            path in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..6),
        ) {
            let (mut routes, mut naive) = (Routes::default(), Vec::<Template>::new());
            for template in inserted {
                let is_new = naive.iter().all(|other| other.pattern() != template.pattern());
                prop_assert_eq!(routes.insert(&template, template.pattern()).is_ok(), is_new);
                if is_new {
                    naive.push(template);
                }
            }
            let url = url(&format!("https://a.example/{}", path.join("/")));
            let matching = naive.iter().filter(|template| template.captures(&url).is_some());
            let expected = matching.min_by_key(|template| rank(template)).map(Template::pattern);
            prop_assert_eq!(routes.find(&url), expected.as_ref());
        }
    }
}
