use evenkeel_core::Result;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::absolute::{self, invalid};
use crate::net::check_header_value;
use crate::wildcard;
use crate::{Captures, Revision, Template};

/// What stands for itself in every part of a URL: the unreserved characters of RFC 3986.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is no visible ASCII, and the sign of encoding itself, so that it can be undone.
const HEADER: &AsciiSet = &CONTROLS.add(b'%');

/// A text with `{wildcards}` of a resource's template, and `{revision}`, to be replaced.
///
/// Spaces inside the braces are left out. There is no way to write a brace that is none of a
/// wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    parts: Vec<Part>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Wildcard(String),
    Revision,
}

/// Where a text stands, which says what values look like in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Url,
    Header,
    Data,
}

impl Text {
    /// A URL. Wildcards are behind the host, so that no document says where it is sent; each value is
    /// encoded so that it is one path segment, or one value of a query.
    pub(crate) fn url(field: &str, text: &str, template: &Template) -> Result<Self> {
        let (origin, rest) = absolute::split_origin(field, text)?;
        let mut text = Self::parse(field, text, rest, template, Place::Url)?;
        text.parts.insert(0, Part::Literal(origin));
        Ok(text)
    }

    /// A header's value. In captured values, `%` and what is not visible ASCII is percent-encoded.
    pub(crate) fn header(field: &str, text: &str, template: &Template) -> Result<Self> {
        check_header_value(field, text)?;
        Self::parse(field, text, text, template, Place::Header)
    }

    /// A string of an envelope's data. Captured values stand in it as they are.
    pub(crate) fn data(field: &str, text: &str, template: &Template) -> Result<Self> {
        Self::parse(field, text, text, template, Place::Data)
    }

    /// The text for one document: `captures` are those of the template that it was read with.
    pub(crate) fn render(&self, captures: &Captures, revision: Revision) -> String {
        let mut rendered = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => rendered.push_str(literal),
                Part::Revision => rendered.push_str(&revision.to_string()),
                Part::Wildcard(name) => {
                    let value = captures.get(name).expect("the captures are those of the text's template");
                    match self.place {
                        Place::Url => rendered.extend(utf8_percent_encode(value, URL)),
                        Place::Header => rendered.extend(utf8_percent_encode(value, HEADER)),
                        Place::Data => rendered.push_str(value),
                    }
                }
            }
        }
        rendered
    }

    /// Reads `rest`, the part of `text` that may have wildcards.
    fn parse(field: &str, text: &str, mut rest: &str, template: &Template, place: Place) -> Result<Self> {
        let mut parts = Vec::new();
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, from_brace) = rest.split_at(at);
            let inner = from_brace
                .strip_prefix('{')
                .ok_or_else(|| invalid("has a closing brace without an opening one", field, text))?;
            let end = inner.find(['{', '}']).ok_or_else(|| invalid("has an unclosed brace", field, text))?;
            if inner[end..].starts_with('{') {
                return Err(invalid("has nested braces", field, text));
            }
            let name = wildcard::name(field, text, &inner[..end])?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::named(name, template).ok_or_else(|| unknown(name, template, field, text))?);
            rest = &inner[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts, place })
    }
}

impl Part {
    fn named(name: &str, template: &Template) -> Option<Self> {
        if name == wildcard::REVISION {
            return Some(Self::Revision);
        }
        template.wildcards().any(|known| known == name).then(|| Self::Wildcard(name.to_owned()))
    }
}

