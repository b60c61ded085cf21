//! The worked examples of the spec pages are what the code makes.

use sealcast_crypto::{
    Cover, LaneSecret, NodeId, NodeKey, SegmentLabel, SessionRoot, SigningKey, UnwrapKey, Walker,
    digest,
};
use sealcast_protocol::{
    BundleContext, Card, CardList, CardRevocation, Claim, Consent, CoverSpec, DeviceId, Draft,
    EnvelopeHash, Export, ExportedCover, ExportedSession, FallbackKey, Flags, Frame, Header,
    InstanceId, Interval, KeyExport, KeyUse, ListBody, ListPin, LogHash, PairingItem,
    PairingRequest, Position, Receipt, Refusal, RefusalReason, RequestId, SessionId, SessionKind,
    SessionRecord, Solicitation, StreamId, Suite, Ticket, UserId, Want, encode, open_bundle,
    seal_bundle, seal_unsigned, sign, wrap_key_hash,
};

use crate::support::{Constant, Seeded, hex};

const STREAM: StreamId = StreamId([0x51; 32]);
const TIME: Position = Position(1_790_000_000_000);

#[test]
fn the_example_of_the_encoding_page_is_true() {
    let (root, user) = root_key();
    let entry = revocation(&root, user);
    let body = encode(entry.body());
    shown_in(
        include_str!("../../../../spec/encoding.md"),
        &[
            ("user id", user.to_string()),
            ("body", hex(&body)),
            ("digest", hex(entry.digest().as_bytes())),
            ("wire", hex(entry.wire())),
        ],
    );
}

#[test]
fn the_example_of_the_envelope_page_is_true() {
    let mut frame = Frame::with_capacity(100);
    frame.push(Position(TIME.0 - 3), b"21.5").unwrap();
    frame.push(TIME, b"21.6").unwrap();
    frame.push(TIME, b"21.7").unwrap();
    let plaintext = frame.plaintext(TIME);
    let header = Header {
        suite: Suite::TreeV1,
        flags: Flags::default(),
        content: 0,
        session: SessionId([3; 16]),
        position: TIME,
        device: DeviceId([4; 16]),
        instance: InstanceId([5; 8]),
        seq: 6,
        prev: EnvelopeHash::NONE,
    };
    let signing = SigningKey::from_seed(&[9; 32]);
    let mut walker = Walker::new(Cover::whole(&session_root()));
    let leaf = walker.leaf(TIME.0).unwrap();
    let sealed = seal_unsigned(&leaf, &STREAM, b"temp", &header, Draft::Frame(&frame));
    let sealed = sealed.unwrap().sign(&signing);
    shown_in(
        include_str!("../../../../spec/envelope.md"),
        &[
            ("plaintext", hex(plaintext.expose())),
            ("header", hex(&sealed.bytes[..72])),
            ("commitment", hex(&sealed.bytes[72..96])),
            (
                "ciphertext and tag",
                hex(&sealed.bytes[96..sealed.bytes.len() - 64]),
            ),
            ("signature", hex(&sealed.bytes[sealed.bytes.len() - 64..])),
            ("hash", sealed.hash.to_string()),
        ],
    );
}

#[test]
fn the_example_of_the_devices_page_is_true() {
    let (root, user) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let sign_key = *signing.verifying_key().as_bytes();
    let wrap_key = UnwrapKey::from_seed(&[0x33; 32]).wrap_key();
    let fallback_key = UnwrapKey::from_seed(&[0x44; 32]).wrap_key();
    let period = FallbackKey::period_at(TIME);
    let fallback = FallbackKey::sign(&user, &signing, &fallback_key, period).unwrap();
    let expires = TIME.after(sealcast_protocol::CARD_LIFETIME_MS);
    let card = Card::new(&user, &signing, &wrap_key, expires);
    let body = ListBody::Card(Box::new(card.clone()));
    let mut list = CardList::new(user);
    let entry = list.append(&root, TIME, body).unwrap();
    let out = ListBody::Revoke(CardRevocation {
        device: card.device,
        time: TIME,
    });
    list.append(&root, TIME, out).unwrap();
    let checkpoint = list.checkpoint();
    let checkpoint = list.append(&root, TIME, checkpoint).unwrap();
    shown_in(
        include_str!("../../../../spec/devices.md"),
        &[
            ("sign_key", hex(&sign_key)),
            ("device", card.device.to_string()),
            ("wrap_key hash", hex(&wrap_key_hash(&wrap_key))),
            ("possession", hex(&card.possession)),
            ("fallback hash", hex(&wrap_key_hash(&fallback_key))),
            ("fallback period", period.to_string()),
            ("fallback digest", hex(fallback.digest().as_bytes())),
            ("checkpoint body", hex(&encode(&checkpoint.body().body))),
            ("entry hash", LogHash::from(entry.digest()).to_string()),
            ("wire length", entry.wire().len().to_string()),
            ("wire begins", hex(&entry.wire()[..96])),
        ],
    );
}

