//! A device that waits to be added, and whom it believes.

use sealcast_crypto::{SigningKey, UnwrapKey};
use sealcast_engine::{Identity, Newcomer, consented_card};
use sealcast_protocol::{
    Card, CardList, CardRevocation, DeviceId, ListBody, ListBytes, PairingItem, PairingRequest,
    Position, UserId, Verified, Welcome, sign, wrap_welcome,
};

use crate::rig::NOON;
use crate::rng::Seeded;

/// A first device, its user's list, and a device that waits and has consented.
struct Pair {
    rng: Seeded,
    first: Identity,
    list: CardList,
    entries: Vec<Vec<u8>>,
    new: Newcomer,
    request: PairingRequest,
}

impl Pair {
    fn new() -> Self {
        let mut rng = Seeded::new(3);
        let first = Identity::generate(&mut rng);
        let mut new = Newcomer::generate(&mut rng, None);
        assert!(new.consider(&[PairingItem::Offer(first.user())]));
        let request = request(&new);
        let mut pair = Self {
            rng,
            list: CardList::new(first.user()),
            entries: Vec::new(),
            first,
            new,
            request,
        };
        pair.write(pair.first.card(NOON));
        pair
    }

    fn user(&self) -> UserId {
        self.first.user()
    }

    fn device(&self) -> DeviceId {
        DeviceId::derive(&self.user(), &self.request.sign_key)
    }

    fn write(&mut self, body: ListBody) {
        let root = self.first.root().unwrap();
        let entry = self.list.append(root, NOON, body).unwrap();
        self.entries.push(entry.wire().to_vec());
    }

    fn card(&self) -> Card {
        let said = self.new.says();
        consented_card(&self.user(), &self.request, &said, NOON.after(5)).unwrap()
    }

    fn add(&mut self) {
        let card = self.card();
        self.write(ListBody::Card(card.into()));
    }

    fn revoke(&mut self, device: DeviceId) {
        self.write(ListBody::Revoke(CardRevocation { device, time: NOON }));
    }

    /// A welcome of the list as it is, signed by a key in the name of a device.
    fn welcome(&mut self, by: &SigningKey, giver: DeviceId) -> PairingItem {
        let entries = self.entries.iter();
        let welcome = Welcome {
            version: 1,
            user: self.user(),
            giver,
            device: self.device(),
            name: String::new(),
            list: entries.map(|of| ListBytes(of.clone())).collect(),
            streams: Vec::new(),
            contacts: Vec::new(),
            devices: Vec::new(),
        };
        let signed: Verified<Welcome> = sign(by, welcome).unwrap();
        wrap_welcome(&mut self.rng, &signed, &self.request).unwrap()
    }

    fn first_welcome(&mut self) -> PairingItem {
        let (by, giver) = (self.first.signing().duplicate(), self.first.device());
        self.welcome(&by, giver)
    }

    fn is_welcomed(&self, item: &PairingItem) -> bool {
        self.new.welcome([item]).is_some()
    }
}

fn request(of: &Newcomer) -> PairingRequest {
    let said = of.says();
    let request = said.iter().find_map(|item| match item {
        PairingItem::Request(request) => Some((**request).clone()),
        PairingItem::Offer(_) | PairingItem::Consent(_) | PairingItem::Welcome(_) => None,
    });
    request.unwrap()
}

#[test]
fn a_device_that_is_welcomed_is_its_users_with_the_keys_that_it_showed() {
    let mut pair = Pair::new();
    pair.add();
    let item = pair.first_welcome();
    let welcome = pair.new.welcome([&item]).unwrap();
    let (user, device, key) = (pair.user(), pair.device(), pair.request.sign_key);
    let identity = pair.new.into_identity(&welcome);
    assert_eq!((identity.user(), identity.device()), (user, device));
    assert_eq!(*identity.signing().verifying_key().as_bytes(), key);
    assert!(identity.root().is_none());
}

