use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// What a request asks for, condensed: the same key with another fingerprint is a mismatch.
///
/// ```
/// # use evenkeel_idempotency::Fingerprint;
/// let one = Fingerprint::builder().part("POST").part("/charges").part("{}").finish();
/// let other = Fingerprint::builder().part("POST/").part("charges").part("{}").finish();
/// assert_ne!(one, other);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a single part.
    #[must_use]
    pub fn of(part: impl AsRef<[u8]>) -> Self {
        Self::builder().part(part).finish()
    }

    /// SHA-256 over parts, each preceded by its length, so that no text can move from one part to
    /// the next unnoticed.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder { hash: Sha256::new() }
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Default for Fingerprint {
    /// That of a request with nothing in it.
    fn default() -> Self {
        Self::builder().finish()
    }
}

/// 43 characters of URL-safe base64.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 43];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).expect("32 bytes take 43 characters");
        f.write_str(std::str::from_utf8(&text[..written]).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(de::Error::custom)?;
        let digest = bytes.try_into().map_err(|_| de::Error::custom("a fingerprint has 32 bytes"))?;
        Ok(Self(digest))
    }
}

/// Collects the parts of a [`Fingerprint`].
#[derive(Clone, Debug)]
#[must_use = "the parts come to nothing until they are finished"]
pub struct FingerprintBuilder {
    hash: Sha256,
}

impl FingerprintBuilder {
    /// Adds a part.
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        let length = u64::try_from(part.len()).expect("a usize fits a u64");
        self.hash.update(length.to_le_bytes());
        self.hash.update(part);
        self
    }

    /// The fingerprint of all parts, in their order.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed_by_their_length() {
        let parts = |parts: &[&str]| {
            parts.iter().fold(Fingerprint::builder(), |builder, part| builder.part(part)).finish()
        };
        let all =
            [parts(&["ab", "c"]), parts(&["a", "bc"]), parts(&["abc"]), parts(&["abc", ""]), parts(&[])];
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn the_stored_form_never_changes() {
        // SHA-256 of the length 5 in eight little-endian bytes and "hello", by another program.
        let fingerprint = Fingerprint::of("hello");
        let json = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(json, "\"_nRVA3UP2_Pm72dtFthe4NY2JsWUIi9-mRkIvf_vesk\"");
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), fingerprint);
    }

    #[test]
    fn a_malformed_fingerprint_is_refused() {
        for bad in ["\"\"", "\"AAAA\"", "\"not base64!\"", "7"] {
            assert!(serde_json::from_str::<Fingerprint>(bad).is_err(), "{bad}");
        }
    }
}
