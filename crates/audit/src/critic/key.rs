//! The keys of critic chains: plain Ed25519, in hexadecimal.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::signature::verify;

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriticKeyError {
    /// The text is not 64 hex digits.
    #[error("a critic's public key is 64 hexadecimal digits, this has {0} characters")]
    Form(usize),
    /// The bytes are no Ed25519 public key, or one under which signatures prove nothing.
    #[error("these digits are no usable Ed25519 public key")]
    Point,
}

/// A key that entries are held against.
#[derive(Clone, PartialEq, Eq)]
pub struct CriticKey(VerifyingKey);

impl CriticKey {
    /// Reads 64 hex digits of either case; white space around them is no part of the key.
    ///
    /// # Errors
    /// When the text has another form, or the key is of small order or not in the one encoding
    /// its point has.
    pub fn parse(text: &str) -> Result<Self, CriticKeyError> {
        let text = text.trim();
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| CriticKeyError::Form(text.chars().count()))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| CriticKeyError::Point)?;
        if key.is_weak() || key.to_edwards().compress().as_bytes() != &bytes {
            return Err(CriticKeyError::Point);
        }
        Ok(Self(key))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks a signature in its one form, 128 lower-case hex digits, strictly.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &str) -> bool {
        let mut bytes = [0; 64];
        !signature.bytes().any(|byte| byte.is_ascii_uppercase())
            && hex::decode_to_slice(signature, &mut bytes).is_ok()
            && verify(&self.0, message, &bytes)
    }
}

impl fmt::Display for CriticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for CriticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key that signs entries: zeroised when dropped, and never printed.
pub struct CriticSigner(SigningKey);

impl CriticSigner {
    /// Derives the key from 32 secret random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key that verifies the signatures.
    #[must_use]
    pub fn public(&self) -> CriticKey {
        CriticKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> String {
        hex::encode(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for CriticSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CriticSigner({})", self.public())
    }
}
