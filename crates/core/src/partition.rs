use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, ErrorKind, Result};

/// A separate set of partitions in the same store: a tenant, or a clean store for one test.
///
/// 1 to 64 bytes of ASCII letters, digits, `-`, `_` and `.`. The default is `default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The longest namespace, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Reads a namespace.
    ///
    /// # Errors
    /// `InvalidInput` where the name is empty, too long, or has another character.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(allowed) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a namespace is 1 to 64 letters, digits, '-', '_' or '.'",
            )
            .with("namespace", format_args!("{name:?}")));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unit of consistency: a commit is atomic within one partition.
///
/// Obtained from [`StoreExt::partition_of`](crate::StoreExt::partition_of) or
/// [`StoreExt::partitions`](crate::StoreExt::partitions), displayed as `namespace/index`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    namespace: Namespace,
    index: u32,
}

impl Partition {
    /// The partition `index` of `namespace`.
    #[must_use]
    pub const fn new(namespace: Namespace, index: u32) -> Self {
        Self { namespace, index }
    }

    /// The namespace it belongs to.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its number, from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.index)
    }
}

/// The index that `name` maps to among `partitions`: XXH3-64 (seed 0) of its bytes, modulo the count.
///
/// Stored data depends on it, so it never changes between releases.
///
/// # Panics
/// Where `partitions` is 0; a store has at least one.
#[must_use]
pub fn partition_index(name: &str, partitions: u32) -> u32 {
    let index = xxh3_64(name.as_bytes()) % u64::from(partitions);
    u32::try_from(index).expect("a remainder of a u32 fits a u32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_hash_never_changes() {
        // Computed by another implementation of XXH3-64. Changing a line here orphans every record
        // that a user has stored.
        for (name, of_4, of_16, of_1000) in [
            ("", 2, 2, 138),
            ("a", 3, 15, 719),
            ("order-17", 2, 14, 198),
            ("order-18", 2, 2, 714),
            ("tenant/äöü/☃", 0, 0, 728),
            ("0123456789012345678901234567890123456789012345678901234567890123456789", 0, 12, 404),
        ] {
            let found = [4, 16, 1000].map(|n| partition_index(name, n));
            assert_eq!(found, [of_4, of_16, of_1000], "{name:?}");
            assert_eq!(partition_index(name, 1), 0);
        }
    }

    #[test]
    fn a_namespace_outside_its_alphabet_is_refused() {
        for bad in ["", "a b", "a/b", "ä", "nul\0", &"x".repeat(65)] {
            assert_eq!(Namespace::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(Namespace::new("tenant-7_b.c").unwrap().as_str(), "tenant-7_b.c");
    }
}
