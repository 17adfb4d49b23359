//! Randomness.

/// Fills buffers with bytes nobody can guess.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer, or fails; ids and tokens are made of nothing else.
    ///
    /// # Errors
    /// When the source cannot deliver. The call that needed it is denied.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;
}

/// Why there was no randomness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the operating system: {0}")]
pub struct EntropyError(pub String);

/// 128 random bits as 32 hex digits: an id that cannot be guessed and does not repeat.
///
/// # Errors
/// When the source cannot deliver.
pub fn random_id(entropy: &dyn Entropy) -> Result<String, EntropyError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}
