//! What two devices say to each other while one is added by the other.

use sealcast_crypto::{PairingKey, SigningKey, UnwrapKey};
use sealcast_engine::{Newcomer, consented_card};
use sealcast_protocol::{
    CardList, DecodeError, OpenItemError, PairingCode, PairingItem, Position, UserId, Welcome,
    unwrap_welcome,
};

use crate::seeded::Seeded;
use crate::signed::{decoded, refused};

/// The code of the bytes `00` × 16.
pub(crate) const CODE: &str = "0000-0000-0000-0000-0000-0000-037Y";
const SEALED_BESIDES: usize = 12 + 16;

/// As it lies in the topic, or, behind an odd byte, what somebody sealed who knows the code.
pub(crate) fn pairing_item(bytes: &[u8]) {
    let (Some((choice, bytes)), Ok(code)) = (bytes.split_first(), CODE.parse::<PairingCode>())
    else {
        return;
    };
    let mut rng = Seeded::new(1);
    let sealed = match choice & 1 {
        0 => bytes.to_vec(),
        _ => PairingKey::derive(&[0; 16]).seal(&mut rng, bytes),
    };
    let item = match code.open(&sealed) {
        Ok(item) => item,
        Err(OpenItemError::Malformed(error)) => return refused(error),
        Err(error) => {
            assert_eq!(error, OpenItemError::NotAuthentic);
            return assert_eq!(choice & 1, 0, "who knows the code is understood");
        }
    };
    let again = code.seal(&mut rng, &item);
    assert_eq!(again.len(), bytes.len() + SEALED_BESIDES, "not canonical");
    assert!(code.open(&again).is_ok_and(|again| again == item));
    newer(code, bytes);
    hear(code, &item);
}

/// The version is the first field of an item.
fn newer(code: PairingCode, plaintext: &[u8]) {
    let mut newer = plaintext.to_vec();
    if let Some(version) = newer.get_mut(1) {
        *version = 2;
    }
    let sealed = PairingKey::derive(&[0; 16]).seal(&mut Seeded::new(2), &newer);
    let error = DecodeError::UnknownVersion { found: 2 };
    assert_eq!(
        code.open(&sealed).err(),
        Some(OpenItemError::Malformed(error))
    );
}

/// Either side hears it.
fn hear(code: PairingCode, item: &PairingItem) {
    let user = UserId(*SigningKey::from_seed(&[3; 32]).verifying_key().as_bytes());
    let mut newcomer = Newcomer::generate(&mut Seeded::new(3), None);
    let items = std::slice::from_ref(item);
    let offered = match item {
        PairingItem::Offer(user) => Some(*user),
        PairingItem::Request(_) | PairingItem::Consent(_) | PairingItem::Welcome(_) => None,
    };
    assert_eq!(newcomer.consider(items), offered.is_some());
    assert_eq!(newcomer.user(), offered);
    assert!(newcomer.welcome(items).is_none(), "nobody welcomes it");
    let own = newcomer.says();
    let [PairingItem::Request(request), ..] = own.as_slice() else {
        return assert!(own.is_empty(), "it says first who it is");
    };
    let expires = Position(1_790_000_000_000);
    assert!(consented_card(&user, request, items, expires).is_none());
    if let PairingItem::Request(other) = item {
        assert_eq!(code.request(items).is_some(), other.code() == code);
        assert_eq!(consented_card(&user, other, &own, expires), None);
    }
}

/// What a welcome says once it is unwrapped.
pub(crate) fn welcome(bytes: &[u8]) {
    let Some(welcome) = decoded::<Welcome>(bytes) else {
        return;
    };
    let of = welcome.claims();
    let mut list = CardList::new(of.user);
    for entry in &of.list {
        if list.apply(&entry.0).is_err() {
            break;
        }
    }
    let key = UnwrapKey::from_seed(&[9; 32]);
    let item = PairingItem::Welcome(bytes.to_vec());
    if let Ok(code) = CODE.parse() {
        let unwrapped = unwrap_welcome(&item, &of.user, &of.device, code, &key);
        assert!(unwrapped.is_none(), "it was never wrapped");
    }
}
