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

/// An id that begins with the time, 12 hex digits of milliseconds, and goes on with 80 random
/// bits: ids made one after the other stand together in an index. For what need not be
/// unguessable.
///
/// # Errors
/// When the source cannot deliver.
pub fn ordered_id(entropy: &dyn Entropy, now_millis: u64) -> Result<String, EntropyError> {
    let mut bytes = [0; 10];
    entropy.fill(&mut bytes)?;
    Ok(format!("{:012x}{}", now_millis & 0xffff_ffff_ffff, hex::encode(bytes)))
}
