//! What a home drew by itself, learned from its folder, its passphrase and the bus.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::Decoder;
use rand_core::UnwrapErr;
use sealcast_bus::{Bus as _, FileBus, Offset, Topic};
use sealcast_crypto::{Cover, NodeId, SecretBytes, SessionRoot, StoreKey, delimited};
use sealcast_protocol::{EnvelopeView, SessionId, StreamId, StreamTopics};
use sealcast_store::{Key, KeyFile, Space, SqliteStore, Store as _};
use sha2::{Digest as _, Sha512};
use shake::{ExtendableOutput as _, Shake256, Update as _, XofReader as _};

/// Secrets and their names.
pub(crate) type Secrets = Vec<(String, Vec<u8>)>;

/// What a home keeps.
pub(crate) struct Kept {
    /// Needed as long as the home is open.
    pub(crate) lasting: Secrets,
    /// Needed for a moment only.
    pub(crate) passing: Secrets,
    pub(crate) roots: Vec<(SessionId, SessionRoot)>,
}

pub(crate) fn of_home(name: &str, folder: &Path, passphrase: &[u8]) -> Kept {
    let passphrase = SecretBytes::from(passphrase.to_vec());
    let file = folder.join("store.key");
    let key = KeyFile::open(&file, Some(&passphrase)).unwrap();
    let mut lasting = vec![(format!("store key of {name}"), key.expose().to_vec())];
    let guard = guard(&std::fs::read(&file).unwrap(), &key, passphrase.expose());
    let mut passing = vec![(format!("passphrase key of {name}"), guard)];
    let rng = Box::new(UnwrapErr(getrandom::SysRng));
    let store = SqliteStore::open(folder.join("store.db"), key, rng).unwrap();
    let identity = store.get(&Key::new(Space(1), *b"identity")).unwrap();
    let identity = identity.unwrap();
    let mut decoder = Decoder::new(identity.expose());
    decoder.array().unwrap();
    decoder.bytes().unwrap();
    for of in ["root seed", "signing seed"] {
        let seed = decoder.bytes().unwrap();
        lasting.push((format!("{of} of {name}"), seed.to_vec()));
        let expanded = expanded_signing(seed);
        passing.push((format!("expanded {of} of {name}"), expanded));
    }
    let mut unwrap_seeds = vec![("unwrap seed", decoder.bytes().unwrap().to_vec())];
    let fallbacks = store.get(&Key::new(Space(1), *b"fallbacks")).unwrap();
    let fallbacks = fallbacks.map(|of| of.expose().to_vec()).unwrap_or_default();
    if !fallbacks.is_empty() {
        let mut decoder = Decoder::new(&fallbacks);
        for _ in 0..decoder.array().unwrap().unwrap() {
            decoder.array().unwrap();
            decoder.u32().unwrap();
            let seed = decoder.bytes().unwrap().to_vec();
            unwrap_seeds.push(("fallback seed", seed));
        }
    }
    for (of, seed) in unwrap_seeds {
        let expanded = expanded_unwrap(&seed);
        passing.push((format!("expanded {of} of {name}"), expanded));
        lasting.push((format!("{of} of {name}"), seed));
    }
    let mut roots = Vec::new();
    for (key, root) in store.scan(Space(7), &[]).unwrap() {
        let session = SessionId(key.id[32..48].try_into().unwrap());
        lasting.push((format!("root of {name}"), root.expose().to_vec()));
        let root = SessionRoot::init_with(|bytes| bytes.copy_from_slice(root.expose()));
        roots.push((session, root));
    }
    for (_, cover) in store.scan(Space(8), &[]).unwrap() {
        lasting.push((format!("cover of {name}"), cover.expose()[64..].to_vec()));
    }
    Kept {
        lasting,
        passing,
        roots,
    }
}

/// What Ed25519 signs with (RFC 8032).
pub(crate) fn expanded_signing(seed: &[u8]) -> Vec<u8> {
    Sha512::digest(seed).to_vec()
}

/// The private keys of ML-KEM and X25519 that X-Wing takes from its seed.
pub(crate) fn expanded_unwrap(seed: &[u8]) -> Vec<u8> {
    let mut expanded = vec![0; 96];
    let mut shake = Shake256::default();
    shake.update(seed);
    shake.finalize_xof().read(&mut expanded);
    expanded
}

/// The key of one position.
pub(crate) fn leaf(root: &SessionRoot, at: u64) -> Vec<u8> {
    Cover::from_root(root, at, at + 1)
        .key_bytes()
        .expose()
        .to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of a message and its commitment, as `spec/key-tree.md` has them.
pub(crate) fn message_key(
    root: &SessionRoot,
    at: u64,
    stream: &[u8; 32],
    header: &[u8; 72],
) -> [u8; 56] {
    let leaf = leaf(root, at);
    let said = delimited("sealcast.v1 message key", &[stream, b"", header]);
    let mut key = [0; 56];
    blake3::Hasher::new_keyed(leaf.first_chunk().unwrap())
        .update(&said)
        .finalize_xof()
        .fill(&mut key);
    key
}

/// The key that a passphrase guards the store key with, found as `spec/store.md` says.
fn guard(file: &[u8], key: &StoreKey, passphrase: &[u8]) -> Vec<u8> {
    let (lock, sealed) = (&file[14..42], &file[42..]);
    let number = |at: usize| u32::from_be_bytes(lock[at..at + 4].try_into().unwrap());
    let params = Params::new(number(0), number(4), number(8), Some(32)).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let guard = StoreKey::init_with(|guard| {
        argon2
            .hash_password_into(passphrase, &lock[12..], guard)
            .unwrap();
    });
    let context = delimited("sealcast.v1 key file", &[&[1, 2], lock]);
    let opened = guard.open(&context, sealed).unwrap();
    assert_eq!(opened.expose(), key.expose());
    guard.expose().to_vec()
}

/// Every key between the roots and the messages on a bus, as `spec/key-tree.md` has them: those that
/// a reader of the lane may still hold, and those of messages.
pub(crate) async fn of_messages(
    bus: &Path,
    stream: StreamId,
    roots: &[(SessionId, SessionRoot)],
) -> (Secrets, Secrets) {
    let bus = FileBus::open(bus).await.unwrap();
    let topic = Topic::new(&StreamTopics(stream).data()).unwrap();
    let items = bus.read(&topic, Offset(0), 1 << 24).await.unwrap();
    let (mut nodes, mut messages) = (Vec::new(), Vec::new());
    for item in items {
        let envelope = EnvelopeView::parse(&item.payload).unwrap();
        let header = envelope.header();
        let (_, root) = roots.iter().find(|of| of.0 == header.session).unwrap();
        let (whole, at) = (Cover::whole(root), header.position.0);
        for depth in 1..=48 {
            let index = at >> (48 - depth);
            for index in [index, index ^ 1] {
                let depth = depth as u8;
                let key = whole.node_key(NodeId { depth, index }).unwrap();
                nodes.push((format!("node of depth {depth}"), key.expose().to_vec()));
            }
        }
        let key = message_key(root, at, &stream.0, envelope.header_bytes());
        assert_eq!(key[32..], envelope.commitment()[..]);
        messages.push(("message key".to_owned(), key[..32].to_vec()));
    }
    (nodes, messages)
}
