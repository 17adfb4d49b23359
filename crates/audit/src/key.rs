//! Log keys: Ed25519, named and numbered as in C2SP signed notes. Keys of witnesses, as in C2SP
//! `tlog-cosignature`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::signature;

const ED25519: u8 = 0x01;
const COSIGNATURE: u8 = 0x04;

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Names stand inside lines that spaces and plus signs divide.
    #[error("a key name must not be empty or contain white space or `+`")]
    Name,
    /// The text does not have the parts of a key.
    #[error("not a key of the form {0}")]
    Form(&'static str),
    /// The key is of another type than is needed: Ed25519 (1) for logs, cosignatures (4) for
    /// witnesses.
    #[error("the key has type {0}; a log's has 1, a witness's has 4")]
    Type(u8),
    /// The number in the text is not the number of the key.
    #[error("the key id does not belong to this name and key")]
    Id,
    /// The bytes are no Ed25519 public key, or one that makes signatures ambiguous.
    #[error("the bytes are no usable Ed25519 public key")]
    Point,
}

/// A name, a number and a key; `kind` says what its signatures are of.
#[derive(Clone, PartialEq, Eq)]
struct Named<const KIND: u8> {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl<const KIND: u8> Named<KIND> {
    fn new(name: &str, key: VerifyingKey) -> Result<Self, KeyError> {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
        {
            return Err(KeyError::Name);
        }
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        let hash = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', KIND])
            .chain_update(key.as_bytes())
            .finalize();
        let mut id = [0; 4];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Ok(Self { name: name.to_owned(), id, key })
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        const FORM: &str = "<name>+<id>+<base64 key>";
        let mut parts = text.trim_end().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form(FORM));
        };
        let bytes = STANDARD.decode(key).map_err(|_| KeyError::Form(FORM))?;
        let key = match bytes.split_first() {
            Some((&kind, key)) if kind == KIND => key,
            Some((&other, _)) => return Err(KeyError::Type(other)),
            None => return Err(KeyError::Form(FORM)),
        };
        let bytes = key.try_into().map_err(|_| KeyError::Form(FORM))?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::Point);
        }
        let public = Self::new(name, key)?;
        if public.id_hex() != id {
            return Err(KeyError::Id);
        }
        Ok(public)
    }

    fn id_hex(&self) -> String {
        hex::encode(self.id)
    }

    fn verify(&self, text: &[u8], bytes: &[u8; 64]) -> bool {
        signature::verify(&self.key, text, bytes)
    }
}

impl<const KIND: u8> fmt::Display for Named<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[KIND], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.id_hex(), STANDARD.encode(bytes))
    }
}

/// The public half of a log key. Text form: `<name>+<id, 8 hex>+<base64(0x01 ‖ key)>`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Named<ED25519>);

impl PublicKey {
    /// Reads the text form.
    ///
    /// # Errors
    /// When the text has another form, or its parts do not belong together.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Named::parse(text).map(Self)
    }

    /// The name; also the first line of this log's checkpoints.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.0.id
    }

    /// Checks a signature strictly: one message and key have one valid encoding, and keys of
    /// small order verify nothing.
    #[must_use]
    pub fn verify(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify(text, signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of a witness: somebody else, who signs checkpoints of logs that only ever grow. Text
/// form: `<name>+<id, 8 hex>+<base64(0x04 ‖ key)>`.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey(Named<COSIGNATURE>);

impl WitnessKey {
    /// Reads the text form.
    ///
    /// # Errors
    /// When the text has another form, or its parts do not belong together.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Named::parse(text).map(Self)
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x04 ‖ key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.0.id
    }

    /// Checks a cosignature, 8 bytes of time and 64 of signature, and returns the time.
    pub(crate) fn verify(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let (time, signature) = bytes.split_first_chunk::<8>()?;
        let (time, signature) = (u64::from_be_bytes(*time), signature.try_into().ok()?);
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        self.0.verify(message.as_bytes(), signature).then_some(time)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Signs checkpoints. Implement it to keep the private key elsewhere than in this process.
pub trait Signer: Send + Sync {
    /// The key that verifies the signatures.
    fn public(&self) -> &PublicKey;

    /// Signs the text of a note.
    ///
    /// # Errors
    /// When the key cannot be used now. Nothing is recorded without a signature.
    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError>;

    /// Who signs beside this one: the new key, while a log changes keys.
    fn also(&self) -> Option<&dyn Signer> {
        None
    }
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log key cannot sign: {0}")]
pub struct SignError(pub String);

/// A log key held in memory, zeroised when dropped and never printed.
///
/// Text form: `PRIVATE+KEY+<name>+<id, 8 hex>+<base64(0x01 ‖ seed)>`, as other signed-note
/// tools write it.
pub struct LogKey {
    key: SigningKey,
    public: PublicKey,
}

impl LogKey {
    /// Derives the key from 32 secret random bytes.
    ///
    /// # Errors
    /// When the name cannot stand in a note.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        let public = PublicKey(Named::new(name, key.verifying_key())?);
        Ok(Self { key, public })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When the text has another form, or its parts do not belong together. The error never
    /// quotes the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        const FORM: &str = "PRIVATE+KEY+<name>+<id>+<base64 seed>";
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Form(FORM))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form(FORM));
        };
        let bytes = Zeroizing::new(STANDARD.decode(seed).map_err(|_| KeyError::Form(FORM))?);
        let seed = match bytes.split_first() {
            Some((&ED25519, seed)) => seed,
            Some((&other, _)) => return Err(KeyError::Type(other)),
            None => return Err(KeyError::Form(FORM)),
        };
        let seed = Zeroizing::new(seed.try_into().map_err(|_| KeyError::Form(FORM))?);
        let key = Self::from_seed(name, &seed)?;
        if key.public.0.id_hex() != id {
            return Err(KeyError::Id);
        }
        Ok(key)
    }

    /// Writes the text form, for a file that only its owner can read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([ED25519; 33]);
        bytes.iter_mut().skip(1).zip(self.key.as_bytes()).for_each(|(to, from)| *to = *from);
        let seed = Zeroizing::new(STANDARD.encode(bytes.as_ref()));
        Zeroizing::new(format!(
            "PRIVATE+KEY+{}+{}+{}\n",
            self.public.0.name,
            self.public.0.id_hex(),
            seed.as_str()
        ))
    }
}

impl Signer for LogKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(self.key.sign(text).to_bytes())
    }
}

/// Two keys of one log, while the older hands over to the newer: checkpoints carry both
/// signatures, the older first.
#[derive(Debug)]
pub struct Handover {
    /// The key that readers have pinned.
    pub old: LogKey,
    /// The key that follows. Its name is the same: the log's.
    pub new: LogKey,
}

impl Signer for Handover {
    fn public(&self) -> &PublicKey {
        self.old.public()
    }

    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError> {
        self.old.sign(text)
    }

    fn also(&self) -> Option<&dyn Signer> {
        Some(&self.new)
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.public)
    }
}
