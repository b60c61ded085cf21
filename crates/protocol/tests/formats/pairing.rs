//! Codes of new devices, and what is said under them.

use proptest::prelude::*;
use sealcast_protocol::{
    CodeError, Consent, DeviceId, OpenItemError, PairingCode, PairingItem, PairingRequest, UserId,
    Welcome, sign, unwrap_welcome, wrap_welcome,
};

use crate::support::{Person, Seeded, flips};

fn request(of: &Person, nonce: u8) -> PairingRequest {
    PairingRequest {
        sign_key: *of.phone.signing.verifying_key().as_bytes(),
        wrap_key: of.phone.unwrap.wrap_key().as_bytes().to_vec(),
        nonce: [nonce; 16],
    }
}

#[test]
fn a_code_stands_for_all_keys_and_the_nonce() {
    let anna = Person::new(1);
    let code = request(&anna, 1).code();
    assert_ne!(request(&anna, 2).code(), code);
    let mut other = request(&anna, 1);
    other.sign_key[31] ^= 1;
    assert_ne!(other.code(), code);
    let mut other = request(&anna, 1);
    other.wrap_key[1_215] ^= 1;
    assert_ne!(other.code(), code);
}

#[test]
fn a_code_tells_neither_its_topic_nor_itself_in_logs() {
    let code = request(&Person::new(1), 1).code();
    let (shown, topic) = (code.to_string(), code.topic());
    assert_eq!(format!("{code:?}"), "PairingCode");
    assert_eq!((&topic[..2], topic.len()), ("p/", 34));
    assert!(!topic.contains(&shown[..4].to_lowercase()));
    let other = request(&Person::new(1), 2).code();
    assert_ne!(other.topic(), topic);
}

/// Each letter in turn, and all neighbours exchanged.
#[test]
fn a_slip_of_one_letter_or_two_is_noticed() {
    let shown = request(&Person::new(1), 1).code().to_string();
    let letters: Vec<char> = shown.chars().filter(|c| *c != '-').collect();
    for at in 0..letters.len() {
        let mut typed = letters.clone();
        typed[at] = if typed[at] == 'X' { 'Y' } else { 'X' };
        let typed: String = typed.into_iter().collect();
        assert_eq!(
            typed.parse::<PairingCode>(),
            Err(CodeError::Mistyped),
            "{at}"
        );
    }
    for at in 1..letters.len() {
        let mut typed = letters.clone();
        typed.swap(at - 1, at);
        let typed: String = typed.into_iter().collect();
        let is_same = letters[at] == letters[at - 1];
        assert_eq!(typed.parse::<PairingCode>().is_ok(), is_same, "{at}");
    }
    let short = shown[1..].parse::<PairingCode>();
    assert_eq!(short, Err(CodeError::Length { found: 27 }));
    let other = shown.replacen(&shown[..1], "!", 1).parse::<PairingCode>();
    assert_eq!(other, Err(CodeError::Letter { found: '!' }));
}

#[test]
fn an_item_opens_under_its_code_alone_and_unaltered_alone() {
    let anna = Person::new(1);
    let code = request(&anna, 1).code();
    let items = [
        PairingItem::Request(Box::new(request(&anna, 1))),
        PairingItem::Offer(anna.user),
        PairingItem::Consent(Consent {
            user: anna.user,
            possession: [3; 64],
        }),
        PairingItem::Welcome(vec![1, 2, 3]),
    ];
    for item in items {
        let sealed = code.seal(&mut Seeded(1), &item);
        assert_eq!(code.open(&sealed), Ok(item));
        let other = request(&anna, 2).code().open(&sealed);
        assert_eq!(other, Err(OpenItemError::NotAuthentic));
        for flipped in flips(&sealed).step_by(7) {
            assert_eq!(code.open(&flipped), Err(OpenItemError::NotAuthentic));
        }
    }
}

#[test]
fn the_request_that_has_the_code_is_found_among_others() {
    let (anna, mallory) = (Person::new(1), Person::new(2));
    let code = request(&anna, 1).code();
    let others = vec![
        PairingItem::Offer(anna.user),
        PairingItem::Request(Box::new(request(&mallory, 1))),
        PairingItem::Request(Box::new(request(&anna, 2))),
    ];
    assert_eq!(code.request(&others), None);
    let own = PairingItem::Request(Box::new(request(&anna, 1)));
    let all: Vec<_> = others.into_iter().chain([own]).collect();
    assert_eq!(code.request(&all), Some(&request(&anna, 1)));
}

fn welcome(anna: &Person, giver: DeviceId) -> Welcome {
    Welcome {
        version: 1,
        user: anna.user,
        giver,
        device: anna.phone.id,
        name: String::new(),
        list: Vec::new(),
        streams: Vec::new(),
        contacts: Vec::new(),
        devices: Vec::new(),
    }
}

#[test]
fn a_welcome_opens_for_its_device_user_and_code_alone() {
    let (anna, ben) = (Person::new(1), Person::new(2));
    let asked = request(&anna, 1);
    let signed = sign(&ben.phone.signing, welcome(&anna, ben.phone.id)).unwrap();
    let item = wrap_welcome(&mut Seeded(1), &signed, &asked).unwrap();
    let (code, key) = (asked.code(), &anna.phone.unwrap);
    let open = |user: &UserId, device: &DeviceId, code, key| {
        unwrap_welcome(&item, user, device, code, key).is_some()
    };
    assert!(open(&anna.user, &anna.phone.id, code, key));
    assert!(!open(&ben.user, &anna.phone.id, code, key));
    assert!(!open(&anna.user, &ben.phone.id, code, key));
    assert!(!open(
        &anna.user,
        &anna.phone.id,
        request(&anna, 2).code(),
        key
    ));
    assert!(!open(&anna.user, &anna.phone.id, code, &ben.phone.unwrap));
    let offer = PairingItem::Offer(anna.user);
    assert!(unwrap_welcome(&offer, &anna.user, &anna.phone.id, code, key).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codes_read_back(seed in 0_u8.., nonce in 0_u8..) {
        let code = request(&Person::new(seed), nonce).code();
        let shown = code.to_string();
        prop_assert_eq!(shown.len(), 34);
        prop_assert_eq!(shown.parse(), Ok(code));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,60}") {
        let _is_code = text.parse::<PairingCode>().is_ok();
    }

    #[test]
    fn any_item_is_read_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..200)) {
        let code = request(&Person::new(1), 1).code();
        prop_assert!(code.open(&bytes).is_err());
    }
}
