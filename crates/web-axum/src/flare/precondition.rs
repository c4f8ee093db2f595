//! `If-Match` and `If-None-Match` (RFC 9110, 13.1): a document's entity tag is its revision.

use evenkeel_flare::{Precondition, Revision};
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};

use crate::Problem;
use crate::problem::Kind;

/// The entity tag of a revision.
pub(crate) fn entity_tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// What the headers demand of the document that is there.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        // A weak tag never matches where the comparison is strong.
        (Some(tags), None) => Ok(Precondition::Match(tags.revisions(|tag| !tag.is_weak))),
        (None, Some(tags)) => Ok(Precondition::NoneMatch(tags.revisions(|_| true))),
        (Some(_), Some(_)) => {
            Err(Problem::bad_request("there is an if-match or an if-none-match header, not both"))
        }
    }
}

/// Whether a reader has this revision already.
pub(crate) fn is_known(headers: &HeaderMap, revision: Revision) -> Result<bool, Problem> {
    let tags = tags(headers, &IF_NONE_MATCH)?;
    Ok(tags.is_some_and(|tags| tags.revisions(|_| true).is_none_or(|known| known.contains(&revision))))
}

/// What a precondition names.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    text: String,
    is_weak: bool,
}

impl Tags {
    /// The revisions that are wanted; `None` is any. A tag that is no revision is that of no document.
    fn revisions(self, counts: impl Fn(&Tag) -> bool) -> Option<Vec<Revision>> {
        let Self::These(tags) = self else { return None };
        let revision = |tag: &Tag| {
            // Not `+7` or `007`: tags are compared as they are written.
            tag.text
                .parse()
                .ok()
                .map(|number: i64| Revision::from(number))
                .filter(|it| it.to_string() == tag.text)
        };
        Some(tags.iter().filter(|tag| counts(tag)).filter_map(revision).collect())
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut texts = Vec::new();
    for value in headers.get_all(name) {
        texts.push(value.to_str().map_err(|_| malformed(name, &String::from_utf8_lossy(value.as_bytes())))?);
    }
    let text = texts.join(",");
    match text.trim() {
        "" if texts.is_empty() => Ok(None),
        "*" => Ok(Some(Tags::Any)),
        list => parse(list).map(|tags| Some(Tags::These(tags))).ok_or_else(|| malformed(name, &text)),
    }
}

fn malformed(name: &HeaderName, value: &str) -> Problem {
    let detail = format!("{name} is neither * nor quoted entity tags (value: {})", value.escape_debug());
    Problem::new(Kind::BadRequest, detail)
}

fn parse(list: &str) -> Option<Vec<Tag>> {
    let (mut tags, mut rest) = (Vec::new(), list);
    loop {
        let tag = rest.trim_start();
        let weak = tag.strip_prefix("W/");
        let (text, after) = weak.unwrap_or(tag).strip_prefix('"')?.split_once('"')?;
        tags.push(Tag { text: text.to_owned(), is_weak: weak.is_some() });
        match after.trim_start() {
            "" => return Some(tags),
            more => rest = more.strip_prefix(',')?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), http::HeaderValue::from_static(value))).collect()
    }

    fn numbers(numbers: &[i64]) -> Option<Vec<Revision>> {
        Some(numbers.iter().copied().map(Revision::from).collect())
    }

    #[test]
    fn entity_tags_are_revisions() {
        for (values, strong, weak) in [
            (&["*"][..], None, None),
            (&["\"7\""], numbers(&[7]), numbers(&[7])),
            (&["\"7\", \"-8\"", "W/\"9\""], numbers(&[7, -8]), numbers(&[7, -8, 9])),
            (&["\"a,b\",\"7\""], numbers(&[7]), numbers(&[7])),
            (&["\"+7\", \"007\", \"\""], numbers(&[]), numbers(&[])),
        ] {
            let found = precondition(&headers(&IF_MATCH, values)).unwrap();
            assert_eq!(found, Precondition::Match(strong), "{values:?}");
            let found = precondition(&headers(&IF_NONE_MATCH, values)).unwrap();
            assert_eq!(found, Precondition::NoneMatch(weak), "{values:?}");
        }
        assert_eq!(precondition(&HeaderMap::new()).unwrap(), Precondition::None);
    }

    #[test]
    fn what_is_no_entity_tag_is_refused_by_name_of_the_header() {
        for value in ["", "7", "\"7", "\"7\" \"8\"", "\"7\",", "*, \"7\"", "w/\"7\""] {
            let problem = precondition(&headers(&IF_MATCH, &[value])).unwrap_err();
            assert!(problem.detail().starts_with("if-match "), "{value:?}: {problem}");
        }
    }

    #[test]
    fn a_reader_knows_the_revision_that_it_names() {
        let revision = Revision::from(7);
        assert!(!is_known(&HeaderMap::new(), revision).unwrap());
        assert!(is_known(&headers(&IF_NONE_MATCH, &["W/\"7\""]), revision).unwrap());
        assert!(is_known(&headers(&IF_NONE_MATCH, &["*"]), revision).unwrap());
        assert!(!is_known(&headers(&IF_NONE_MATCH, &["\"8\""]), revision).unwrap());
    }
}
