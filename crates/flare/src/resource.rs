use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Change, Template};

/// A kind of document: which URLs it has, and how to tell the newer of two. Never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resource {
    /// What names it.
    pub id: String,
    /// The URLs of its documents.
    pub endpoint: Template,
    /// Where a document says how new it is.
    pub change: Change,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A resource to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewResource {
    /// The URLs of its documents, with at least one `{wildcard}`.
    pub endpoint: Template,
    /// Where a document says how new it is.
    pub change: Change,
}
