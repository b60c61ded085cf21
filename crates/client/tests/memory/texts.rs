//! No error, no panic and no `Debug` shows a secret that it was given (fault 18).

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sealcast::{
    BusUrl, Home, InitOptions, Interval, Passphrase, Position, SecretBytes, Stream, StreamOptions,
    Ticket,
};
use sealcast_bus::{Bus as _, FileBus, Topic};
use sealcast_crypto::{
    Cover, MessageContext, MessageKey, NodeKey, SessionRoot, SigningKey, StoreKey, UnwrapKey,
    Walker,
};
use sealcast_engine::{Identity, Put, Space};
use sealcast_protocol::{Draft, Frame, OpenFrame, Records, StreamTopics, decode};
use sealcast_store::{Key, MemoryStore, Store as _};
use sealcast_traces::Needles;

use crate::child::{assert_none, draw};
use crate::keys;

/// Texts that were shown, to be searched.
#[derive(Default)]
struct Shown {
    text: String,
    count: usize,
}

impl Shown {
    /// Takes an error in all its forms, with its causes.
    fn error(&mut self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            writeln!(self.text, "{error} {error:?} {error:#?}").unwrap();
            next = error.source();
        }
        self.count += 1;
    }

    fn failed<T, E: Error + 'static>(&mut self, result: Result<T, E>) {
        match result {
            Ok(_) => panic!("this was to fail"),
            Err(error) => self.error(&error),
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        writeln!(self.text, "{value:?} {value:#?} {value:x?}").unwrap();
        self.count += 1;
    }

    fn panicked(&mut self, work: impl FnOnce()) {
        let panicked = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        let text = panicked.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
        writeln!(self.text, "{}", text.unwrap()).unwrap();
        self.count += 1;
    }

    /// Insists that none of the secrets was shown.
    fn finish(&self, secrets: &[(&str, &[u8])]) {
        let mut needles = Needles::new();
        for (name, secret) in secrets {
            needles.add(*name, secret);
        }
        assert_none(
            "texts",
            &needles.search("what was shown", self.text.as_bytes()),
        );
    }
}

