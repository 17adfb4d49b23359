//! Checkpoints: the signed statement "my log has this many records and this root".
//!
//! The text is a C2SP `tlog-checkpoint`, a signed note:
//!
//! ```text
//! <origin>
//! <size, decimal>
//! <base64 root>
//!
//! — <key name> <base64(key id ‖ signature)>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{PublicKey, SignError, Signer};
use crate::tree::Hash;

/// A checkpoint whose signature has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Records covered.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
}

/// Why a text is no checkpoint that a key vouches for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text is no signed note, or its lines are no checkpoint.
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
    /// The checkpoint is of another log.
    #[error("the checkpoint's origin is `{found}`, the key is of `{expected}`")]
    Origin {
        /// The key's name.
        expected: String,
        /// The first line.
        found: String,
    },
    /// No signature line carries the key's name and id.
    #[error("the checkpoint has no signature by `{0}`")]
    Unsigned(String),
    /// The key's signature does not fit the text.
    #[error("the signature by `{0}` does not verify")]
    Signature(String),
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Writes and signs a checkpoint of the signer's log.
    ///
    /// # Errors
    /// When the signer cannot sign.
    pub fn sign(size: u64, root: Hash, signer: &dyn Signer) -> Result<String, SignError> {
        let key = signer.public();
        let mut note = Self { origin: key.name().to_owned(), size, root }.text();
        let signature = signer.sign(note.as_bytes())?;
        let mut line = [0u8; 68];
        let bytes = key.id().into_iter().chain(signature);
        line.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        note.push_str("\n\u{2014} ");
        note.push_str(key.name());
        note.push(' ');
        note.push_str(&STANDARD.encode(line));
        note.push('\n');
        Ok(note)
    }

    /// Reads a checkpoint and checks the key's signature. Signatures by others are allowed
    /// beside it and not looked at.
    ///
    /// # Errors
    /// When the note is malformed, of another log, or not signed by this key.
    pub fn open(note: &str, key: &PublicKey) -> Result<Self, CheckpointError> {
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or(CheckpointError::Form("no blank line"))?;
        let signed = note.get(..text.len() + 1).ok_or(CheckpointError::Form("no blank line"))?;
        let checkpoint = Self::parse(text)?;
        if checkpoint.text() != signed {
            return Err(CheckpointError::Form("not the one way to write these values"));
        }
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin {
                expected: key.name().to_owned(),
                found: checkpoint.origin,
            });
        }
        let Some(signatures) = signatures.strip_suffix('\n') else {
            return Err(CheckpointError::Form("no newline at the end"));
        };
        let mut seen = false;
        for line in signatures.split('\n') {
            let (name, bytes) = line
                .strip_prefix("\u{2014} ")
                .and_then(|line| line.split_once(' '))
                .ok_or(CheckpointError::Form("a line below the blank one is no signature"))?;
            let bytes = STANDARD
                .decode(bytes)
                .map_err(|_| CheckpointError::Form("a signature is not base64"))?;
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
                return Err(CheckpointError::Form("a signature is too short"));
            };
            if name != key.name() || *id != key.id() {
                continue;
            }
            let signature: &[u8; 64] = signature
                .try_into()
                .map_err(|_| CheckpointError::Signature(key.name().to_owned()))?;
            if seen || !key.verify(signed.as_bytes(), signature) {
                return Err(CheckpointError::Signature(key.name().to_owned()));
            }
            seen = true;
        }
        if seen { Ok(checkpoint) } else { Err(CheckpointError::Unsigned(key.name().to_owned())) }
    }

    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Form("not three lines"));
        };
        let size = size.parse().map_err(|_| CheckpointError::Form("the size is no number"))?;
        let root = STANDARD
            .decode(root)
            .ok()
            .and_then(|root| root.try_into().ok())
            .ok_or(CheckpointError::Form("the root is not 32 bytes of base64"))?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}
