//! What must hold of every signed object.

use sealcast_crypto::SigningKey;
use sealcast_protocol::{DecodeError, Signable, Unverified, Verified, encode, sign};

const SIGNATURE_LEN: usize = 64;

/// Signs with a key that nobody else in here has.
pub(crate) fn own_key() -> SigningKey {
    SigningKey::from_seed(&[0x5a; 32])
}

/// Decodes a signed object. One that decodes is the one encoding of what it says, is not signed by
/// just anybody, and of another version is refused as that.
pub(crate) fn decoded<T: Signable + Clone>(bytes: &[u8]) -> Option<Unverified<T>> {
    let object = match Unverified::<T>::decode(bytes) {
        Ok(object) => object,
        Err(error) => {
            refused(error);
            return None;
        }
    };
    let again = Unverified::<T>::decode(bytes);
    let key = own_key();
    assert!(
        again.is_ok_and(|again| again.verify(&key.verifying_key()).is_err()),
        "nobody signed it with this key"
    );
    let signed = sign(&key, object.claims().clone());
    assert!(signed.is_ok(), "what is read can be written");
    if let Ok(signed) = signed {
        assert_eq!(signed.digest(), object.digest());
        assert_eq!(unsigned(signed.wire()), unsigned(bytes), "not canonical");
        comes_back(&signed, &key);
        of_another_version::<T>(bytes, object.claims());
    }
    Some(object)
}

fn comes_back<T: Signable>(signed: &Verified<T>, key: &SigningKey) {
    let back = Unverified::<T>::decode(signed.wire());
    let back = back.is_ok_and(|back| back.verify(&key.verifying_key()).is_ok());
    assert!(back, "what is signed here is believed here");
}

fn unsigned(wire: &[u8]) -> &[u8] {
    let parts = wire.split_last_chunk::<SIGNATURE_LEN>();
    parts.map_or(wire, |(unsigned, _)| unsigned)
}

/// The version is the first field of every body, behind the byte that opens it.
fn of_another_version<T: Signable>(bytes: &[u8], body: &T) {
    let from_end = encode(body).len() + 2 + SIGNATURE_LEN;
    let mut newer = bytes.to_vec();
    let at = newer.len().checked_sub(from_end).map(|at| at + 1);
    for found in [0, 2, 23] {
        if let Some(version) = at.and_then(|at| newer.get_mut(at)) {
            *version = found;
        }
        let refused = Unverified::<T>::decode(&newer).err();
        assert_eq!(refused, Some(DecodeError::UnknownVersion { found }));
    }
}

/// A version that is known is not refused as one that is not.
pub(crate) fn refused(error: DecodeError) {
    assert_ne!(error, DecodeError::UnknownVersion { found: 1 });
}
