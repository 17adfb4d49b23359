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
//!
//! While one key hands over to the next, both sign. Witnesses sign beside them, in the form of
//! C2SP `tlog-cosignature`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::key::{PublicKey, SignError, Signer, WitnessKey};
use crate::tree::Hash;

/// Most bytes of a note. A checkpoint with its signatures is far below.
const MAX_NOTE: usize = 64 * 1024;

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

/// A note taken apart: the checkpoint, and signatures that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is signed.
    pub checkpoint: Checkpoint,
    text: String,
    signatures: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
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
        let origin = signer.public().name().to_owned();
        let text = Self { origin, size, root }.text();
        let mut note = format!("{text}\n");
        let mut next = Some(signer);
        while let Some(signer) = next {
            let key = signer.public();
            let bytes = [key.id().as_slice(), &signer.sign(text.as_bytes())?].concat();
            note.push_str(&format!("\u{2014} {} {}\n", key.name(), STANDARD.encode(bytes)));
            next = signer.also();
        }
        Ok(note)
    }

    /// Reads a checkpoint and checks the key's signature. Signatures by others are allowed
    /// beside it and not looked at.
    ///
    /// # Errors
    /// When the note is malformed, of another log, or not signed by this key.
    pub fn open(note: &str, key: &PublicKey) -> Result<Self, CheckpointError> {
        let signed = Signed::parse(note)?;
        signed.verify(key)?;
        Ok(signed.checkpoint)
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

impl Signed {
    /// Takes a note apart. Nothing in it may be believed before a key has been asked.
    ///
    /// # Errors
    /// When the text is no checkpoint, or not in the one way to write it.
    pub fn parse(note: &str) -> Result<Self, CheckpointError> {
        if note.len() > MAX_NOTE {
            return Err(CheckpointError::Form("longer than any checkpoint"));
        }
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or(CheckpointError::Form("no blank line"))?;
        let signed = note.get(..text.len() + 1).ok_or(CheckpointError::Form("no blank line"))?;
        let checkpoint = Checkpoint::parse(text)?;
        if checkpoint.text() != signed {
            return Err(CheckpointError::Form("not the one way to write these values"));
        }
        let Some(signatures) = signatures.strip_suffix('\n') else {
            return Err(CheckpointError::Form("no newline at the end"));
        };
        let signatures = signatures.split('\n').map(Line::parse).collect::<Result<_, _>>()?;
        Ok(Self { checkpoint, text: signed.to_owned(), signatures })
    }

    /// Checks that the key signed this checkpoint of its own log.
    ///
    /// # Errors
    /// When it did not, or more than once, or the log is another.
    pub fn verify(&self, key: &PublicKey) -> Result<(), CheckpointError> {
        if self.checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin {
                expected: key.name().to_owned(),
                found: self.checkpoint.origin.clone(),
            });
        }
        let wrong = || CheckpointError::Signature(key.name().to_owned());
        let Some(line) = self.line(key.name(), key.id()).map_err(|()| wrong())? else {
            return Err(CheckpointError::Unsigned(key.name().to_owned()));
        };
        let signature = line.bytes.as_slice().try_into().map_err(|_| wrong())?;
        if key.verify(self.text.as_bytes(), signature) { Ok(()) } else { Err(wrong()) }
    }

    /// Checks a witness's cosignature, and returns when the witness saw the checkpoint, in seconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// When there is none by this witness, or it does not verify.
    pub fn cosigned(&self, witness: &WitnessKey) -> Result<u64, CheckpointError> {
        let wrong = || CheckpointError::Signature(witness.name().to_owned());
        let Some(line) = self.line(witness.name(), witness.id()).map_err(|()| wrong())? else {
            return Err(CheckpointError::Unsigned(witness.name().to_owned()));
        };
        witness.verify(&self.text, &line.bytes).ok_or_else(wrong)
    }

    /// The one line with this name and id. An error when there are two: a reader could take either.
    fn line(&self, name: &str, id: [u8; 4]) -> Result<Option<&Line>, ()> {
        let mut lines = self.signatures.iter().filter(|line| line.name == name && line.id == id);
        let first = lines.next();
        if lines.next().is_some() { Err(()) } else { Ok(first) }
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, CheckpointError> {
        let (name, bytes) = line
            .strip_prefix("\u{2014} ")
            .and_then(|line| line.split_once(' '))
            .ok_or(CheckpointError::Form("a line below the blank one is no signature"))?;
        let bytes = STANDARD
            .decode(bytes)
            .map_err(|_| CheckpointError::Form("a signature is not base64"))?;
        let Some((id, bytes)) = bytes.split_first_chunk::<4>() else {
            return Err(CheckpointError::Form("a signature is too short"));
        };
        Ok(Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}
