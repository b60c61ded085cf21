//! Values of the store and the file of its key (`spec/store.md`).

use sealcast_crypto::{StoreKey, delimited};

use super::case::Case;
use super::cast::Given;

const NONCE: [u8; 12] = [1; 12];

pub(super) fn cases() -> Vec<Case> {
    [values(), value_faults(), key_files(), key_file_faults()].concat()
}

/// The key of the examples: 00 01 02 ... 1f.
fn key() -> StoreKey {
    StoreKey::init_with(|bytes| {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
    })
}

fn seal(space: u16, id: &[u8], value: &[u8]) -> Vec<u8> {
    let context = delimited("sealcast.v1 store record", &[&space.to_be_bytes(), id]);
    key().seal(&mut Given(&NONCE), &context, value)
}

fn given(name: &str, about: &str, key: &StoreKey, space: u16, id: &[u8]) -> Case {
    Case::new("store", name, about)
        .hex("store-key", key.expose())
        .with("space", space)
        .hex("id", id)
}

fn values() -> Vec<Case> {
    #[rustfmt::skip]
    let rows: [(_, _, _, &[u8], &[u8]); 4] = [
        ("value", "the example of the page", 1, b"id", b"value"),
        ("empty-value", "a value of no bytes", 1, b"id", b""),
        ("empty-id", "an id of no bytes", 255, b"", b"value"),
        ("tally", "the tally of a store with one record in space 1", 256, b"", b"\x01\0\0\0\0\0\0\0\x01"),
    ];
    rows.map(|(name, about, space, id, value)| {
        given(name, about, &key(), space, id)
            .hex("nonce", NONCE)
            .hex("value", value)
            .ok()
            .hex("sealed", seal(space, id, value))
    })
    .to_vec()
}

fn value_faults() -> Vec<Case> {
    let good = seal(1, b"id", b"value");
    let flipped = |at: usize| {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        flipped
    };
    let (own, other) = (key(), StoreKey::init_with(|bytes| bytes.fill(7)));
    #[rustfmt::skip]
    let rows: [(_, _, _, _, &[u8], _); 8] = [
        ("another-space", "moved to another space", &own, 2, b"id", good.clone()),
        ("another-id", "moved to another id", &own, 1, b"ie", good.clone()),
        ("another-key", "another store's key", &other, 1, b"id", good.clone()),
        ("altered-nonce", "a bit of the nonce is flipped", &own, 1, b"id", flipped(0)),
        ("altered-ciphertext", "a bit of the ciphertext is flipped", &own, 1, b"id", flipped(12)),
        ("altered-tag", "a bit of the tag is flipped", &own, 1, b"id", flipped(32)),
        ("cut", "the last byte is missing", &own, 1, b"id", good[..32].to_vec()),
        ("too-short", "27 bytes", &own, 1, b"id", good[..27].to_vec()),
    ];
    rows.map(|(name, about, key, space, id, sealed)| {
        given(name, about, key, space, id)
            .hex("sealed", sealed)
            .fails("not authentic")
    })
    .to_vec()
}

const HEAD: &[u8] = b"sealcast-key";
const PASSPHRASE: &str = "example";

/// The key, sealed under `PASSPHRASE`, as the page shows it: text and tag.
const SEALED: [u8; 48] = [
    0x44, 0x02, 0x7c, 0x82, 0xfb, 0x46, 0x31, 0x2d, 0x34, 0xe0, 0x77, 0x2b, 0xb9, 0xb5, 0x9d, 0xa7,
    0x52, 0xf6, 0xac, 0x55, 0x49, 0x6b, 0x83, 0x09, 0xee, 0xf0, 0x1e, 0x8a, 0xf6, 0x9b, 0xf1, 0x0f,
    0xd4, 0xe9, 0xbe, 0x5b, 0x1b, 0x3b, 0x55, 0x77, 0x23, 0x4d, 0xae, 0xdf, 0xb5, 0x5a, 0x6b, 0x25,
];

