//! Who sent it: signatures after [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! A message is signed with its id, the time of the attempt and its body, by HMAC-SHA256 (`v1`,
//! both sides hold the secret) or ed25519 (`v1a`, only the sender does).
//!
//! # Guarantees
//! - [`verify`] accepts a message only where a key that was given signed exactly its id, timestamp
//!   and body, and its timestamp is within the tolerance; how long it takes does not tell how much
//!   of a signature was right.
//! - While a secret is rotated, messages carry one signature for each, and any of them suffices.
//! - Secrets do not appear in `Debug` output, and a [`Vault`] with a key keeps them out of the store.
//!
//! # Example
//! A consumer, at the other end:
//! ```
//! use bytes::Bytes;
//! use evenkeel_core::{Clock, SystemClock};
//! use evenkeel_flare::signing::{VerifyError, VerifyingKey, verify};
//!
//! fn receive(request: &http::Request<Bytes>, keys: &[VerifyingKey]) -> Result<(), VerifyError> {
//!     let message = verify(request.headers(), request.body(), keys, SystemClock.now())?;
//!     println!("{} is genuine; a second one with this id is the same", message.id);
//!     Ok(())
//! }
//! # let keys = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".parse().unwrap()];
//! # assert_eq!(receive(&http::Request::default(), &keys), Err(VerifyError::Missing("webhook-id")));
//! ```

mod key; // what signatures are checked with
mod secret; // what is signed with
mod vault; // secrets at rest
mod verify; // whether a message is genuine

use std::fmt::Write;

use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use ring::rand::{SecureRandom, SystemRandom};

pub use key::VerifyingKey;
pub use secret::Secret;
pub use vault::{Vault, VaultKey};
pub use verify::{Verified, Verifier, VerifyError, verify};

/// The header with a message's id, the same at every attempt.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// The header with the time of the attempt, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// The header with one or more signatures.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The value of `webhook-signature`: the signature of each secret, the current one first.
#[must_use]
pub fn signature_header(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut header = String::new();
    for secret in secrets {
        let space = if header.is_empty() { "" } else { " " };
        write!(header, "{space}{}", secret.sign(id, timestamp, body)).expect("a string takes any text");
    }
    header
}

const SYMMETRIC_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// What precedes the body in what is signed.
fn preamble(id: &str, timestamp: i64) -> String {
    format!("{id}.{timestamp}.")
}

/// Standard base64, with padding.
fn encode_base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&STANDARD, bytes)
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    base64::Engine::decode(&STANDARD, text).ok()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