#[test]
fn the_example_of_the_pairing_page_is_true() {
    let (_, user) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let wrap_key = UnwrapKey::from_seed(&[0x33; 32]).wrap_key();
    let request = PairingRequest {
        sign_key: *signing.verifying_key().as_bytes(),
        wrap_key: wrap_key.as_bytes().to_vec(),
        nonce: [7; 16],
    };
    let code = request.code();
    let offer = PairingItem::Offer(user);
    let sealed = code.seal(&mut Seeded(0), &offer);
    assert_eq!(code.open(&sealed), Ok(offer.clone()));
    let possession = Card::consent(&user, &signing, &wrap_key);
    let consent = PairingItem::Consent(Consent { user, possession });
    shown_in(
        include_str!("../../../../spec/pairing.md"),
        &[
            ("code", code.to_string()),
            ("topic", code.topic()),
            ("body of the offer", hex(&encode(&offer))),
            ("nonce and sealed offer", hex(&sealed)),
            ("body of the consent", hex(&encode(&consent))),
        ],
    );
}

#[test]
fn the_example_of_the_sessions_page_is_true() {
    let (_, lane) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let commitment = session_root().commitment();
    let mut record = SessionRecord {
        version: 1,
        stream: STREAM,
        lane,
        device: DeviceId::derive(&lane, signing.verifying_key().as_bytes()),
        session: SessionId::derive(&STREAM, &lane, &commitment),
        commitment,
        start: TIME,
        kind: SessionKind::Live,
        heads: vec![LogHash([0x51; 32])],
        open_root: session_root().expose().to_vec(),
        wraps: Vec::new(),
    };
    let signed = sign(&signing, record.clone()).unwrap();
    record.kind = SessionKind::Backfill {
        interval: Interval {
            from: Position(1),
            until: Position(500),
        },
    };
    shown_in(
        include_str!("../../../../spec/sessions.md"),
        &[
            ("root", hex(session_root().expose())),
            ("commitment", hex(&commitment)),
            ("session", record.session.to_string()),
            ("kind of a backfill of 1..500", hex(&encode(&record.kind))),
            ("wire", hex(signed.wire())),
            ("digest", hex(signed.digest().as_bytes())),
            (
                "context of a wrap for the device itself",
                hex(&encode(&record.wrap_context(&lane, &record.device))),
            ),
        ],
    );
}

#[test]
fn the_example_of_the_bundles_page_is_true() {
    let (_, giver) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let receiver = UnwrapKey::from_seed(&[0x33; 32]);
    let interval = Interval {
        from: Position(65_536),
        until: Position(196_608),
    };
    let context = BundleContext {
        stream: STREAM,
        lane: giver,
        giver_user: giver,
        giver_device: DeviceId::derive(&giver, signing.verifying_key().as_bytes()),
        user: UserId([7; 32]),
        device: DeviceId([8; 16]),
        key: KeyUse::Fallback { period: 2_959 },
        wrap_key_hash: wrap_key_hash(&receiver.wrap_key()),
        heads: vec![LogHash([0x51; 32])],
        request: [0; 16],
        covers: vec![CoverSpec {
            session: SessionId([3; 16]),
            interval,
        }],
    };
    let cover = Cover::from_root(&session_root(), interval.from.0, interval.until.0);
    let to = receiver.wrap_key();
    let bundle = seal_bundle(&mut Seeded(0), context.clone(), &[&cover], &to).unwrap();
    assert!(open_bundle(&bundle, &receiver).is_ok());
    let signed = sign(&signing, bundle.clone()).unwrap();
    shown_in(
        include_str!("../../../../spec/bundles.md"),
        &[
            ("context", hex(&encode(&context))),
            ("keys", hex(cover.key_bytes().expose())),
            ("wrapped", hex(&bundle.wrapped)),
            ("digest", hex(signed.digest().as_bytes())),
            ("signature", hex(&signed.wire()[signed.wire().len() - 64..])),
        ],
    );
}

#[test]
fn the_example_of_the_asking_page_is_true() {
    let (_, lane) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let device = DeviceId::derive(&lane, signing.verifying_key().as_bytes());
    let solicitation = example_solicitation(lane, device);
    let request = solicitation.request;
    let receipt = Receipt {
        version: 1,
        stream: STREAM,
        user: lane,
        device,
        request,
        wants: vec![0],
    };
    let claim = Claim {
        version: 1,
        stream: STREAM,
        asker: device,
        request,
        user: UserId([7; 32]),
        device: DeviceId([8; 16]),
        wants: vec![0],
    };
    let refusal = Refusal {
        version: 1,
        stream: STREAM,
        asker: device,
        request,
        user: UserId([7; 32]),
        device: DeviceId([8; 16]),
        wants: vec![0],
        reason: RefusalReason::UnknownSession,
    };
    let key = solicitation.wrap_key().unwrap();
    let signed = sign(&signing, solicitation.clone()).unwrap();
    let body = encode(&solicitation);
    let at = body
        .windows(3)
        .position(|of| of == [0x59, 4, 0xc0])
        .unwrap();
    let order = digest("sealcast.v1 answer order", &[&request.0, &[8; 16]]);
    shown_in(
        include_str!("../../../../spec/asking.md"),
        &[
            ("before the key", hex(&body[..at + 3])),
            ("hash of the key", hex(&wrap_key_hash(&key))),
            ("behind the key", hex(&body[at + 3 + 1_216..])),
            ("digest", hex(signed.digest().as_bytes())),
            ("order of the answering device", hex(order.as_bytes())),
            ("claim", hex(&encode(&claim))),
            ("refusal", hex(&encode(&refusal))),
            ("receipt", hex(sign(&signing, receipt).unwrap().wire())),
        ],
    );
}

