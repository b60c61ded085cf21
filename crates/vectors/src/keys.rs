//! Digests, the key tree, covers, messages, signatures and wrapping.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::{
    Cover, Digest, MessageContext, MessageKey, NodeId, SessionRoot, Signature, SigningKey,
    UnwrapKey, VerifyingKey, Walker, WrapKey, bulk_digest, cover, delimited, digest,
};
use sealcast_protocol::wrap_key_hash;

use crate::case::{Given, Lines, Outcome, must, named};

const COVER: &[(&str, &str)] = &[
    ("EmptyInterval", "empty interval"),
    ("KeyLength", "key length"),
];
pub(crate) const KEY: &[(&str, &str)] = &[
    ("Length", "key length"),
    ("NotCanonical", "not canonical"),
    ("SmallOrder", "small order"),
];

/// Signing is a function of key and digest, so that it can be tried by vectors too.
pub(crate) const SIGNED_AGAIN: &str = "the seed does not give the same bytes";
/// What is sealed or wrapped here opens.
pub(crate) const OPENS: &str = "what was sealed does not open";

/// Randomness that is written down, once; zeros behind it.
pub(crate) struct Drawn(pub(crate) Vec<u8>);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let taken = bytes.len().min(self.0.len());
        bytes[..taken].copy_from_slice(&self.0[..taken]);
        self.0.drain(..taken);
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

pub(crate) fn root(given: &mut Given) -> Result<SessionRoot, String> {
    let root: [u8; 32] = given.array("root")?;
    Ok(SessionRoot::init_with(|bytes| *bytes = root))
}

/// `from`, `until` and `keys`.
pub(crate) fn held(given: &mut Given) -> Result<Result<Cover, String>, String> {
    let (from, until) = (given.number("from")?, given.number("until")?);
    let keys = given.bytes("keys")?;
    let cover = Cover::from_key_bytes(from, until, &keys);
    Ok(cover.map_err(|error| named(COVER)(&error)))
}

/// `label` and every `part`.
fn parts(given: &mut Given) -> Result<(String, Vec<Vec<u8>>), String> {
    Ok((given.text("label")?, given.each("part")?))
}

fn digest_of((label, parts): &(String, Vec<Vec<u8>>)) -> Digest {
    digest(label, &borrowed(parts))
}

fn borrowed(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

pub(crate) fn digests(given: &mut Given) -> Outcome {
    let said = parts(given)?;
    Lines::default()
        .hex("delimited", delimited(&said.0, &borrowed(&said.1)))
        .hex("digest", digest_of(&said).as_bytes())
        .done()
}

pub(crate) fn bulk_digests(given: &mut Given) -> Outcome {
    let digest = bulk_digest(&given.text("label")?, &given.bytes("bytes")?);
    Lines::default().hex("digest", digest.as_bytes()).done()
}

pub(crate) fn tree(given: &mut Given) -> Outcome {
    let root = root(given)?;
    let Some(depth) = given.maybe_number("depth")? else {
        let commitment = root.commitment();
        return Lines::default().hex("commitment", commitment).done();
    };
    let depth = u8::try_from(depth).map_err(|_| "no depth")?;
    let index = given.number("index")?;
    let key = Cover::whole(&root).node_key(NodeId { depth, index });
    Lines::default()
        .hex("key", key.ok_or("outside")?.expose())
        .done()
}

pub(crate) fn covers(given: &mut Given) -> Outcome {
    if let Ok(root) = root(given) {
        let (from, until) = (given.number("from")?, given.number("until")?);
        let keys = Cover::from_root(&root, from, until).key_bytes();
        let again = Cover::from_key_bytes(from, until, keys.expose());
        let again = again.map_err(|error| named(COVER)(&error))?;
        must(again.nodes() == cover(from, until), "a cover has its nodes")?;
        return Lines::default()
            .each(again.nodes(), |lines, node| {
                lines.text("node", format!("{} {}", node.depth, node.index))
            })
            .hex("keys", keys.expose())
            .done();
    }
    let held = held(given)?;
    let narrow = given.maybe_number("narrow-from")?;
    let narrow = narrow.zip(given.maybe_number("narrow-until")?);
    let (from, until) = narrow.unwrap_or_default();
    let narrow = held?.narrow(from, until).ok_or("outside")?;
    Lines::default()
        .hex("narrow-keys", narrow.key_bytes().expose())
        .done()
}

pub(crate) fn messages(given: &mut Given) -> Outcome {
    let mut walker = Walker::new(Cover::whole(&root(given)?));
    let leaf = walker.leaf(given.number("position")?).ok_or("outside")?;
    let (stream, topic) = (given.array("stream")?, given.bytes("topic")?);
    let header = given.array("header")?;
    let context = MessageContext {
        stream: &stream,
        topic: &topic,
        header: &header,
    };
    let key = MessageKey::derive(&leaf, &context);
    let authentic = |sealed: &[u8]| {
        let opened = key.open(&context, sealed);
        opened.map_err(|_| "not authentic".to_owned())
    };
    let Some(plaintext) = given.maybe_bytes("plaintext")? else {
        let opened = authentic(&given.bytes("sealed")?)?;
        return Lines::default().hex("plaintext", opened).done();
    };
    let sealed = key.seal(&context, plaintext.clone());
    must(authentic(&sealed) == Ok(plaintext), OPENS)?;
    Lines::default()
        .hex("commitment", key.commitment())
        .hex("sealed", sealed)
        .done()
}

pub(crate) fn signatures(given: &mut Given) -> Outcome {
    let (key, said) = (given.array("public-key")?, digest_of(&parts(given)?));
    let signature = Signature::from_bytes(given.array("signature")?);
    let seed = given.maybe_array("signing-seed")?;
    let key = VerifyingKey::from_bytes(key).map_err(|error| named(KEY)(&error))?;
    key.verify(&said, &signature).map_err(|_| "signature")?;
    if let Some(seed) = seed {
        let signed = SigningKey::from_seed(&seed).sign(&said);
        must(signed == signature, SIGNED_AGAIN)?;
    }
    Lines::default().hex("digest", said.as_bytes()).done()
}

pub(crate) fn wrap_keys(given: &mut Given) -> Outcome {
    let key = WrapKey::from_bytes(&given.bytes("wrap-key")?);
    let key = key.map_err(|error| named(KEY)(&error))?;
    Lines::default().hex("hash", wrap_key_hash(&key)).done()
}

pub(crate) fn wraps(given: &mut Given) -> Outcome {
    let key = UnwrapKey::from_seed(&given.array("unwrap-seed")?);
    let info = given.bytes("info")?;
    let Some(seed) = given.maybe_bytes("encapsulation-seed")? else {
        let opened = key.unwrap(&info, &given.bytes("wrapped")?);
        let opened = opened.map_err(|_| "not authentic")?;
        return Lines::default().hex("plaintext", opened.expose()).done();
    };
    let (to, plaintext) = (key.wrap_key(), given.bytes("plaintext")?);
    let wrapped = to.wrap(&mut Drawn(seed), &info, &plaintext);
    let wrapped = wrapped.map_err(|error| error.to_string())?;
    let opened = key.unwrap(&info, &wrapped).map_err(|_| "not authentic")?;
    must(opened.expose() == plaintext, OPENS)?;
    Lines::default()
        .hex("wrap-key", to.as_bytes())
        .hex("wrapped", wrapped)
        .done()
}