fn unknown(name: &str, template: &Template, field: &str, text: &str) -> evenkeel_core::Error {
    let known: Vec<_> = template.wildcards().chain([wildcard::REVISION]).collect();
    let rule = format!("has a wildcard {name:?} that is none of {}", known.join(", "));
    invalid(&rule, field, text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::DocumentUrl;

    type Read = fn(&str, &str, &Template) -> Result<Text>;

    fn template() -> Template {
        Template::parse("https://a.example/{id}/{item}").unwrap()
    }

    /// Captures `id`, and `a/b` as `item`.
    fn captures(id: &str) -> Captures {
        let id = utf8_percent_encode(id, URL);
        let url = DocumentUrl::parse(&format!("https://a.example/{id}/a%2Fb")).unwrap();
        template().captures(&url).unwrap()
    }

    fn render(read: Read, text: &str, id: &str) -> String {
        read("endpoint.url", text, &template()).unwrap().render(&captures(id), Revision::from(-7))
    }

    #[test]
    fn wildcards_and_the_revision_are_replaced() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{id}", "17"),
            ("{ id }", "17"),
            ("{id}{item}", "17a/b"),
            ("<{item}> of {id}, {id}!", "<a/b> of 17, 17!"),
            ("é{revision}é", "é-7é"),
            ("{ revision }{revision}", "-7-7"),
        ] {
            assert_eq!(render(Text::data, text, "17"), expected, "{text}");
        }
        assert_eq!(render(Text::data, "{id}", "a\r\n{item} 100%"), "a\r\n{item} 100%");
    }

    #[test]
    fn values_in_a_url_are_one_segment() {
        for (text, id, expected) in [
            ("https://B.example/x", "1", "https://b.example/x"),
            ("https://b.example:443", "1", "https://b.example"),
            ("https://b.example/{id}/{revision}", "1", "https://b.example/1/-7"),
            (
                "https://b.example/{id}",
                "a/../b?c#d&e=f é",
                "https://b.example/a%2F..%2Fb%3Fc%23d%26e%3Df%20%C3%A9",
            ),
            ("https://b.example/{id}", "%2F\r\n", "https://b.example/%252F%0D%0A"),
            ("https://b.example?id={id}&r={revision}", "a&b=c", "https://b.example?id=a%26b%3Dc&r=-7"),
            ("https://b.example/x-{id}.json", "~1", "https://b.example/x-~1.json"),
        ] {
            assert_eq!(render(Text::url, text, id), expected, "{text} with {id:?}");
        }
    }

    #[test]
    fn values_in_a_header_are_visible_and_can_be_decoded() {
        for (id, expected) in [
            ("1", "id 1"),
            ("a b\"{c}", "id a b\"{c}"),
            ("a\r\nX: b", "id a%0D%0AX: b"),
            ("é%", "id %C3%A9%25"),
        ] {
            assert_eq!(render(Text::header, "id {id}", id), expected, "{id:?}");
        }
    }

    fn check_refused(read: Read, text: &str, rule: &str) {
        let error = read("endpoint.url", text, &template()).unwrap_err().to_string();
        assert!(error.contains(rule), "{text:?}: {error}");
        assert!(error.contains("field: endpoint.url, value: "), "{text:?}: {error}");
    }

    #[test]
    fn unknown_and_broken_wildcards_are_refused() {
        let reads: [(Read, &str); 3] =
            [(Text::data, ""), (Text::header, "Bearer "), (Text::url, "https://b.example/")];
        for (read, before) in reads {
            for (text, rule) in [
                ("{other}", "a wildcard \"other\" that is none of id, item, revision"),
                ("{ID}", "a wildcard \"ID\" that is none of"),
                ("{Revision}", "a wildcard \"Revision\" that is none of"),
                ("{}", "empty braces"),
                ("{ }", "empty braces"),
                ("{id", "an unclosed brace"),
                ("{id}/{", "an unclosed brace"),
                ("id}", "a closing brace without an opening one"),
                ("{id}}", "a closing brace without an opening one"),
                ("{{id}}", "nested braces"),
                ("{id{item}}", "nested braces"),
                ("{i d}", "is not of the form"),
                ("{1}", "is not of the form"),
            ] {
                check_refused(read, &format!("{before}{text}"), rule);
            }
        }
    }

    #[test]
    fn a_url_is_absolute_and_names_its_host() {
        check_refused(Text::url, "", "not an absolute http or https URL");
        check_refused(Text::url, "/{id}", "not an absolute http or https URL");
        check_refused(Text::url, "{id}", "not an absolute http or https URL");
        check_refused(Text::url, "ftp://b.example/{id}", "not an absolute http or https URL");
        check_refused(Text::url, "https://{id}", "a wildcard before the path");
        check_refused(Text::url, "https://{id}.example/", "a wildcard before the path");
        check_refused(Text::url, "https://b.example:{id}/", "a wildcard before the path");
        check_refused(Text::url, "https://{id}@b.example/", "user information");
        check_refused(Text::url, "https://b.example\\{id}", "a backslash or control character");
    }

    #[test]
    fn a_header_is_visible_ascii() {
        check_refused(Text::header, "é", "visible ASCII");
        check_refused(Text::header, "a\r\nX: b", "visible ASCII");
    }

    proptest! {
        #[test]
        fn a_rendered_value_stays_in_its_place(id in "[^.]\\PC{0,20}|[\\x00-\\x7f]{3,20}") {
            let header = render(Text::header, "{id}", &id);
            prop_assert!(HeaderValue::from_str(&header).is_ok_and(|value| value.to_str().is_ok()));
            prop_assert_eq!(percent_decode_str(&header).decode_utf8().unwrap(), id.as_str());

            let url = url::Url::parse(&render(Text::url, "https://b.example/x/{id}/y?q={id}", &id)).unwrap();
            prop_assert_eq!(url.host_str(), Some("b.example"));
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            prop_assert_eq!(percent_decode_str(segments[1]).decode_utf8().unwrap(), id.as_str());
            let query: Vec<_> = url.query_pairs().collect();
            prop_assert_eq!(query, [("q".into(), id.into())]);
        }
    }
}
