//! What two devices say to each other while one is added by the other, `spec/pairing.md`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    OpenError, PairingKey, SecretBytes, UnwrapKey, WrapKey, WrapKeyError, delimited, digest,
};

use crate::encoding::{DecodeError, decode, encode};
use crate::ids::{DeviceId, UserId};
use crate::signed::{Signable, Unverified, Verified};
use crate::v1::ticket::Name;

/// Most items that are looked at in a pairing's topic.
pub const PAIRING_ITEMS_MAX: usize = 1024;
/// Longest welcome, in bytes.
pub const WELCOME_LEN_MAX: usize = 8 << 20;
/// Longest item before it is sealed: a welcome that is wrapped.
const ITEM_LEN_MAX: usize = WELCOME_LEN_MAX + 4096;

const CODE_LABEL: &str = "sealcast.v1 pairing code";
const CHECKSUM_LABEL: &str = "sealcast.v1 pairing checksum";
const TOPIC_LABEL: &str = "sealcast.v1 pairing topic";
const WELCOME_LABEL: &str = "sealcast.v1 pairing welcome";

/// Neither `I`, `L`, `O` nor `U`: they are mistaken for others.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LETTERS: usize = 28;
const GROUP: usize = 4;
const CHECKSUM_BITS: u32 = 12;

/// What is shown on a new device and typed on one that the user has: 128 bits of a hash of the new
/// device's keys.
///
/// Whoever knows it can offer itself to the new device. It prints as nothing but its name; what
/// people see is its [`Display`](fmt::Display).
///
/// ```
/// let code: sealcast_protocol::PairingCode = "0000-0000-0000-0000-0000-0000-037Y".parse()?;
/// assert_eq!("OOOO oooo 0000 0000 0000 0000 o37y".parse(), Ok(code));
/// # Ok::<(), sealcast_protocol::CodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairingCode([u8; 16]);

impl PairingCode {
    fn of(request: &PairingRequest) -> Self {
        let parts: [&[u8]; 3] = [&request.sign_key, &request.wrap_key, &request.nonce];
        let hash = digest(CODE_LABEL, &parts);
        Self(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// The bus topic in which the two devices meet. It tells nobody the code.
    pub fn topic(&self) -> String {
        let hash = digest(TOPIC_LABEL, &[&self.0]);
        let half: [u8; 16] = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        format!("p/{}", DeviceId(half))
    }

    /// Seals an item for whoever knows the code.
    pub fn seal(&self, rng: &mut (impl CryptoRng + ?Sized), item: &PairingItem) -> Vec<u8> {
        let plaintext = encode(&Wire {
            version: VERSION,
            item: item.clone(),
        });
        PairingKey::derive(&self.0).seal(rng, &plaintext)
    }

    /// Opens an item.
    ///
    /// # Errors
    ///
    /// Fails when it was not sealed by someone who knows the code, or is none.
    pub fn open(&self, sealed: &[u8]) -> Result<PairingItem, OpenItemError> {
        let opened = PairingKey::derive(&self.0).open(sealed);
        let opened = opened.map_err(|OpenError::NotAuthentic| OpenItemError::NotAuthentic)?;
        let wire: Wire = decode(opened.expose(), ITEM_LEN_MAX)?;
        if wire.version != VERSION {
            let found = wire.version;
            return Err(DecodeError::UnknownVersion { found }.into());
        }
        Ok(wire.item)
    }

    /// Finds the new device's request among items: the one that has this code.
    pub fn request<'a>(
        &self,
        items: impl IntoIterator<Item = &'a PairingItem>,
    ) -> Option<&'a PairingRequest> {
        let requests = items.into_iter().filter_map(|item| match item {
            PairingItem::Request(request) => Some(&**request),
            PairingItem::Offer(_) | PairingItem::Consent(_) | PairingItem::Welcome(_) => None,
        });
        let mut own = requests.filter(|request| request.code() == *self);
        own.next()
    }