#[test]
fn debug_and_panics_of_types_show_no_secret() {
    let secret = draw::<32>();
    let bytes = || SecretBytes::from(secret.to_vec());
    let root = SessionRoot::init_with(|of| *of = secret);
    let mut walker = Walker::new(Cover::whole(&root));
    let leaf = walker.leaf(5).unwrap();
    let context = MessageContext {
        stream: &[1; 32],
        topic: b"",
        header: &[2; 72],
    };
    let key = MessageKey::derive(&leaf, &context);
    let mut frame = Frame::with_capacity(1024);
    frame.push(Position(5), &secret).unwrap();
    let plaintext = frame.plaintext(Position(5));
    let open = OpenFrame::decode(frame.plaintext(Position(5)), Position(5)).unwrap();
    let mut shown = Shown::default();
    shown.debug(&open);
    shown.debug(&leaf);
    shown.debug(&key);
    shown.debug(&walker);
    shown.debug(&root);
    shown.debug(&frame);
    shown.debug(&Draft::Single(&secret));
    shown.debug(&Records::decode(plaintext.expose(), Position(5), true).unwrap());
    shown.debug(
        &Records::decode(plaintext.expose(), Position(5), true)
            .unwrap()
            .next(),
    );
    shown.debug(&NodeKey::init_with(|of| *of = secret));
    shown.debug(&Cover::from_root(&root, 3, 9));
    shown.debug(&SigningKey::from_seed(&secret));
    shown.debug(&UnwrapKey::from_seed(&secret));
    shown.debug(&StoreKey::init_with(|of| *of = secret));
    shown.debug(&Passphrase::Given(bytes()));
    shown.debug(&Put {
        space: Space::Root,
        id: Vec::new(),
        value: bytes(),
    });
    let store = MemoryStore::default();
    let place = Key::new(sealcast_store::Space(1), [1]);
    store.transact(&mut |txn| txn.put(&place, &secret)).unwrap();
    shown.debug(&store);
    shown.debug(&store.get(&place));
    shown.failed(decode::<u64>(&secret, 64));
    shown.failed(Records::decode(&secret, Position(5), true));
    shown.failed(frame.push(Position(5), &[&secret[..]; 40].concat()));
    shown.failed(key.open(&context, &secret));
    shown.failed(StoreKey::init_with(|of| *of = secret).open(&secret, &secret));
    shown.failed(UnwrapKey::from_seed(&secret).unwrap(&secret, &secret));
    shown.failed(Cover::from_key_bytes(3, 9, &secret[1..]));
    shown.panicked(|| SecretBytes::with_capacity(8).extend_from_slice(&secret));
    shown.panicked(|| key.seal_in_place(&context, &mut secret.to_vec(), 33));
    assert_eq!(Identity::from_bytes(&secret).map(|_| ()), None);
    shown.finish(&[
        ("secret", &secret),
        ("node", &keys::leaf(&root, 5)),
        (
            "message key",
            &keys::message_key(&root, 5, &[1; 32], &[2; 72])[..32],
        ),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_home_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("home");
    let (right, wrong) = (draw::<32>(), draw::<32>());
    let passphrase = |of: &[u8]| SecretBytes::from(of.to_vec());
    let options = |of: &[u8]| InitOptions {
        name: None,
        bus: None,
        passphrase: Passphrase::Given(passphrase(of)),
    };
    let mut shown = Shown::default();
    shown.debug(&options(&right));
    shown.failed(Home::init(&folder.path().join("other"), options(b"")).await);
    drop(Home::init(&path, options(&right)).await.unwrap());
    shown.failed(Home::init(&path, options(&wrong)).await);
    shown.failed(Home::open(&path, None).await);
    shown.failed(Home::open(&path, Some(&passphrase(&wrong))).await);
    let kept = keys::of_home("kim", &path, &right);
    for file in ["store.key", "store.db"] {
        for at in [0, 12, 30, 90, 4_000, 5_000] {
            let altered = alter(&path.join(file), at);
            if let Err(error) = Home::open(&path, Some(&passphrase(&right))).await {
                shown.error(&error);
            }
            fs::write(path.join(file), altered).unwrap();
        }
        let whole = fs::read(path.join(file)).unwrap();
        fs::write(path.join(file), &whole[..whole.len() / 2]).unwrap();
        shown.failed(Home::open(&path, Some(&passphrase(&right))).await);
        fs::write(path.join(file), whole).unwrap();
    }
    assert!(shown.count > 10, "{}", shown.count);
    let mut secrets: Vec<(&str, &[u8])> = vec![("passphrase", &right), ("wrong", &wrong)];
    let kept = kept.lasting.iter().chain(&kept.passing);
    secrets.extend(kept.map(|(name, secret)| (name.as_str(), secret.as_slice())));
    shown.finish(&secrets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_and_errors_of_a_stream_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("home");
    let (passphrase, payload) = (draw::<32>(), draw::<64>());
    let options = InitOptions {
        name: None,
        bus: None,
        passphrase: Passphrase::Given(SecretBytes::from(passphrase.to_vec())),
    };
    let home = Home::init(&path, options).await.unwrap();
    let name = "kitchen".parse().unwrap();
    let stream = home.create_stream(&name, StreamOptions::default());
    let stream = stream.await.unwrap();
    let mut shown = Shown::default();
    shown.debug(&home);
    shown.debug(&stream.publish(&payload).await);
    let mut publisher = stream.publisher().await.unwrap();
    publisher.send(&payload).await.unwrap();
    shown.debug(&publisher);
    publisher.finish().await.unwrap();
    let long = payload.repeat(300_000);
    shown.failed(stream.publish(&long).await);
    shown.failed(stream.publisher().await.unwrap().send(&long).await);
    let mut backfill = stream.backfill().await.unwrap();
    backfill.send(Position(7), &payload).await.unwrap();
    shown.debug(&backfill);
    shown.failed(backfill.send(Position(6), &payload).await);
    shown.failed(backfill.send(Position(8), &long).await);
    backfill.finish().await.unwrap();
    shown.debug(&stream);
    put_garbage(&path.join("bus"), &stream, &payload).await;
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    let mut opened = 0;
    while let Some(delivery) = reader.next().await.unwrap() {
        opened += usize::from(delivery.payload.is_some());
        shown.debug(&reader);
        shown.debug(&delivery);
        shown.debug(&delivery.payload);
    }
    assert_eq!(opened, 3);
    let mut following = stream.subscribe(Some(Position(0))).await.unwrap();
    following.next().await.unwrap();
    shown.debug(&following);
    shown.failed(Ticket::parse(&format!("sealcast1:{}", keys::hex(&payload))));
    let url = format!("mqtt://kim:{}@localhost/", keys::hex(&payload));
    shown.failed(BusUrl::parse(&url));
    let kept = keys::of_home("kim", &path, &passphrase);
    let mut secrets: Vec<(&str, &[u8])> = vec![("passphrase", &passphrase), ("payload", &payload)];
    let kept = kept.lasting.iter().chain(&kept.passing);
    secrets.extend(kept.map(|(name, secret)| (name.as_str(), secret.as_slice())));
    shown.finish(&secrets);
}

/// Plaintext, and a message that was altered, as anybody may put them there.
async fn put_garbage(bus: &Path, stream: &Stream, payload: &[u8]) {
    let bus = FileBus::open(bus).await.unwrap();
    let topic = Topic::new(&StreamTopics(stream.id()).data()).unwrap();
    let items = bus.read(&topic, sealcast_bus::Offset(0), 1 << 20).await;
    let mut altered = items.unwrap()[0].payload.clone();
    altered[100] ^= 1;
    bus.append(&topic, vec![altered, payload.to_vec()])
        .await
        .unwrap();
}

/// Flips a byte of a file, and returns what it held.
fn alter(path: &Path, at: usize) -> Vec<u8> {
    let held = fs::read(path).unwrap();
    let mut altered = held.clone();
    if let Some(byte) = altered.get_mut(at) {
        *byte ^= 0x10;
    }
    fs::write(path, altered).unwrap();
    held
}
