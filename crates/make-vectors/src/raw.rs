//! Signed objects written by hand, so that what no honest writer makes can be made too.

use sealcast_crypto::{SigningKey, digest};

/// Signs a body, whatever it is.
pub(super) fn signed(key: &SigningKey, label: &str, body: &[u8]) -> Vec<u8> {
    wrapper(body, key.sign(&digest(label, &[body])).as_bytes())
}

/// The signed wrapper.
pub(super) fn wrapper(body: &[u8], signature: &[u8]) -> Vec<u8> {
    [&[0x82], &*byte_string(body), &*byte_string(signature)].concat()
}

/// A byte string with its length in the shortest form.
fn byte_string(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    let [.., high, low] = length;
    let head: &[u8] = match bytes.len() {
        0..24 => &[0x40 | low],
        24..0x100 => &[0x58, low],
        0x100..0x1_0000 => &[0x59, high, low],
        _ => &[&[0x5a], &length[..]].concat(),
    };
    [head, bytes].concat()
}

/// A fault that any signed object can have.
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) wire: Vec<u8>,
    pub(super) failure: &'static str,
}

/// One object with each fault. `body` is good, an array of less than 23 items that starts with the
/// version; `key` signs it, and `stranger` and `other_label` are not what it needs.
pub(super) fn faults(
    key: &SigningKey,
    stranger: &SigningKey,
    label: &str,
    other_label: &str,
    body: &[u8],
) -> Vec<Fault> {
    let Some((&array, fields)) = body.split_first() else {
        return Vec::new();
    };
    let rest = fields.get(1..).unwrap_or_default();
    let wire = signed(key, label, body);
    let said = digest(label, &[body]);
    let signature = key.sign(&said);
    let mut flipped = *signature.as_bytes();
    flipped[40] ^= 1;
    let of = |body: Vec<u8>| signed(key, label, &body);
    let shape = "malformed";
    #[rustfmt::skip]
    let rows = [
        ("body-version-in-two-bytes", "the version takes two bytes instead of one", of([&[array, 0x18, 1], rest].concat()), shape),
        ("body-version-as-float", "the version is the floating point number 1.0", of([&[array, 0xf9, 0x3c, 0], rest].concat()), shape),
        ("body-count-in-two-bytes", "the array's number of items takes two bytes", of([&[0x98, array & 0x1f], fields].concat()), shape),
        ("body-indefinite-array", "the array has no stated length", of([&[0x9f], fields, &[0xff]].concat()), shape),
        ("body-item-too-many", "the array has one more item", of([&[array + 1], fields, &[0]].concat()), shape),
        ("body-tagged", "a tag stands before the array", of([&[0xc1], body].concat()), shape),
        ("body-cut", "the last byte of the body is missing", of(body[..body.len() - 1].to_vec()), shape),
        ("body-byte-behind", "a byte stands behind the body", of([body, &[0]].concat()), shape),
        ("body-empty", "the body has no bytes", of(Vec::new()), shape),
        ("body-version-0", "version 0", of([&[array, 0], rest].concat()), "unknown version"),
        ("body-version-2", "version 2", of([&[array, 2], rest].concat()), "unknown version"),
        ("wrapper-byte-behind", "a byte stands behind the wrapper", [&*wire, &[0]].concat(), shape),
        ("wrapper-third-item", "the wrapper has a third item", [&[0x83], &wire[1..], &[0]].concat(), shape),
        ("wrapper-cut", "the wrapper lacks its last byte", wire[..wire.len() - 1].to_vec(), shape),
        ("wrapper-signature-of-63", "the signature has 63 bytes", wrapper(body, &signature.as_bytes()[..63]), shape),
        ("wrapper-long-length", "the length of the body takes four bytes", long_length(body, signature.as_bytes()), shape),
        ("signature-altered", "one bit of the signature is flipped", wrapper(body, &flipped), "signature"),
        ("signature-of-another-key", "another key signed", signed(stranger, label, body), "signature"),
        ("signature-under-another-label", "signed as another kind of object", signed(key, other_label, body), "signature"),
    ];
    let fault = |(name, about, wire, failure)| Fault {
        name,
        about,
        wire,
        failure,
    };
    rows.into_iter().map(fault).collect()
}

fn long_length(body: &[u8], signature: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[0x82, 0x5a], &length[..], body, &[0x58, 64], signature].concat()
}
