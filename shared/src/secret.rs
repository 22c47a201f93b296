//! Secrets: a type that does not print itself, signing secrets, and sealing.
//!
//! Sealed bytes are `[format 1][key id, 4 bytes][nonce, 24 bytes][XChaCha20-Poly1305 ciphertext]`.
//! The context (what the secret is, and whose) is authenticated but not stored, so that sealed
//! bytes copied to another project or field do not open. Keys and nonces are passed in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// 24 random bytes, used once.
pub type Nonce = [u8; 24];

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + 24;

/// A text that is never printed: not by `Debug`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Every call is a place to review.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares in constant time for texts of equal length.
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// `whsec_` and base64 of 32 random bytes.
pub fn new_signing_secret(random: &[u8; 32]) -> Secret {
    Secret::new(format!("whsec_{}", STANDARD.encode(random)))
}

/// SHA-256 of a key that is itself random: a slow hash would add nothing but cost.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// SHA-256 over length-prefixed parts.
pub fn hash_bytes(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The key was not 32 bytes of base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a master key must be the base64 of 32 bytes")]
pub struct InvalidMasterKey;

/// Sealed bytes could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error("sealed with key {0}, which is not configured")]
    UnknownKey(String),
    #[error("sealed bytes are damaged or belong elsewhere")]
    Damaged,
}

/// The keys that seal the projects' data keys, and nothing else: so a rotation has one small thing
/// to seal anew per project. The current one seals; the others still open what it did not seal.
#[derive(Clone)]
pub struct MasterKeys {
    current: MasterKey,
    previous: Vec<MasterKey>,
}

#[derive(Clone)]
struct MasterKey {
    id: [u8; 4],
    cipher: XChaCha20Poly1305,
}

impl MasterKeys {
    /// Both texts are base64 of 32 bytes.
    pub fn new(current: &str, previous: &[&str]) -> Result<Self, InvalidMasterKey> {
        Ok(Self {
            current: MasterKey::parse(current)?,
            previous: previous
                .iter()
                .map(|text| MasterKey::parse(text))
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn seal(&self, plaintext: &[u8], context: &[u8], nonce: &Nonce) -> Vec<u8> {
        self.current.seal(plaintext, context, nonce)
    }

    /// Whether these bytes were sealed with the current key, not with a former one.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.get(1..5) == Some(&self.current.id)
    }

    pub fn unseal(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let (Some(&FORMAT), Some(id)) = (sealed.first(), sealed.get(1..5)) else {
            return Err(UnsealError::Damaged);
        };
        std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|key| key.id == id)
            .ok_or_else(|| UnsealError::UnknownKey(hex::encode(id)))?
            .unseal(sealed, context)
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({}, …)", hex::encode(self.current.id))
    }
}

impl MasterKey {
    fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey)?);
        let bytes = <&[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| InvalidMasterKey)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: &[u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"carillon master key id\0")
            .chain_update(bytes)
            .finalize();
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
        Self {
            id: [a, b, c, d],
            cipher: XChaCha20Poly1305::new(bytes.into()),
        }
    }

    fn seal(&self, plaintext: &[u8], context: &[u8], nonce: &Nonce) -> Vec<u8> {
        let payload = Payload {
            msg: plaintext,
            aad: context,
        };
        #[expect(clippy::expect_used, reason = "fails only above 256 GiB of plaintext")]
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(*nonce), payload)
            .expect("the plaintext is far below the cipher's limit");
        let mut sealed = Vec::with_capacity(HEADER_BYTES + ciphertext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    fn unseal(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let nonce: &Nonce = sealed
            .get(5..HEADER_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(UnsealError::Damaged)?;
        let payload = Payload {
            msg: sealed.get(HEADER_BYTES..).ok_or(UnsealError::Damaged)?,
            aad: context,
        };
        self.cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| UnsealError::Damaged)
    }
}

/// A project's own key: it seals the project's secrets and credentials in REGISTRY, and free text
/// in JOURNAL (`protocol.md`, rule 28). Destroying its one sealed copy in REGISTRY makes all of
/// them unreadable, in every copy of the other logs too; a copy of REGISTRY from before opens them.
#[derive(Clone)]
pub struct DataKey(MasterKey);

impl DataKey {
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(MasterKey::of(bytes))
    }

    pub fn seal(&self, plaintext: &[u8], context: &[u8], nonce: &Nonce) -> Vec<u8> {
        self.0.seal(plaintext, context, nonce)
    }

    pub fn unseal(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        self.0.unseal(sealed, context)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(current: u8, previous: &[u8]) -> MasterKeys {
        let text = |byte: u8| STANDARD.encode([byte; 32]);
        let previous: Vec<_> = previous.iter().map(|&byte| text(byte)).collect();
        let previous: Vec<_> = previous.iter().map(String::as_str).collect();
        MasterKeys::new(&text(current), &previous).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_and_context_only() {
        let sealed = keys(1, &[]).seal(b"secret", b"prj/credentials", &[5; 24]);
        let open = |keys: MasterKeys, context: &[u8]| {
            keys.unseal(&sealed, context).map(|plain| plain.to_vec())
        };
        assert_eq!(
            open(keys(1, &[]), b"prj/credentials"),
            Ok(b"secret".to_vec())
        );
        assert_eq!(
            open(keys(2, &[1]), b"prj/credentials"),
            Ok(b"secret".to_vec())
        );
        assert_eq!(open(keys(1, &[]), b"other"), Err(UnsealError::Damaged));
        assert!(keys(1, &[2]).is_current(&sealed));
        assert!(!keys(2, &[1]).is_current(&sealed));
        assert!(matches!(
            open(keys(2, &[]), b"prj/credentials"),
            Err(UnsealError::UnknownKey(_))
        ));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let keys = keys(1, &[]);
        let sealed = keys.seal(b"secret", b"", &[5; 24]);
        for end in 0..sealed.len() {
            assert!(keys.unseal(&sealed[..end], b"").is_err());
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(keys.unseal(&flipped, b"").is_err());
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(…)");
        assert!(
            new_signing_secret(&[0; 32])
                .reveal()
                .starts_with("whsec_AAAA")
        );
        assert!(MasterKeys::new("short", &[]).is_err());
    }
}
