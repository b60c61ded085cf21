//! Keys that others state, and what was wrapped or signed with keys.

use sealcast_crypto::{
    COVER_NODES_MAX, Cover, Signature, StoreKey, UnwrapKey, Verifier, VerifyingKey, WRAP_OVERHEAD,
    WrapKey, cover, digest,
};

use crate::seeded::Seeded;

const INFO: &[u8] = b"what it is bound to";

/// The first byte says what the others are.
pub(crate) fn keys(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    match choice % 5 {
        0 => wrap_key(bytes),
        1 => wrapped(bytes),
        2 => signature(bytes),
        3 => cover_keys(bytes),
        _ => stored(bytes),
    }
}

fn wrap_key(bytes: &[u8]) {
    if let Ok(key) = WrapKey::from_bytes(bytes) {
        assert_eq!(key.as_bytes().as_slice(), bytes);
        let wrapped = key.wrap(&mut Seeded::new(4), INFO, b"secret");
        assert!(wrapped.is_ok_and(|of| of.len() == 6 + WRAP_OVERHEAD));
    }
}

/// As it came, and as a plaintext of which one byte is altered once it is wrapped.
fn wrapped(bytes: &[u8]) {
    let key = UnwrapKey::from_seed(&[9; 32]);
    assert!(key.unwrap(INFO, bytes).is_err(), "nobody wrapped it");
    let sealed = key.wrap_key().wrap(&mut Seeded::new(5), INFO, bytes);
    let Ok(mut sealed) = sealed else {
        return assert!(sealed.is_ok(), "it can be wrapped");
    };
    let opened = key.unwrap(INFO, &sealed);
    assert!(opened.is_ok_and(|opened| opened.expose() == bytes));
    assert!(key.unwrap(b"", &sealed).is_err());
    alter(&mut sealed, bytes);
    assert!(key.unwrap(INFO, &sealed).is_err());
}

/// A key, a signature and what it is over. Whoever has made a table of the key says the same.
fn signature(bytes: &[u8]) {
    let Some((key, rest)) = bytes.split_first_chunk::<32>() else {
        return;
    };
    let Some((signature, text)) = rest.split_first_chunk::<64>() else {
        return;
    };
    let Ok(key) = VerifyingKey::from_bytes(*key) else {
        return;
    };
    let (signature, over) = (Signature::from_bytes(*signature), digest("fuzz", &[text]));
    let verdict = key.verify(&over, &signature);
    let mut verifier = Verifier::default();
    for _ in 0..4 {
        assert_eq!(verifier.verify(&key, &over, &signature), verdict);
    }
}

/// The ends of an interval, and the keys of its nodes.
fn cover_keys(bytes: &[u8]) {
    let Some((ends, keys)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    let (from, until) = (number(&ends[..8]), number(&ends[8..]));
    let nodes = cover(from, until);
    assert!(nodes.len() <= COVER_NODES_MAX);
    assert!(
        nodes
            .windows(2)
            .all(|pair| pair[0].until() == pair[1].from())
    );
    let Ok(cover) = Cover::from_key_bytes(from, until, keys) else {
        return;
    };
    assert_eq!(cover.key_bytes().expose(), keys);
    let (from, until) = (cover.from(), cover.until());
    assert!(cover.contains(from) && !cover.contains(until));
    assert!(
        cover
            .narrow(from, until)
            .is_some_and(|same| same.key_bytes().expose() == keys)
    );
    let middle = from + (until - from) / 2;
    if let Some(half) = cover.narrow(middle, until) {
        assert!((half.from(), half.until()) == (middle, until));
        assert!(half.narrow(from, until).is_none() || middle == from);
    }
}

/// A value of a store, as it came and altered.
fn stored(bytes: &[u8]) {
    let key = StoreKey::init_with(|key| key.fill(7));
    assert!(key.open(INFO, bytes).is_err(), "nobody sealed it");
    let mut sealed = key.seal(&mut Seeded::new(6), INFO, bytes);
    let opened = key.open(INFO, &sealed);
    assert!(opened.is_ok_and(|opened| opened.expose() == bytes));
    alter(&mut sealed, bytes);
    assert!(key.open(INFO, &sealed).is_err());
}

/// Alters one byte, which one and how the first bytes say.
fn alter(sealed: &mut [u8], bytes: &[u8]) {
    let said = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(1));
    let at = (said(0) << 8 | said(1)) % sealed.len().max(1);
    if let Some(byte) = sealed.get_mut(at) {
        *byte ^= u8::try_from(said(2)).unwrap_or(1).max(1);
    }
}
