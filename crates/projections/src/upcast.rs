use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use evenkeel_core::{BoxError, Error, ErrorKind, Result};
use serde_json::Value;

/// What brings payloads of earlier versions to the one of today, a version at a time.
#[derive(Clone, Default)]
pub(crate) struct Upcasters {
    by_kind: HashMap<String, HashMap<u32, Upcaster>>,
}

#[derive(Clone)]
struct Upcaster {
    kind: Option<String>,
    change: Arc<Change>,
}

type Change = dyn Fn(Value) -> Result<Value, BoxError> + Send + Sync;

impl Upcasters {
    /// From `version` of `kind` to the next, under the name `renamed` where it has another then.
    pub(crate) fn add(
        &mut self,
        kind: String,
        version: u32,
        renamed: Option<String>,
        change: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) {
        let upcaster = Upcaster { kind: renamed, change: Arc::new(change) };
        self.by_kind.entry(kind).or_default().insert(version, upcaster);
    }

    /// Kind and payload of today; `None` where they are so already.
    pub(crate) fn raise(
        &self,
        kind: &str,
        mut version: u32,
        payload: &[u8],
    ) -> Result<Option<(String, Vec<u8>)>> {
        if self.find(kind, version).is_none() {
            return Ok(None);
        }
        let mut kind = kind.to_owned();
        let mut value = serde_json::from_slice(payload).map_err(|source| failed(&kind, version, source))?;
        while let Some(Upcaster { kind: renamed, change }) = self.find(&kind, version) {
            value = change(value).map_err(|source| failed(&kind, version, source))?;
            version += 1;
            if let Some(renamed) = renamed {
                kind.clone_from(renamed);
            }
        }
        let payload = serde_json::to_vec(&value).expect("a JSON value turns into JSON");
        Ok(Some((kind, payload)))
    }

    fn find(&self, kind: &str, version: u32) -> Option<&Upcaster> {
        self.by_kind.get(kind)?.get(&version)
    }
}

fn failed(kind: &str, version: u32, source: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Corrupt, "the event cannot be brought to the next version of its kind")
        .with("kind", kind)
        .with("version", version)
        .with_source(source)
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}
