use std::fmt;

use evenkeel_core::{Error, Result};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer};

use crate::DocumentUrl;
use crate::absolute::{self, Absolute, invalid};
use crate::wildcard;

#[cfg(test)]
mod tests;

const FIELD: &str = "endpoint";

/// The URLs of a resource's documents: an absolute http or https URL in whose path at least one
/// segment is a `{wildcard}`.
///
/// - A wildcard is a whole segment and matches one segment. Its name is `[A-Za-z_][A-Za-z0-9_-]*`,
///   unique in the template and not `revision`; spaces around it are left out.
/// - The rest is as in a [`DocumentUrl`].
///
/// ```
/// use evenkeel_flare::{DocumentUrl, Template};
///
/// # fn main() -> evenkeel_core::Result<()> {
/// let template = Template::parse("https://api.example.com/orders/{order}")?;
/// let url = DocumentUrl::parse("https://api.example.com/orders/a%20b")?;
/// let captures = template.captures(&url).expect("the URL matches");
/// assert_eq!(captures.get("order"), Some("a b"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Template {
    text: String,
    origin: String,
    segments: Vec<Segment>,
}

/// One segment of a template's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// This very segment, encoded.
    Literal(String),
    /// Any segment, under this name.
    Wildcard(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        let Absolute { origin, segments } = Absolute::parse(FIELD, text)?;
        let segments: Vec<_> =
            segments.into_iter().map(|segment| Segment::parse(text, segment)).collect::<Result<_>>()?;
        let mut template = Self { text: origin.clone(), origin, segments };
        for segment in &template.segments {
            template.text.push('/');
            match segment {
                Segment::Literal(literal) => template.text.push_str(literal),
                Segment::Wildcard(name) => template.text.extend(["{", name, "}"]),
            }
        }
        absolute::check_length(FIELD, &template.text)?;

        let wildcards: Vec<_> = template.wildcards().collect();
        if wildcards.is_empty() {
            return Err(invalid("has no {wildcard} in its path", FIELD, text));
        }
        for (i, name) in wildcards.iter().enumerate() {
            if wildcards[..i].contains(name) {
                return Err(invalid(&format!("has two wildcards named {name:?}"), FIELD, text));
            }
            if *name == wildcard::REVISION {
                return Err(invalid("has a wildcard named \"revision\", which is reserved", FIELD, text));
            }
        }
        Ok(template)
    }

    /// The normalised template.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The wildcards' names, in their order.
    pub fn wildcards(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Wildcard(name) => Some(name.as_str()),
        })
    }

    /// The template with its wildcards unnamed. Two templates match the same documents exactly where
    /// their patterns are equal.
    #[must_use]
    pub fn pattern(&self) -> String {
        self.segments.iter().fold(self.origin.clone(), |pattern, segment| match segment {
            Segment::Literal(literal) => pattern + "/" + literal,
            Segment::Wildcard(_) => pattern + "/{}",
        })
    }

    /// What the wildcards stand for in the URL; `None` where the template does not match it.
    #[must_use]
    pub fn captures(&self, url: &DocumentUrl) -> Option<Captures> {
        let found: Vec<_> = url.segments().collect();
        if url.origin() != self.origin || found.len() != self.segments.len() {
            return None;
        }
        let mut captures = Captures::default();
        for (segment, found) in self.segments.iter().zip(found) {
            match segment {
                Segment::Literal(literal) if literal == found => {}
                Segment::Literal(_) => return None,
                Segment::Wildcard(name) => {
                    let value = percent_decode_str(found).decode_utf8_lossy();
                    captures.0.push((name.clone(), value.into_owned()));
                }
            }
        }
        Some(captures)
    }

    /// Captures in which every wildcard stands for `text`.
    pub(crate) fn captures_of(&self, text: &str) -> Captures {
        Captures(self.wildcards().map(|name| (name.to_owned(), text.to_owned())).collect())
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl Segment {
    fn parse(text: &str, segment: &str) -> Result<Self> {
        if !segment.contains(['{', '}']) {
            return Ok(Self::Literal(absolute::canonical(FIELD, text, segment)?));
        }
        let inner = segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
        let inner = inner.ok_or_else(|| {
            invalid(&format!("has a path segment {segment:?} that is not a whole {{wildcard}}"), FIELD, text)
        })?;
        Ok(Self::Wildcard(wildcard::name(FIELD, text, inner)?.to_owned()))
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the wildcards of a template stand for in one document's URL, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(String, String)>);

impl Captures {
    /// What the wildcard stands for; `None` where the template has no such wildcard.
    #[must_use]
    pub fn get(&self, wildcard: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == wildcard).map(|(_, value)| value)
    }

    /// The wildcards and what they stand for, in the template's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
