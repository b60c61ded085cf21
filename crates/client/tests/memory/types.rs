//! Every type that holds a secret wipes it when it is dropped (fault 18).

use std::any::Any;

use sealcast::{Delivery, InitOptions, Passphrase, Payload, State};
use sealcast_crypto::{
    Cover, MessageContext, MessageKey, NodeId, NodeKey, PairingKey, SecretBytes, SessionRoot,
    SigningKey, StoreKey, UnwrapKey, Walker, leaving_no_trace,
};
use sealcast_engine::{
    Asker, AskerInput, AskerLimits, ControlTopic, Fallbacks, Identity, Newcomer, OneUse, Publisher,
    Put, Space, StreamView, genesis,
};
use sealcast_protocol::{
    CardList, Frame, Interval, OpenFrame, Position, RequestId, SessionId, Sharing, StreamId,
    UserId, Want,
};
use sealcast_store::{Key, MemoryStore, SqliteStore, Store as _};
use sealcast_traces::Needles;

use crate::child::{Inside, Watched, assert_none, draw, names};
use crate::keys::{self, Secrets};

const AT: u64 = 0x9234_5678_9abc;
const CONTEXT: MessageContext<'static> = MessageContext {
    stream: &[1; 32],
    topic: b"",
    header: &[2; 72],
};

/// A type, how to make one of a secret, and what it holds then.
struct Case {
    name: &'static str,
    make: fn(&[u8; 32]) -> Box<dyn Any>,
    holds: fn(&[u8; 32]) -> Vec<u8>,
}

const fn case(
    name: &'static str,
    make: fn(&[u8; 32]) -> Box<dyn Any>,
    holds: fn(&[u8; 32]) -> Vec<u8>,
) -> Case {
    Case { name, make, holds }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("SecretBytes", |secret| Box::new(SecretBytes::from(secret.to_vec())), itself),
    case("SessionRoot", |secret| Box::new(root(secret)), itself),
    case("NodeKey", |secret| Box::new(NodeKey::init_with(|of| *of = *secret)), itself),
    case("Cover of a session", |secret| Box::new(Cover::whole(&root(secret))), itself),
    case("Cover of an interval", |secret| Box::new(interval(secret)), |secret| {
        interval(secret).key_bytes().expose().to_vec()
    }),
    case("Walker", |secret| Box::new(walker(secret)), |secret| node(secret, 20)),
    case("Leaf", |secret| Box::new(walker(secret)), |secret| node(secret, 48)),
    case("MessageKey", |secret| Box::new(message_key(secret)), |secret| {
        keys::message_key(&root(secret), AT, CONTEXT.stream, CONTEXT.header)[..32].to_vec()
    }),
    case("SigningKey", |secret| Box::new(SigningKey::from_seed(secret)), itself),
    case("UnwrapKey", |secret| Box::new(UnwrapKey::from_seed(secret)), itself),
    case("StoreKey", |secret| Box::new(StoreKey::init_with(|of| *of = *secret)), itself),
    case("Frame", |secret| Box::new(frame(secret)), itself),
    case("plaintext of a Frame", |secret| Box::new(frame(secret).plaintext(Position(AT))), itself),
    case("OpenFrame", |secret| Box::new(open_frame(secret)), itself),
    case("Identity", |secret| Box::new(identity(secret)), itself),
    case("stored Identity", |secret| Box::new(identity(secret).to_bytes()), itself),
    case("Fallbacks", |secret| Box::new(fallbacks(secret)), itself),
    case("stored Fallbacks", |secret| Box::new(fallbacks(secret).to_bytes()), itself),
    case("copied Fallbacks", |secret| Box::new(fallbacks(secret).duplicate()), itself),
    case("Newcomer", |secret| Box::new(newcomer(secret)), itself),
    case("stored Newcomer", |secret| Box::new(newcomer(secret).to_bytes()), itself),
    case("PairingKey", |secret| Box::new(pairing_key(secret)), |secret| {
        let code: &[u8] = &secret[..16];
        sealcast_crypto::digest("sealcast.v1 pairing key", &[code]).as_bytes().to_vec()
    }),
    case("Publisher", |secret| Box::new(publisher(secret)), itself),
    case("StreamView with a root", |secret| Box::new(view(secret)), itself),
    case("Asker", |secret| Box::new(asker(secret)), itself),
    case("Put", |secret| Box::new(put(secret)), itself),
    case("MemoryStore", |secret| Box::new(memory_store(secret)), itself),
    case("SqliteStore", |secret| Box::new(sqlite_store(secret)), itself),
    case("Passphrase", |secret| Box::new(options(secret)), itself),
    case("Delivery", |secret| Box::new(delivery(secret)), itself),
    case("cloned Delivery", |secret| Box::new(delivery(secret).clone()), itself),
];

