//! The primitives that come in more than one implementation, chosen by target alone.
//!
//! A backend offers `KeyPair` (`from_seed`, `public`, `sign`), `verify`, `seal_in_place` and
//! `open_in_place`, and nothing more. Checks that all backends must agree on stand above it.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod native;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use native::{KeyPair, open_in_place, seal_in_place, verify};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("there is no backend for this target yet");

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 3.
    #[test]
    fn ed25519_gives_the_answers_of_its_standard() {
        let seed = bytes("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
        let pair = KeyPair::from_seed(&seed);
        let public = bytes("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&bytes::<32>(
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
        ));
        signature[32..].copy_from_slice(&bytes::<32>(
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ));
        assert_eq!(pair.public(), public);
        assert_eq!(pair.sign(&[0xaf, 0x82]), signature);
        assert!(verify(&public, &[0xaf, 0x82], &signature));
        assert!(!verify(&public, &[0xaf, 0x83], &signature));
    }

    /// RFC 8452, appendix C.2.
    #[test]
    fn aes_256_gcm_siv_gives_the_answers_of_its_standard() {
        let (mut key, mut nonce) = ([0; 32], [0; 12]);
        (key[0], nonce[0]) = (1, 3);
        assert_eq!(
            seal_in_place(&key, nonce, b"", &mut []),
            bytes("07f5f4169bbf55a8400cd47ea6fd400f")
        );
        let mut buffer = bytes::<8>("0100000000000000");
        let tag = seal_in_place(&key, nonce, b"", &mut buffer);
        assert_eq!(buffer, bytes("c2ef328e5c71c83b"));
        assert_eq!(tag, bytes("843122130f7364b761e0b97427e3df28"));
        assert!(open_in_place(&key, nonce, b"", &mut buffer, &tag));
        assert_eq!(buffer, bytes("0100000000000000"));
    }

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        core::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }
}