    fn checksum(&self) -> u128 {
        let hash = digest(CHECKSUM_LABEL, &[&self.0]);
        let first: [u8; 2] = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        u128::from(u16::from_be_bytes(first) >> (16 - CHECKSUM_BITS))
    }
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, checksum) = (u128::from_be_bytes(self.0), self.checksum());
        for at in 0..LETTERS {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            let behind = 5 * (LETTERS - 1 - at) as u32;
            // The number of 140 bits is the code, and behind it the checksum.
            let bits = match behind.checked_sub(CHECKSUM_BITS) {
                Some(shift) => code >> shift,
                None => (code << (CHECKSUM_BITS - behind)) | (checksum >> behind),
            };
            let letter = ALPHABET[(bits & 31) as usize];
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let letters = text.chars().filter(|c| *c != '-' && !c.is_whitespace());
        let (mut code, mut last, mut count) = (0_u128, 0_u128, 0);
        for letter in letters {
            let value = value_of(letter).ok_or(CodeError::Letter { found: letter })?;
            // The last twelve bits are kept apart; what they push out is the code's.
            let both = (last << 5) | value;
            code = (code << 5) | (both >> CHECKSUM_BITS);
            last = both & ((1 << CHECKSUM_BITS) - 1);
            count += 1;
        }
        if count != LETTERS {
            return Err(CodeError::Length { found: count });
        }
        let code = Self(code.to_be_bytes());
        match code.checksum() == last {
            true => Ok(code),
            false => Err(CodeError::Mistyped),
        }
    }
}

fn value_of(letter: char) -> Option<u128> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let value = ALPHABET.iter().position(|of| char::from(*of) == letter)?;
    u128::try_from(value).ok()
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingCode")
    }
}

/// One thing that a device says while it is added, or adds another.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum PairingItem {
    /// The new device: these are my keys.
    #[n(0)]
    Request(#[n(0)] Box<PairingRequest>),
    /// The other: this is my user; will you be theirs?
    #[n(1)]
    Offer(#[n(0)] UserId),
    /// The new device: I will.
    #[n(2)]
    Consent(#[n(0)] Consent),
    /// The other: you are, and this is what you need. A [`Welcome`], wrapped.
    #[n(3)]
    Welcome(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
}

/// The keys of a new device.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct PairingRequest {
    /// Ed25519 key that the device signs with.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub sign_key: [u8; 32],
    /// X-Wing key; 1,216 bytes.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub wrap_key: Vec<u8>,
    /// Keeps the code a secret when the keys are none any more.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

impl PairingRequest {
    /// The code that stands for these keys.
    pub fn code(&self) -> PairingCode {
        PairingCode::of(self)
    }

    /// The wrapping key.
    ///
    /// # Errors
    ///
    /// Fails when it is none.
    pub fn wrap_key(&self) -> Result<WrapKey, WrapKeyError> {
        WrapKey::from_bytes(&self.wrap_key)
    }
}

/// A new device's word that it will be a user's.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Consent {
    /// The user.
    #[n(0)]
    pub user: UserId,
    /// The proof of possession of the device's card.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub possession: [u8; 64],
}

/// What a new device needs, signed by the one that added it.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Welcome {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Whose device it is now.
    #[n(1)]
    pub user: UserId,
    /// The device that added it, and signs.
    #[n(2)]
    pub giver: DeviceId,
    /// The new device.
    #[n(3)]
    pub device: DeviceId,
    /// What the user calls itself; empty where it has no name.
    #[n(4)]
    pub name: String,
    /// The user's device list, or what follows from its newest checkpoint on, as it travels.
    #[n(5)]
    pub list: Vec<ListBytes>,
    /// Every stream that the user knows.
    #[n(6)]
    pub streams: Vec<WelcomeStream>,
    /// Everyone whom the user knows by name.
    #[n(7)]
    pub contacts: Vec<WelcomeContact>,
    /// What the user calls its devices.
    #[n(8)]
    pub devices: Vec<WelcomeDevice>,
}

/// An entry of a device list, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct ListBytes(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// A stream that the user knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct WelcomeStream {
    /// What the user calls it.
    #[n(0)]
    pub name: Name,
    /// Its ticket, as text.
    #[n(1)]
    pub ticket: String,
}

