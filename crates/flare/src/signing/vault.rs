use std::fmt;
use std::str::FromStr;

use evenkeel_core::{Error, ErrorKind, Result};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{decode_base64, encode_base64, random};

/// What a sealed text begins with; the number is that of this way of sealing.
const SEALED: &str = "enc1:";

/// Encrypts secrets before they are stored, where it has a key.
///
/// A sealed text is `enc1:<key id>:<base64>`: ChaCha20-Poly1305 over a random nonce of 12 bytes, with
/// the owner's id as associated data, so that one owner's secret cannot be passed off as another's.
///
/// # Behavior
/// - Without keys, texts are stored as they are.
/// - The first key seals; all of them open. To rotate, put the new key in front,
///   [seal what is stored again](crate::Flare::reseal), and take the old key away.
/// - A text that is not sealed opens as itself, so that a key can be added later.
#[derive(Debug, Default)]
pub struct Vault {
    keys: Vec<VaultKey>,
}

/// A named key of 32 bytes, written as `<id>:<base64>`. `Debug` shows its id only.
pub struct VaultKey {
    id: String,
    bytes: [u8; 32],
    key: LessSafeKey,
}

impl Vault {
    /// A vault whose first key seals. Without keys it stores texts as they are.
    ///
    /// # Errors
    /// `Config` where two keys have the same id.
    pub fn new(keys: impl IntoIterator<Item = VaultKey>) -> Result<Self> {
        let mut vault = Self::default();
        for key in keys {
            if vault.key(&key.id).is_some() {
                return Err(Error::new(ErrorKind::Config, "two keys have the same id").with("key", key.id));
            }
            vault.keys.push(key);
        }
        Ok(vault)
    }

    /// What to store for `text`, which belongs to `owner`.
    ///
    /// # Errors
    /// `InvalidInput` where the text looks like a sealed one already, so that it could not be
    /// told from one.
    pub fn seal(&self, text: &str, owner: &str) -> Result<String> {
        if text.starts_with(SEALED) {
            return Err(
                Error::new(ErrorKind::InvalidInput, "the text is sealed already").with("owner", owner)
            );
        }
        let Some(VaultKey { id, key, .. }) = self.keys.first() else { return Ok(text.to_owned()) };
        let nonce = random::<NONCE_LEN>();
        let mut sealed = text.as_bytes().to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut sealed)
            .expect("a text is far shorter than the 256 GiB that can be sealed");
        Ok(format!("{SEALED}{id}:{}", encode_base64(&[&nonce, sealed.as_slice()].concat())))
    }

    /// The text that was stored for `owner`.
    ///
    /// # Errors
    /// - `Config` naming the key that is not in this vault.
    /// - `Corrupt` where the key is, but did not seal this for this owner.
    pub fn open(&self, stored: &str, owner: &str) -> Result<String> {
        let Some(sealed) = stored.strip_prefix(SEALED) else { return Ok(stored.to_owned()) };
        let corrupt =
            || Error::new(ErrorKind::Corrupt, "a sealed text cannot be opened").with("owner", owner);
        let (id, encoded) = sealed.split_once(':').ok_or_else(corrupt)?;
        let VaultKey { key, .. } = self.key(id).ok_or_else(|| {
            Error::new(ErrorKind::Config, "the key of a sealed text is missing")
                .with("key", id)
                .with("owner", owner)
        })?;
        let bytes = decode_base64(encoded).ok_or_else(corrupt)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(corrupt)?;
        let mut text = sealed.to_vec();
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(owner), &mut text)
            .map_err(|_| corrupt())?
            .len();
        text.truncate(length);
        String::from_utf8(text).map_err(|_| corrupt())
    }

    /// Whether sealing the stored text again would change nothing of how it is protected.
    #[must_use]
    pub fn is_current(&self, stored: &str) -> bool {
        let sealed_by = stored.strip_prefix(SEALED).and_then(|sealed| sealed.split(':').next());
        sealed_by == self.keys.first().map(|key| key.id.as_str())
    }

    /// What to store instead of the text that was stored for `owner`: sealed by the first key, or as it
    /// is where the vault has none.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn reseal(&self, stored: &str, owner: &str) -> Result<String> {
        if self.is_current(stored) {
            Ok(stored.to_owned())
        } else {
            self.seal(&self.open(stored, owner)?, owner)
        }
    }

    fn key(&self, id: &str) -> Option<&VaultKey> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl VaultKey {
    /// A new key of random bytes. The id is 1 to 32 letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// `Config` where the id is something else.
    pub fn generate(id: &str) -> Result<Self> {
        check_id(id)?;
        Ok(Self::new(id, random()))
    }

    fn new(id: &str, bytes: [u8; 32]) -> Self {
        let key =
            UnboundKey::new(&CHACHA20_POLY1305, &bytes).expect("ChaCha20-Poly1305 has keys of 32 bytes");
        Self { id: id.to_owned(), bytes, key: LessSafeKey::new(key) }
    }
}

impl FromStr for VaultKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let config = |message| Error::new(ErrorKind::Config, message);
        let (id, encoded) =
            text.split_once(':').ok_or_else(|| config("a key is an id, a colon, and 32 bytes in base64"))?;
        check_id(id)?;
        match decode_base64(encoded).map(<[u8; 32]>::try_from) {
            Some(Ok(bytes)) => Ok(Self::new(id, bytes)),
            _ => Err(config("a key is 32 bytes in base64").with("key", id)),
        }
    }
}

impl fmt::Display for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, encode_base64(&self.bytes))
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultKey({})", self.id)
    }
}

