//! What fuzzing starts from where `vectors/` has nothing.

use sealcast_crypto::{PairingKey, SigningKey, digest};
use sealcast_engine::{Fallbacks, Identity, Lane, Newcomer, Tracker};
use sealcast_protocol::{
    DeviceId, EnvelopeHash, Flags, Header, InstanceId, ListBytes, ListPin, PairingCode,
    PairingItem, Position, SessionId, Suite, UserId, Welcome, encode, sign,
};

use crate::seeded::Seeded;

const NOON: Position = Position(1_790_000_000_000);

const CONFIG: &str = r#"[agent]
listen = "127.0.0.1:9464"
archive = "file:archive"
log = "info"
log_format = "json"

[asking]
key_request_timeout = "30s"
max_key_requests_per_second = 20
answers = true

[parking]
bytes_max = "256 MiB"
publisher_bytes_max = "64 MiB"
age_max = "30d"

[decisions]
policy = "exec"
ask_timeout = "24h"
exec = ["decide", "--now"]
exec_timeout = "10s"
"#;

const TEXTS: &[(&str, &str, &str)] = &[
    (
        "agent_line",
        "delivery",
        r#"{"time":"2026-09-21T14:13:20.000Z","publisher":null,"device":"d09a37f6581cf23746ce21fcffeeb8a3","seq":0,"state":"opened","text":"21.5 C"}"#,
    ),
    (
        "agent_line",
        "bytes",
        r#"{"time":"2026-09-21T14:13:20.000Z","seq":1,"state":"opened","base64":"/wA=","parked":"waited"}"#,
    ),
    (
        "agent_line",
        "gap",
        r#"{"time":"2026-09-21T14:13:20.000Z","state":"gap","reason":"missing: 3"}"#,
    ),
    ("agent_line", "waiting", r#"{"waiting":7}"#),
    (
        "agent_line",
        "alarm",
        r#"{"alarm":"the bus went back","hint":"ask who runs it"}"#,
    ),
    ("bus_url", "relative", "file:bus"),
    ("bus_url", "absolute", "file:///var/bus"),
    ("bus_url", "local", "file://localhost/var/bus"),
    ("bus_url", "elsewhere", "mqtts://broker.example:8883"),
    (
        "bus_url",
        "users-topics",
        "mqtt://broker.example/plant?topics=plant/#&retain=plant/+/state",
    ),
    ("bus_url", "topic", "s/1f00/data/kitchen"),
    ("config", "whole", CONFIG),
    (
        "config",
        "url",
        "[decisions]\npolicy = \"url\"\nurl = \"http://127.0.0.1:80/ask\"\nurl_timeout = \"1s\"\n",
    ),
    ("ids", "name", "boiler room"),
    (
        "inspect",
        "age",
        "age-encryption.org/v1\n-> X25519 SVrzdFfkPxf0LPHOUGB1gNb9E5Vr8EUDa9kxk04iQ0o\n0OrTkKHpE7klNLd0k+9Uam5hkQkzMxaqKcIPRIO1sNE\n--- gxhoSa5BciRDt8lOpYNcx4EYtKpS0CJ06F3ZwN82VaM\n",
    ),
    (
        "inspect",
        "armor",
        "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCA\n-----END AGE ENCRYPTED FILE-----\n",
    ),
    (
        "inspect",
        "recipient",
        "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm",
    ),
];

/// Packets as a broker sends them, of MQTT 5 where nothing else is said.
const PACKETS: &[(&str, &[u8])] = &[
    ("welcome-three", b"\x20\x02\x01\x00"),
    (
        "welcome",
        b"\x20\x1c\x00\x00\x19\x21\x00\x14\x1f\x00\x01w\x27\x00\x00\x10\x00\x26\x00\x01a\x00\x00\x12\x00\x00\x24\x01\x25\x00",
    ),
    ("turned", b"\x20\x03\x00\x84\x00"),
    ("message", b"\x33\x0a\x00\x03a/b\x00\x07\x00xy"),
    ("message-three", b"\x32\x09\x00\x03a/b\x00\x07xy"),
    ("message-unacknowledged", b"\x30\x08\x00\x03a/b\x00xy"),
    ("published", b"\x40\x04\x00\x07\x10\x00"),
    ("subscribed", b"\x90\x05\x00\x01\x00\x01\x80"),
    ("pong", b"\xd0\x00"),
    ("goodbye", b"\xe0\x02\x8e\x00"),
];

/// The same for a proxy, of either side.
const PROXY_PACKETS: &[(&str, &[u8])] = &[
    ("connect", b"\x10*\x00\x04MQTT\x05\xce\x00<\x05'\x00\x00\x01\x00\x00\x01c\x07\x18\x00\x00\x00\x01\x01\x01\x00\x01w\x00\x04gone\x00\x01u\x00\x01p"),
    ("connect-three", b"\x10\x16\x00\x04MQTT\x04.\x00<\x00\x01c\x00\x01w\x00\x04gone"),
    ("welcome", b"\x20\x0b\x00\x00\x08'\x00\x00\x10\x00\x13\x00\x07"),
    ("welcome-three", b"\x20\x02\x01\x00"),
    ("message", b"3\x16\x00\x03a/b\x00\x07\x0c\x01\x01#\x00\x01&\x00\x01k\x00\x01vxy"),
    ("message-three", b"4\x09\x00\x03a/b\x00\x07xy"),
    ("by-alias", b"0\x08\x00\x00\x03#\x00\x01xy"),
    ("handshake", b"P\x02\x00\x07b\x02\x00\x07p\x02\x00\x07\xc0\x00\xe0\x01\x8b"),
];

/// Frames as a page sends them.
const FRAMES: &[(&str, &[u8])] = &[
    ("packet", b"\x82\x82\x01\x02\x03\x04\xc1\x02"),
    (
        "in-two",
        b"\x02\x81\x01\x02\x03\x04\xc1\x80\x81\x00\x00\x00\x00\x00",
    ),
    (
        "longer",
        b"\x82\xfe\x00\x7e\x00\x00\x00\x00\x30\x7c\x00\x01a",
    ),
    (
        "ping",
        b"\x89\x82\x01\x02\x03\x04ab\x82\x82\x00\x00\x00\x00\xc0\x00",
    ),
    ("goodbye", b"\x88\x82\x00\x00\x00\x00\x03\xe8"),
    ("text", b"\x81\x81\x00\x00\x00\x00x"),
];

/// Targets that read decisions.
const DECIDED: &[&str] = &[
    "access_log",
    "asking",
    "bus_file",
    "device_list",
    "sealing",
    "stream",
];

/// Somebody asks for more than its hour, and waits; is answered, and told that it worked.
const MORE_THAN_GRANTED: &[u8] = &[
    1, 0, 0, 0, 0, 1, 1, 3, 0, 7, 5, 2, 5, 2, 5, 2, 5, 2, 5, 2, 5, 2, 9, 4, 0, 0, 0, 5, 2, 5, 2,
];
/// A message is missing, and the rest goes the same way.
const MISSING: &[u8] = &[
    0, 5, 2, 5, 2, 3, 0, 7, 5, 2, 5, 2, 5, 2, 5, 2, 5, 2, 5, 2, 9, 4, 0, 0, 0, 5, 2, 5, 2,
];

/// A target, a name, and bytes.
pub fn examples() -> Vec<(&'static str, String, Vec<u8>)> {
    let texts = TEXTS
        .iter()
        .map(|(target, name, text)| (*target, (*name).to_owned(), text.as_bytes().to_vec()));
    let drawn = DECIDED.iter().flat_map(|target| {
        let some = (1..=6_u8).map(|number| (*target, format!("drawn-{number}"), drawn(number)));
        some.collect::<Vec<_>>()
    });
    let kept = kept().into_iter().enumerate();
    let kept = kept.map(|(number, bytes)| ("kept", format!("record-{number}"), bytes));
    let paired = pairing().into_iter().enumerate();
    let paired = paired.map(|(number, bytes)| ("pairing_item", format!("item-{number}"), bytes));
    let answered = crate::nodes::examples().into_iter().enumerate();
    let answered = answered.map(|(number, of)| ("node_answer", format!("answer-{number}"), of));
    let stories = [
        ("more-than-granted", MORE_THAN_GRANTED),
        ("missing", MISSING),
    ];
    let stories = stories.map(|(name, bytes)| ("asking", name.to_owned(), bytes.to_vec()));
    let item = [&b"\x80\0\x07plant/7"[..], &[1; 200]].concat();
    let item = ("envelope", "with-topic".to_owned(), item);
    let welcome = ("welcome", "whole".to_owned(), welcome());
    let packets = PACKETS.iter();
    let packets = packets.map(|(name, of)| ("mqtt_packet", (*name).to_owned(), of.to_vec()));
    let proxied = PROXY_PACKETS.iter();
    let proxied = proxied.map(|(name, of)| ("proxy_packet", (*name).to_owned(), of.to_vec()));
    let frames = FRAMES.iter();
    let frames = frames.map(|(name, of)| ("proxy_frames", (*name).to_owned(), of.to_vec()));
    texts
        .chain(frames)
        .chain(drawn)
        .chain(kept)
        .chain(paired)
        .chain(answered)
        .chain(stories)
        .chain(packets)
        .chain(proxied)
        .chain([item, welcome])
        .collect()
}

/// More bytes for a higher number.
fn drawn(number: u8) -> Vec<u8> {
    let blocks = (0..number * 2).map(|block| *digest("fuzz", &[&[number, block]]).as_bytes());
    blocks.flatten().collect()
}

fn kept() -> Vec<Vec<u8>> {
    let mut rng = Seeded::new(10);
    let identity = Identity::generate(&mut rng);
    let newcomer = Newcomer::generate(&mut rng, Some(identity.user()));
    let mut fallbacks = Fallbacks::default();
    fallbacks.rotate(&mut rng, NOON);
    let header = |seq: u32| Header {
        suite: Suite::TreeV1,
        flags: Flags::default(),
        content: 0,
        session: SessionId([2; 16]),
        position: NOON,
        device: DeviceId([3; 16]),
        instance: InstanceId([4; 8]),
        seq,
        prev: EnvelopeHash([seq as u8; 16]),
    };
    let mut tracker = Tracker::from_start();
    for seq in [0, 1, 4] {
        let hash = EnvelopeHash([seq as u8 + 1; 16]);
        tracker.observe(&header(seq), hash, NOON);
    }
    let track = tracker.to_bytes();
    let len = (track.len() as u16).to_be_bytes();
    let track = [&len[..], &track, &header(2).encode(), &header(9).encode()].concat();
    let pin = ListPin {
        seq: 1,
        half: [6; 16],
    };
    let kept = [
        identity.to_bytes().expose().to_vec(),
        newcomer.to_bytes().expose().to_vec(),
        fallbacks.to_bytes().expose().to_vec(),
        encode(&Lane::default()),
        encode(&pin),
        track,
    ];
    let kept = (0_u8..).zip(kept);
    kept.map(|(kind, bytes)| [&[kind][..], &bytes].concat())
        .collect()
}

/// What a newcomer says, and an offer, in the plaintext of an item.
fn pairing() -> Vec<Vec<u8>> {
    let Ok(code) = crate::pairing::CODE.parse::<PairingCode>() else {
        return Vec::new();
    };
    let mut rng = Seeded::new(11);
    let user = UserId([5; 32]);
    let mut items = Newcomer::generate(&mut rng, Some(user)).says();
    items.extend([PairingItem::Offer(user), PairingItem::Welcome(vec![7; 40])]);
    let plain = items.iter().filter_map(|item| {
        let sealed = code.seal(&mut rng, item);
        let opened = PairingKey::derive(&[0; 16]).open(&sealed).ok()?;
        Some([&[1][..], opened.expose()].concat())
    });
    plain.collect()
}

fn welcome() -> Vec<u8> {
    let key = SigningKey::from_seed(&[12; 32]);
    let user = UserId(*key.verifying_key().as_bytes());
    let body = Welcome {
        version: 1,
        user,
        giver: DeviceId([1; 16]),
        device: DeviceId([2; 16]),
        name: "kim".into(),
        list: vec![ListBytes(vec![1, 2, 3])],
        streams: Vec::new(),
        contacts: Vec::new(),
        devices: Vec::new(),
    };
    let signed = sign(&key, body);
    signed.map(|of| of.wire().to_vec()).unwrap_or_default()
}