fn plain() -> Vec<u8> {
    let kind = [1, 1];
    let check = key().seal(
        &mut Given(&NONCE),
        &delimited("sealcast.v1 key file", &[&kind]),
        b"",
    );
    [HEAD, &kind, key().expose(), &check].concat()
}

fn under_passphrase() -> Vec<u8> {
    let numbers = [19_456_u32, 2, 1].map(u32::to_be_bytes);
    [
        HEAD,
        &[1, 2],
        numbers.as_flattened(),
        &[1; 16],
        &NONCE,
        &SEALED,
    ]
    .concat()
}

fn key_files() -> Vec<Case> {
    let file = |name, about, file: Vec<u8>| Case::new("key-file", name, about).hex("file", file);
    let cases = [
        file("plain", "the example of the page", plain()),
        file("passphrase", "the example of the page", under_passphrase())
            .with("passphrase", PASSPHRASE),
    ];
    cases
        .map(|case| case.ok().hex("store-key", key().expose()))
        .to_vec()
}

fn key_file_faults() -> Vec<Case> {
    let (plain, sealed) = (plain(), under_passphrase());
    let changed =
        |file: &[u8], at: usize, to: &[u8]| [&file[..at], to, &file[at + to.len()..]].concat();
    let number = |at: usize, number: u32| changed(&sealed, 14 + 4 * at, &number.to_be_bytes());
    let (damaged, newer, wrong) = ("damaged", "newer version", "wrong passphrase");
    #[rustfmt::skip]
    let rows = [
        ("nothing", "no bytes", Vec::new(), "", damaged),
        ("another-file", "the first letter differs", changed(&plain, 0, b"S"), "", damaged),
        ("version-0", "version 0", changed(&plain, 12, &[0]), "", damaged),
        ("version-2", "version 2", changed(&plain, 12, &[2]), "", newer),
        ("kind-0", "kind 0", changed(&plain, 13, &[0]), "", damaged),
        ("kind-3", "kind 3", changed(&plain, 13, &[3]), "", damaged),
        ("plain-altered-key", "a bit of the key is flipped", changed(&plain, 14, &[1]), "", damaged),
        ("plain-altered-check", "a bit of the check is flipped", changed(&plain, 73, &[plain[73] ^ 1]), "", damaged),
        ("plain-cut", "the last byte is missing", plain[..73].to_vec(), "", damaged),
        ("plain-byte-behind", "a byte stands behind", [&*plain, &[0]].concat(), "", damaged),
        ("too-long", "513 bytes", [&*plain, &[0; 439]].concat(), "", damaged),
        ("wrong-passphrase", "another passphrase", sealed.clone(), "examplf", wrong),
        ("altered-salt", "a bit of the salt is flipped", changed(&sealed, 26, &[0]), PASSPHRASE, wrong),
        ("altered-passes", "three passes instead of two", number(1, 3), PASSPHRASE, wrong),
        ("altered-tag", "a bit of the tag is flipped", changed(&sealed, 101, &[sealed[101] ^ 1]), PASSPHRASE, wrong),
        ("passphrase-cut", "the last byte is missing", sealed[..101].to_vec(), PASSPHRASE, damaged),
        ("too-much-memory", "262,145 KiB", number(0, 262_145), PASSPHRASE, damaged),
        ("too-little-memory", "no memory", number(0, 0), PASSPHRASE, damaged),
        ("too-many-passes", "17 passes", number(1, 17), PASSPHRASE, damaged),
        ("no-passes", "no pass", number(1, 0), PASSPHRASE, damaged),
        ("too-many-lanes", "5 lanes", number(2, 5), PASSPHRASE, damaged),
    ];
    rows.map(|(name, about, file, passphrase, failure)| {
        let case = Case::new("key-file", name, about).hex("file", file);
        match passphrase.is_empty() {
            true => case.fails(failure),
            false => case.with("passphrase", passphrase).fails(failure),
        }
    })
    .to_vec()
}