/// The error does not repeat what is no id: it may be a key that was put in the wrong place.
fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=32).contains(&id.len()) && id.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Config, "a key's id is 1 to 32 letters, digits, - and _"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn key(id: &str) -> VaultKey {
        VaultKey::generate(id).unwrap()
    }

    fn again(key: &VaultKey) -> VaultKey {
        key.to_string().parse().unwrap()
    }

    #[test]
    fn a_sealed_text_opens_for_its_owner() {
        let vault = Vault::new([key("k1")]).unwrap();
        for text in [TEXT, "", "häß"] {
            let sealed = vault.seal(text, "sub-1").unwrap();
            assert!(
                sealed.starts_with("enc1:k1:") && (text.is_empty() || !sealed.contains(text)),
                "{sealed}"
            );
            assert_eq!(vault.open(&sealed, "sub-1").unwrap(), text);
        }
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        let vault = Vault::new([key("k1")]).unwrap();
        assert_ne!(vault.seal(TEXT, "sub-1").unwrap(), vault.seal(TEXT, "sub-1").unwrap());
    }

    #[test]
    fn a_sealed_text_does_not_open_for_another_owner() {
        let vault = Vault::new([key("k1")]).unwrap();
        let sealed = vault.seal(TEXT, "sub-1").unwrap();
        let error = vault.open(&sealed, "sub-2").unwrap_err();
        assert_eq!(error.to_string(), "corrupt: a sealed text cannot be opened (owner: sub-2)");
    }

    #[test]
    fn a_sealed_text_that_was_changed_does_not_open() {
        let vault = Vault::new([key("k1")]).unwrap();
        let sealed = vault.seal(TEXT, "sub-1").unwrap();
        let mut bytes = decode_base64(&sealed["enc1:k1:".len()..]).unwrap();
        for at in [0, NONCE_LEN, bytes.len() - 1] {
            bytes[at] ^= 1;
            let changed = format!("enc1:k1:{}", encode_base64(&bytes));
            assert_eq!(vault.open(&changed, "sub-1").unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            bytes[at] ^= 1;
        }
        for broken in ["enc1:", "enc1:k1", "enc1:k1:", "enc1:k1:%", "enc1:k1:AAAA"] {
            assert_eq!(vault.open(broken, "sub-1").unwrap_err().kind(), ErrorKind::Corrupt, "{broken}");
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, new) = (key("k1"), key("k2"));
        let before = Vault::new([again(&old)]).unwrap();
        let sealed = before.seal(TEXT, "sub-1").unwrap();
        assert!(before.is_current(&sealed));

        let during = Vault::new([again(&new), old]).unwrap();
        assert_eq!(during.open(&sealed, "sub-1").unwrap(), TEXT);
        assert!(!during.is_current(&sealed));
        let sealed = during.seal(TEXT, "sub-1").unwrap();
        assert!(sealed.starts_with("enc1:k2:") && during.is_current(&sealed));

        let after = Vault::new([new]).unwrap();
        assert_eq!(after.open(&sealed, "sub-1").unwrap(), TEXT);
    }

    #[test]
    fn what_is_sealed_again_is_current_and_the_same() {
        let old = key("k1");
        let sealed = Vault::new([again(&old)]).unwrap().seal(TEXT, "sub-1").unwrap();
        for (vault, stored) in [
            (Vault::new([key("k2"), again(&old)]).unwrap(), sealed.as_str()),
            (Vault::new([key("k2")]).unwrap(), TEXT),
        ] {
            let resealed = vault.reseal(stored, "sub-1").unwrap();
            assert!(vault.is_current(&resealed));
            assert_eq!(vault.open(&resealed, "sub-1").unwrap(), TEXT);
            assert_eq!(vault.reseal(&resealed, "sub-1").unwrap(), resealed, "a second time changes nothing");
        }
        let lost = Vault::new([key("k2")]).unwrap().reseal(&sealed, "sub-1").unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Config);
    }

    #[test]
    fn a_key_that_is_missing_is_named() {
        let sealed = Vault::new([key("k1")]).unwrap().seal(TEXT, "sub-1").unwrap();
        for vault in [Vault::default(), Vault::new([key("k2")]).unwrap()] {
            let error = vault.open(&sealed, "sub-1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().ends_with("(key: k1, owner: sub-1)"), "{error}");
        }
    }

    #[test]
    fn without_keys_texts_are_stored_as_they_are() {
        let vault = Vault::default();
        assert_eq!(vault.seal(TEXT, "sub-1").unwrap(), TEXT);
        assert_eq!(vault.open(TEXT, "sub-1").unwrap(), TEXT);
        assert!(vault.is_current(TEXT));
    }

    #[test]
    fn a_text_from_before_there_was_a_key_opens_as_itself() {
        let vault = Vault::new([key("k1")]).unwrap();
        assert_eq!(vault.open(TEXT, "sub-1").unwrap(), TEXT);
        assert!(!vault.is_current(TEXT));
    }

    #[test]
    fn nothing_is_sealed_twice() {
        for vault in [Vault::default(), Vault::new([key("k1")]).unwrap()] {
            let error = vault.seal("enc1:k1:AAAA", "sub-1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn keys_of_the_same_id_are_refused() {
        let error = Vault::new([key("k1"), key("k1")]).unwrap_err();
        assert_eq!(error.message(), "two keys have the same id");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        let bytes = encode_base64(&[7; 32]);
        for text in [
            "",
            &bytes,
            "k1:",
            "k1:AAAA",
            "k1:%",
            &format!(":{bytes}"),
            &format!("{bytes}:k1"),
            &format!("a b:{bytes}"),
            &format!("{}:{bytes}", "k".repeat(33)),
        ] {
            let error = text.parse::<VaultKey>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(!error.to_string().contains(&bytes), "{error}");
        }
        assert_eq!(format!("{:?}", key("k1")), "VaultKey(k1)");
    }
}