#[test]
fn a_device_consents_to_the_first_user_that_offers_and_never_to_another() {
    let mut rng = Seeded::new(4);
    let (anna, ben) = (UserId([1; 32]), UserId([2; 32]));
    let mut new = Newcomer::generate(&mut rng, None);
    assert_eq!((new.user(), new.says().len()), (None, 1));
    assert!(!new.consider(&[]));
    let offers = [PairingItem::Offer(anna), PairingItem::Offer(ben)];
    assert!(new.consider(&offers));
    assert!(!new.consider(&offers[1..]));
    assert_eq!(new.user(), Some(anna));
    let mut kept = Newcomer::from_bytes(new.to_bytes().expose()).unwrap();
    assert!(!kept.consider(&offers[1..]));
    assert_eq!((kept.user(), kept.code()), (Some(anna), new.code()));
    assert_eq!(kept.says(), new.says());
    let mut told = Newcomer::generate(&mut rng, Some(ben));
    assert!(!told.consider(&offers));
    assert_eq!((told.user(), told.says().len()), (Some(ben), 2));
    assert!(Newcomer::from_bytes(b"anything").is_none());
}

#[test]
fn a_consent_makes_a_card_of_its_own_user_and_request_alone() {
    let mut pair = Pair::new();
    let said = pair.new.says();
    let card = |user: &UserId, request: &PairingRequest| {
        consented_card(user, request, &said, NOON.after(5)).is_some()
    };
    assert!(card(&pair.user(), &pair.request));
    assert!(!card(&UserId([1; 32]), &pair.request));
    let other = request(&Newcomer::generate(&mut pair.rng, None));
    assert!(!card(&pair.user(), &other));
    let mut swapped = pair.request.clone();
    swapped.wrap_key = other.wrap_key;
    assert!(!card(&pair.user(), &swapped));
    assert!(consented_card(&pair.user(), &pair.request, &said[..1], NOON).is_none());
}

/// Whoever knows the code could else hand over false streams and contacts.
#[test]
fn a_welcome_counts_from_another_device_of_the_list_that_is_not_revoked_only() {
    let mut pair = Pair::new();
    pair.add();
    let stranger = SigningKey::from_seed(&[9; 32]);
    let (first, own) = (pair.first.device(), pair.device());
    let by_stranger = pair.welcome(&stranger, first);
    assert!(!pair.is_welcomed(&by_stranger));
    let unknown = DeviceId::derive(&pair.user(), stranger.verifying_key().as_bytes());
    let by_unknown = pair.welcome(&stranger, unknown);
    assert!(!pair.is_welcomed(&by_unknown));
    let by_itself = pair.welcome(&stranger, own);
    assert!(!pair.is_welcomed(&by_itself));
    let good = pair.first_welcome();
    assert!(pair.is_welcomed(&good));
    pair.revoke(first);
    let by_revoked = pair.first_welcome();
    assert!(!pair.is_welcomed(&by_revoked));
    // The one that counts is found behind those that do not.
    let all = [by_stranger, by_itself, good];
    assert!(pair.new.welcome(&all).is_some());
}

#[test]
fn a_welcome_with_a_list_that_lacks_the_device_or_is_none_does_not_count() {
    let mut pair = Pair::new();
    let without = pair.first_welcome();
    assert!(!pair.is_welcomed(&without));
    pair.add();
    let own = pair.device();
    let mut broken = pair.entries.clone();
    std::mem::swap(&mut broken, &mut pair.entries);
    pair.entries.swap(0, 1);
    let out_of_order = pair.first_welcome();
    assert!(!pair.is_welcomed(&out_of_order));
    std::mem::swap(&mut broken, &mut pair.entries);
    pair.revoke(own);
    let revoked = pair.first_welcome();
    assert!(!pair.is_welcomed(&revoked));
}

#[test]
fn a_welcome_of_a_device_with_another_wrapping_key_does_not_count() {
    let mut pair = Pair::new();
    // As if the first device had been shown other keys than those of the code.
    let signing = SigningKey::from_seed(&[7; 32]);
    let unwrap = UnwrapKey::from_seed(&[8; 32]);
    let card = Card::new(&pair.user(), &signing, &unwrap.wrap_key(), Position::END);
    pair.write(ListBody::Card(card.into()));
    let item = pair.first_welcome();
    assert!(!pair.is_welcomed(&item));
}