/// Somebody whom the user knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct WelcomeContact {
    /// What the user calls them.
    #[n(0)]
    pub name: Name,
    /// Who it is.
    #[n(1)]
    pub user: UserId,
}

/// A device that the user named.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct WelcomeDevice {
    /// What the user calls it.
    #[n(0)]
    pub name: Name,
    /// The device.
    #[n(1)]
    pub device: DeviceId,
}

const VERSION: u8 = 1;

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    version: u8,
    #[n(1)]
    item: PairingItem,
}

impl Signable for Welcome {
    const LABEL: &'static str = "sealcast.v1 device welcome";
    const LEN_MAX: usize = WELCOME_LEN_MAX;

    fn check(&self) -> Result<(), DecodeError> {
        match self.version {
            VERSION => Ok(()),
            found => Err(DecodeError::UnknownVersion { found }),
        }
    }
}

/// Wraps a signed welcome for the new device.
///
/// # Errors
///
/// Fails when the key is none.
pub fn wrap_welcome(
    rng: &mut (impl CryptoRng + ?Sized),
    welcome: &Verified<Welcome>,
    request: &PairingRequest,
) -> Result<PairingItem, WrapKeyError> {
    let (body, key) = (welcome.body(), request.wrap_key()?);
    let info = welcome_info(&body.user, &body.device, request.code());
    let wrapped = key.wrap(rng, &info, welcome.wire());
    wrapped
        .map(PairingItem::Welcome)
        .map_err(|_| WrapKeyError::Length)
}

/// Unwraps a welcome to a new device of `user`. Whether its signer may welcome anybody is for the
/// device list to say.
pub fn unwrap_welcome(
    item: &PairingItem,
    user: &UserId,
    device: &DeviceId,
    code: PairingCode,
    key: &UnwrapKey,
) -> Option<Unverified<Welcome>> {
    let PairingItem::Welcome(wrapped) = item else {
        return None;
    };
    let plain: SecretBytes = key
        .unwrap(&welcome_info(user, device, code), wrapped)
        .ok()?;
    let welcome = Unverified::<Welcome>::decode(plain.expose()).ok()?;
    let claims = welcome.claims();
    ((claims.user, claims.device) == (*user, *device)).then_some(welcome)
}

fn welcome_info(user: &UserId, device: &DeviceId, code: PairingCode) -> Vec<u8> {
    delimited(WELCOME_LABEL, &[&user.0, &device.0, &code.0])
}

impl fmt::Debug for PairingItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request(_) => "Request",
            Self::Offer(_) => "Offer",
            Self::Consent(_) => "Consent",
            Self::Welcome(_) => "Welcome",
        })
    }
}

impl fmt::Debug for PairingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingRequest")
    }
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consent").field(&self.user).finish()
    }
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Welcome({} of {})", self.device, self.user)
    }
}

/// Why text is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// A letter that no code has.
    #[error("a code has no `{found}`")]
    Letter {
        /// The letter.
        found: char,
    },
    /// Too many letters or too few.
    #[error("a code has 28 letters, and this has {found}")]
    Length {
        /// Letters that there are.
        found: usize,
    },
    /// The checksum does not fit.
    #[error("a letter of the code is mistyped")]
    Mistyped,
}

/// Why an item of a pairing was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenItemError {
    /// Whoever sealed it does not know the code, or it was altered.
    #[error("the item was not sealed by someone who knows the code")]
    NotAuthentic,
    /// It is none.
    #[error("the item is malformed")]
    Malformed(#[from] DecodeError),
}
