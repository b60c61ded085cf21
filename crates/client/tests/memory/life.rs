//! A whole life of two homes in one process (faults 15 and 18).

use sealcast::{
    Bound, BusUrl, GrantOptions, Home, InitOptions, Interval, Name, Passphrase, Position, Roles,
    State, Stream, StreamId, StreamOptions,
};
use sealcast_traces::{Needles, search_files};

use crate::child::{Inside, Watched, assert_none, draw, names};
use crate::keys::{self, Secrets};

const SINGLES: usize = 4;
const FRAMED: usize = 40;
const OLDER: usize = 8;
const LONG: usize = 70_000;

#[test]
fn nothing_is_left_of_a_home_that_was_dropped() {
    if let Some(inside) = Inside::new() {
        return live(inside);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Watched::start(
        "life::nothing_is_left_of_a_home_that_was_dropped",
        folder.path(),
    );
    let mut passing = Secrets::new();
    let mut drawn = |name: String| {
        let secret = draw::<48>().to_vec();
        passing.push((name, secret.clone()));
        secret
    };
    let planted = draw::<32>();
    child.give(&planted);
    // Kept from the bus and out of the folders, not out of memory.
    let names_given = ["alice", "bob", "stream", "contact"].map(|of| {
        let name = keys::hex(&draw::<16>()).into_bytes();
        child.give(&name);
        (format!("name of {of}"), name)
    });
    let passphrases = ["alice", "bob"].map(|of| drawn(format!("passphrase of {of}")));
    for passphrase in &passphrases {
        child.give(passphrase);
        child.give(passphrase);
    }
    for at in 0..SINGLES + FRAMED + OLDER {
        child.give(&drawn(format!("payload {at}")));
    }
    let (first, last) = (drawn("long payload".into()), drawn("end of it".into()));
    child.give(&[&first, &vec![0; LONG][..], &last].concat());
    let after = drawn("payload after the revocation".into());
    child.give(&after);
    let stream: StreamId = child.hear().parse().unwrap();
    assert_eq!(child.hear(), "open");

    let alice = keys::of_home("alice", &folder.path().join("alice"), &passphrases[0]);
    let bob = keys::of_home("bob", &folder.path().join("bob"), &passphrases[1]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bus = folder.path().join("bus");
    let messages = keys::of_messages(&bus, stream, &alice.roots);
    let (nodes, messages) = runtime.block_on(messages);
    let mut gone = needles(&[&passing, &alice.passing, &bob.passing, &messages]);
    let lasting = [alice.lasting, bob.lasting].concat();
    let here = needles(&[&lasting, &vec![("planted".into(), planted.to_vec())]]);

    let found = child.search(&here);
    for (name, _) in &lasting {
        assert!(names(&found).contains(&name.as_str()), "{name}");
    }
    assert!(names(&found).contains(&"planted"));
    assert_none("while the homes are open", &child.search(&gone));
    child.go_on();

    assert_eq!(child.hear(), "dropped");
    for (name, secret) in lasting.iter().chain(&nodes) {
        gone.add(name, secret);
    }
    let found = child.search(&needles(&[&vec![("planted".into(), planted.to_vec())]]));
    assert_eq!(names(&found), ["planted"]);
    assert_none("after the homes were dropped", &child.search(&gone));
    child.go_on();
    let printed = child.end();
    assert_none("printed", &gone.search("what was printed", &printed));
    for (name, secret) in &names_given {
        gone.add(name, secret);
    }
    for at in ["alice", "bob", "bus"] {
        assert_none(at, &search_files(&gone, &folder.path().join(at)).unwrap());
    }
}

fn needles(of: &[&Secrets]) -> Needles {
    let mut needles = Needles::new();
    for (name, secret) in of.iter().copied().flatten() {
        needles.add(name, secret);
    }
    needles
}

/// The child.
fn live(mut inside: Inside) {
    let planted = inside.take();
    let [of_alice, of_bob, of_stream, of_contact] = [(); 4].map(|()| name(&mut inside));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let alice = home(&mut inside, "alice", of_alice).await;
        let bob = home(&mut inside, "bob", of_bob).await;
        alice.add_contact(&of_contact, bob.user()).unwrap();
        let options = StreamOptions::default();
        let stream = alice.create_stream(&of_stream, options).await.unwrap();
        inside.say(&stream.id().to_string());
        publish(&mut inside, &stream).await;
        let joined = bob.join(stream.ticket(), None).await.unwrap();
        let grant = GrantOptions {
            user: bob.user(),
            roles: Roles::READER,
            from: Bound::At(Position::START),
            until: Bound::At(Position::END),
            reshare: false,
        };
        stream.grant(grant).await.unwrap();
        stream.rekey().await.unwrap();
        let mut following = joined.subscribe(None).await.unwrap();
        let long = inside.take();
        stream.publish(long.expose()).await.unwrap();
        let heard = following.next().await.unwrap();
        assert_eq!(heard.payload.as_deref(), Some(long.expose()));
        drop((heard, long));
        for stream in [&stream, &joined] {
            assert_eq!(opened(stream).await, SINGLES + FRAMED + OLDER + 1);
        }
        stream.revoke_user(bob.user()).await.unwrap();
        stream.publish(inside.take().expose()).await.unwrap();
        joined.sync().await.unwrap();
        inside.show("open");
        drop((following, stream, joined, alice, bob));
        inside.show("dropped");
    });
    drop(planted);
}

fn name(inside: &mut Inside) -> Name {
    let name = inside.take();
    std::str::from_utf8(name.expose()).unwrap().parse().unwrap()
}

async fn home(inside: &mut Inside, folder: &str, name: Name) -> Home {
    let options = InitOptions {
        name: Some(name),
        bus: Some(BusUrl::file(&inside.folder.join("bus")).unwrap()),
        passphrase: Passphrase::Given(inside.take()),
    };
    let path = inside.folder.join(folder);
    drop(Home::init(&path, options).await.unwrap());
    Home::open(&path, Some(&inside.take())).await.unwrap()
}

async fn publish(inside: &mut Inside, stream: &Stream) {
    for _ in 0..SINGLES {
        stream.publish(inside.take().expose()).await.unwrap();
    }
    let mut publisher = stream.publisher().await.unwrap();
    for _ in 0..FRAMED {
        publisher.send(inside.take().expose()).await.unwrap();
    }
    publisher.finish().await.unwrap();
    let mut backfill = stream.backfill().await.unwrap();
    for at in 0..OLDER {
        let time = Position(1_700_000_000_000 + at as u64);
        backfill.send(time, inside.take().expose()).await.unwrap();
    }
    backfill.finish().await.unwrap();
}

async fn opened(stream: &Stream) -> usize {
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    let mut opened = 0;
    while let Some(delivery) = reader.next().await.unwrap() {
        opened += usize::from(delivery.state == State::Opened);
    }
    opened
}
