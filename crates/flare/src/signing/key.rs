use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use evenkeel_core::{Error, ErrorKind, Result};
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::{PUBLIC_PREFIX, SYMMETRIC_PREFIX, decode_base64, encode_base64};

/// Checks signatures. Cheap to clone.
///
/// Written as the `whsec_` secret itself (the prefix may be missing), or as `whpk_` and the 32 bytes
/// of an ed25519 public key in base64.
///
/// [`Display`](fmt::Display) writes it out; `Debug` does so with a public key only.
#[derive(Clone)]
pub struct VerifyingKey(Kind);

#[derive(Clone)]
enum Kind {
    Symmetric(Symmetric),
    Public([u8; 32]),
}

impl VerifyingKey {
    pub(super) fn symmetric(secret: Symmetric) -> Self {
        Self(Kind::Symmetric(secret))
    }

    pub(super) fn public(bytes: &[u8]) -> Self {
        Self(Kind::Public(bytes.try_into().expect("an ed25519 public key is 32 bytes")))
    }

    /// The version of the signatures that it can check.
    pub(super) fn version(&self) -> &'static str {
        match self.0 {
            Kind::Symmetric(_) => "v1",
            Kind::Public(_) => "v1a",
        }
    }

    /// Whether `signature` is this key's for `message`, in constant time.
    pub(super) fn matches(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Symmetric(secret) => hmac::verify(&secret.key, message, signature).is_ok(),
            Kind::Public(bytes) => UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature).is_ok(),
        }
    }
}

impl FromStr for VerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(encoded) = text.strip_prefix(PUBLIC_PREFIX) else {
            return Symmetric::parse(text).map(Self::symmetric);
        };
        match decode_base64(encoded).map(<[u8; 32]>::try_from) {
            Some(Ok(bytes)) => Ok(Self(Kind::Public(bytes))),
            _ => {
                Err(Error::new(ErrorKind::InvalidInput, "a public key is 32 bytes in base64")
                    .with("key", text))
            }
        }
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Symmetric(secret) => secret.fmt(f),
            Kind::Public(bytes) => write!(f, "{PUBLIC_PREFIX}{}", encode_base64(bytes)),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Symmetric(_) => f.write_str("VerifyingKey(symmetric)"),
            Kind::Public(_) => write!(f, "VerifyingKey({self})"),
        }
    }
}

/// A secret that signs and verifies alike.
#[derive(Clone)]
pub(super) struct Symmetric {
    /// Ready for use: the secret's half of the hashing is done once.
    pub(super) key: hmac::Key,
    text: Arc<str>,
}

impl Symmetric {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(invalid("a symmetric secret is 24 to 64 bytes").with("bytes", bytes.len()));
        }
        let text = format!("{SYMMETRIC_PREFIX}{}", encode_base64(bytes)).into();
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), text })
    }

    /// With or without its prefix. The text is not part of the error.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let encoded = text.strip_prefix(SYMMETRIC_PREFIX).unwrap_or(text);
        Self::new(&decode_base64(encoded).ok_or_else(|| invalid("a symmetric secret is base64"))?)
    }
}

impl fmt::Display for Symmetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with("prefix", SYMMETRIC_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    #[test]
    fn a_key_is_read_back_as_it_was_written() {
        for text in [PUBLIC, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"] {
            assert_eq!(text.parse::<VerifyingKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["whpk_", "whpk_AAAA", "whpk_%", "whsk_AAAA", "whsec_AAAA"] {
            assert_eq!(text.parse::<VerifyingKey>().unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn debug_output_tells_public_keys_only() {
        let shown = |text: &str| format!("{:?}", text.parse::<VerifyingKey>().unwrap());
        assert_eq!(shown(PUBLIC), format!("VerifyingKey({PUBLIC})"));
        assert_eq!(shown("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), "VerifyingKey(symmetric)");
    }
}
