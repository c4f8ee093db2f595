use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{DocumentUrl, Revision};

/// A document as it was published last, or what is left of it once it is deleted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Document {
    /// Where it lives.
    pub url: DocumentUrl,
    /// How new it is.
    pub revision: Revision,
    /// When it was published or deleted.
    pub updated_at: Timestamp,
    /// Its exact bytes; `None` once it is deleted.
    pub content: Option<Bytes>,
}

/// What precedes the content in a record.
#[derive(Serialize, Deserialize)]
struct Header {
    url: DocumentUrl,
    revision: Revision,
    updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl Document {
    /// One line of JSON, and then the content byte for byte.
    pub(crate) fn encode(&self) -> Bytes {
        let header = Header {
            url: self.url.clone(),
            revision: self.revision,
            updated_at: self.updated_at,
            deleted: self.content.is_none(),
        };
        let mut value = serde_json::to_vec(&header).expect("a header is JSON");
        value.push(b'\n');
        value.extend_from_slice(self.content.as_deref().unwrap_or_default());
        value.into()
    }

    pub(crate) fn decode(value: &Bytes) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "a document's record is not one");
        let end = value.iter().position(|byte| *byte == b'\n').ok_or_else(corrupt)?;
        let header: Header =
            serde_json::from_slice(&value[..end]).map_err(|source| corrupt().with_source(source))?;
        let Header { url, revision, updated_at, deleted } = header;
        let content = (!deleted).then(|| value.slice(end + 1..));
        Ok(Self { url, revision, updated_at, content })
    }

    /// Whether it was deleted.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        self.content.is_none()
    }
}