fn example_solicitation(lane: UserId, device: DeviceId) -> Solicitation {
    let key = UnwrapKey::from_seed(&[0x33; 32]).wrap_key();
    Solicitation {
        version: 1,
        stream: STREAM,
        user: lane,
        device,
        list: ListPin {
            seq: 1,
            half: [6; 16],
        },
        request: RequestId([9; 16]),
        key: key.as_bytes().to_vec(),
        wants: vec![Want {
            lane: UserId([7; 32]),
            session: SessionId([3; 16]),
            interval: Interval {
                from: Position(65_536),
                until: Position(196_608),
            },
        }],
        heads: vec![LogHash([0x51; 32])],
        time: TIME,
        expires: TIME.after(30_000),
    }
}

#[test]
fn the_example_of_the_export_page_is_true() {
    let (_, owner) = root_key();
    let signing = SigningKey::from_seed(&[0x22; 32]);
    let commitment = session_root().commitment();
    let cover = Cover::from_root(&session_root(), 65_536, 196_608);
    let export = Export::Keys(KeyExport {
        stream: STREAM,
        owner,
        name: "boiler".parse().unwrap(),
        sessions: vec![ExportedSession {
            session: SessionId::derive(&STREAM, &owner, &commitment),
            device: DeviceId::derive(&owner, signing.verifying_key().as_bytes()),
            lane: owner,
            commitment,
            covers: vec![ExportedCover::new(&cover)],
        }],
    });
    let plaintext = export.encode().unwrap();
    shown_in(
        include_str!("../../../../spec/export.md"),
        &[("plaintext", hex(plaintext.expose()))],
    );
}

#[test]
fn the_example_of_the_tickets_page_is_true() {
    let (_, owner) = root_key();
    let name = "boiler room".parse().unwrap();
    let ticket = Ticket::new("mqtt://broker.example", STREAM, owner, name).unwrap();
    let page = include_str!("../../../../spec/tickets.md");
    assert!(
        page.contains(&ticket.to_string()),
        "the page lacks\n{ticket}"
    );
}

#[test]
fn the_labels_on_the_pages_are_those_that_are_hashed() {
    let (root, user) = root_key();
    let entry = revocation(&root, user);
    let label = "sealcast.v1 device list entry";
    assert!(include_str!("../../../../spec/devices.md").contains(label));
    assert_eq!(entry.digest(), digest(label, &[&encode(entry.body())]));
}

/// Checks that a page shows `name = value` for each, values folded at 64 letters.
#[test]
fn the_example_of_the_page_of_key_nodes_is_true() {
    let secret = LaneSecret::from_bytes(&[7; 64]).unwrap();
    let (dealing, shares) = secret.deal(&mut Constant(8), 2, 3).unwrap();
    let node = NodeId {
        depth: 32,
        index: 7,
    };
    let segment = SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node).unwrap();
    let key = NodeKey::init_with(|bytes| bytes.fill(5));
    let answer = shares[1].answer(&mut Constant(1), &[segment]);
    shown_in(
        include_str!("../../../../spec/key-nodes.md"),
        &[
            ("commitments", hex(&dealing.commitments().concat())),
            ("pepper commitment", hex(&dealing.pepper().0)),
            ("share of the second node", hex(shares[1].expose())),
            ("sealed", hex(&secret.segment_key(&segment).seal(&key))),
            ("answer of the second node", hex(answer.expose())),
        ],
    );
}

fn shown_in(page: &str, values: &[(&str, String)]) {
    let mut block = String::from("```text\n");
    for (name, value) in values {
        let lines: Vec<_> = value
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        let text = match lines.as_slice() {
            [line] => format!("{name} = {line}\n"),
            lines => format!("{name} =\n  {}\n", lines.join("\n  ")),
        };
        block.push_str(&text);
    }
    block.push_str("```\n");
    assert!(page.contains(&block), "the page lacks\n{block}");
}

fn root_key() -> (SigningKey, UserId) {
    let root = SigningKey::from_seed(&[0x11; 32]);
    let user = UserId(*root.verifying_key().as_bytes());
    (root, user)
}

fn session_root() -> SessionRoot {
    SessionRoot::init_with(|bytes| bytes.fill(8))
}

fn revocation(
    root: &SigningKey,
    user: UserId,
) -> sealcast_protocol::Verified<sealcast_protocol::ListEntry> {
    let entry = sealcast_protocol::ListEntry {
        version: 1,
        user,
        seq: 1,
        prev: LogHash([6; 32]),
        time: TIME,
        body: ListBody::Revoke(CardRevocation {
            device: DeviceId([4; 16]),
            time: TIME,
        }),
    };
    sign(root, entry).unwrap()
}