#[test]
fn every_type_wipes_what_it_held() {
    if let Some(mut inside) = Inside::new() {
        for case in CASES {
            let secret = inside.take();
            let make = || (case.make)(secret.expose().first_chunk().unwrap());
            let held = leaving_no_trace(make);
            drop(secret);
            inside.show("held");
            leaving_no_trace(|| drop(held));
            inside.show("dropped");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Watched::start("types::every_type_wipes_what_it_held", folder.path());
    let mut all = Needles::new();
    for case in CASES {
        let secret = draw::<32>();
        child.give(&secret);
        let (mut here, mut gone) = (Needles::new(), Needles::new());
        here.add(case.name, &(case.holds)(&secret));
        for (name, secret) in grown(case.name, &secret) {
            gone.add(&name, &secret);
            all.add(&name, &secret);
        }
        gone.add(case.name, &(case.holds)(&secret));
        assert_eq!(child.hear(), "held");
        assert_eq!(names(&child.search(&here)), [case.name]);
        child.go_on();
        assert_eq!(child.hear(), "dropped");
        assert_none(case.name, &child.search(&gone));
        child.go_on();
    }
    assert_none("printed", &all.search("what was printed", &child.end()));
}

/// A secret and all that a key of any kind makes of it.
fn grown(name: &str, secret: &[u8; 32]) -> Secrets {
    let of = |what: &str| format!("{what} of {name}");
    vec![
        (of("secret"), secret.to_vec()),
        (of("expanded signing key"), keys::expanded_signing(secret)),
        (of("expanded unwrap key"), keys::expanded_unwrap(secret)),
        (of("node"), node(secret, 20)),
        (of("leaf"), node(secret, 48)),
    ]
}

fn itself(secret: &[u8; 32]) -> Vec<u8> {
    secret.to_vec()
}

fn root(secret: &[u8; 32]) -> SessionRoot {
    SessionRoot::init_with(|of| *of = *secret)
}

fn interval(secret: &[u8; 32]) -> Cover {
    Cover::from_root(&root(secret), AT - 1000, AT + 1000)
}

fn walker(secret: &[u8; 32]) -> Walker {
    let mut walker = Walker::new(Cover::whole(&root(secret)));
    assert!(walker.leaf(AT).is_some());
    walker
}

fn node(secret: &[u8; 32], depth: u8) -> Vec<u8> {
    let index = AT >> (48 - depth);
    let key = Cover::whole(&root(secret)).node_key(NodeId { depth, index });
    key.unwrap().expose().to_vec()
}

fn message_key(secret: &[u8; 32]) -> MessageKey {
    MessageKey::derive(&walker(secret).leaf(AT).unwrap(), &CONTEXT)
}

fn frame(secret: &[u8; 32]) -> Frame {
    let mut frame = Frame::with_capacity(1024);
    frame.push(Position(AT), secret).unwrap();
    frame
}

fn open_frame(secret: &[u8; 32]) -> OpenFrame {
    OpenFrame::decode(frame(secret).plaintext(Position(AT)), Position(AT)).unwrap()
}

/// A device whose keys are all the same.
fn identity(secret: &[u8; 32]) -> Identity {
    let mut stored = SecretBytes::with_capacity(137);
    stored.extend_from_slice(&[0x84]);
    let user = [2; 32];
    for field in [&user, secret, secret, secret] {
        stored.extend_from_slice(&[0x58, 0x20]);
        stored.extend_from_slice(field);
    }
    Identity::from_bytes(stored.expose()).unwrap()
}

/// The fallback keys of two weeks, both the same.
fn fallbacks(secret: &[u8; 32]) -> Fallbacks {
    let mut stored = SecretBytes::with_capacity(73);
    stored.extend_from_slice(&[0x82]);
    for period in [1, 2] {
        stored.extend_from_slice(&[0x82, period, 0x58, 0x20]);
        stored.extend_from_slice(secret);
    }
    Fallbacks::from_bytes(stored.expose()).unwrap()
}

/// A device that waits, whose keys are the same.
fn newcomer(secret: &[u8; 32]) -> Newcomer {
    let mut stored = SecretBytes::with_capacity(87);
    stored.extend_from_slice(&[0x84]);
    for field in [secret, secret] {
        stored.extend_from_slice(&[0x58, 0x20]);
        stored.extend_from_slice(field);
    }
    stored.extend_from_slice(&[0x50]);
    stored.extend_from_slice(&[5; 16]);
    stored.extend_from_slice(&[0x40]);
    Newcomer::from_bytes(stored.expose()).unwrap()
}

fn pairing_key(secret: &[u8; 32]) -> PairingKey {
    PairingKey::derive(secret.first_chunk().unwrap())
}

fn publisher(secret: &[u8; 32]) -> Publisher {
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    Publisher::new(StreamId([1; 32]), &identity(secret), &mut rng)
}

fn view(secret: &[u8; 32]) -> StreamView {
    let of = identity(&draw());
    let mut view = StreamView::new(StreamId([1; 32]), UserId([2; 32]), &of);
    let value = SecretBytes::from(secret.to_vec());
    view.restore_root(SessionId([3; 16]), &value);
    view
}

/// With an open request.
fn asker(secret: &[u8; 32]) -> Asker {
    let now = Position(AT);
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let of = Identity::generate(&mut rng);
    let user = of.user();
    let (stream, first) = genesis(&of, &mut rng, now, Sharing::OnRequest, false).unwrap();
    let mut view = StreamView::new(stream, user, &of);
    let root = of.root().unwrap();
    let entry = CardList::new(user).append(root, now, of.card(now)).unwrap();
    view.handle(&ControlTopic::Devices(user), entry.wire());
    view.handle(&ControlTopic::Access(user, of.device()), first.wire());
    view.settle();
    let mut asker = Asker::new(AskerLimits::default());
    let want = Want {
        lane: UserId([2; 32]),
        session: SessionId([3; 16]),
        interval: Interval::ALL,
    };
    asker.handle(now, &view, AskerInput::Want(want));
    let drawn = OneUse {
        request: RequestId([4; 16]),
        key: UnwrapKey::from_seed(secret),
    };
    asker.handle(now, &view, AskerInput::Drawn(drawn));
    while asker.poll_output().is_some() {}
    assert_eq!(asker.open_requests(), 1);
    asker
}

fn put(secret: &[u8; 32]) -> Put {
    Put {
        space: Space::Root,
        id: vec![1; 16],
        value: SecretBytes::from(secret.to_vec()),
    }
}

fn memory_store(secret: &[u8; 32]) -> MemoryStore {
    let store = MemoryStore::default();
    let key = Key::new(sealcast_store::Space(1), [1]);
    store.transact(&mut |txn| txn.put(&key, secret)).unwrap();
    store
}

fn sqlite_store(secret: &[u8; 32]) -> SqliteStore {
    let path = Inside::folder().unwrap().join("store.db");
    let key = StoreKey::init_with(|of| *of = *secret);
    let rng = Box::new(rand_core::UnwrapErr(getrandom::SysRng));
    let store = SqliteStore::open(path, key, rng).unwrap();
    let key = Key::new(sealcast_store::Space(1), [1]);
    store.transact(&mut |txn| txn.put(&key, secret)).unwrap();
    assert_eq!(store.get(&key).unwrap().unwrap().expose(), secret);
    store
}

fn options(secret: &[u8; 32]) -> InitOptions {
    InitOptions {
        name: None,
        bus: None,
        passphrase: Passphrase::Given(SecretBytes::from(secret.to_vec())),
    }
}

fn delivery(secret: &[u8; 32]) -> Delivery {
    Delivery {
        time: Position(AT),
        publisher: None,
        device: None,
        seq: None,
        topic: None,
        state: State::Opened,
        payload: Some(Payload::from(secret.to_vec())),
        reason: None,
        parked: sealcast::Parked::No,
    }
}
