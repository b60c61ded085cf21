//! Garbage, lies and replays: the honest answer still arrives, and nothing else is taken for one.

use sealcast_engine::{AskBody, AskerEvent, AskerInput, ControlTopic, End, SharedWith};
use sealcast_protocol::{
    AskItem, Claim, Interval, Receipt, Refusal, RefusalReason, Roles, Want, sign,
};

use crate::asking::rig::{DELAY_MS, Giving, Net, false_bundle, one_use_key};
use crate::rig::{NOON, OWNER, since};

/// One message, a reader that lacks its key, and a request on its way.
fn asked(seed: u64) -> (Net, usize) {
    let mut net = Net::new(seed);
    let reader = net.reader(since(NOON));
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(260);
    assert_eq!(net.sent.solicitations, 1);
    (net, reader)
}

/// A reader that has not asked, an owner who answers, and what the reader might ask for.
fn ready(seed: u64) -> (Net, usize, Want) {
    let mut net = Net::new(seed);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, net.session(), since(NOON));
    (net, reader, want)
}

/// fault 3
#[test]
fn a_request_that_is_replayed_is_answered_once() {
    let (mut net, reader, want) = ready(40);
    let solicitation = net.solicitation(reader, vec![want]);
    let bytes = net.signed(reader, AskBody::Solicitation(Box::new(solicitation)));
    for _ in 0..5 {
        net.put_ask(bytes.clone());
    }
    net.run(1_000);
    for _ in 0..5 {
        net.put_ask(bytes.clone());
        net.run(20_000);
    }
    assert_eq!((net.sent.claims, net.sent.bundles), (1, 1));
    net.run(600_000);
    assert_eq!(net.nodes[OWNER].responder.remembered(), 1, "the user");
    net.put_ask(bytes);
    net.run(1_000);
    assert_eq!((net.sent.claims, net.sent.bundles), (1, 1));
}

#[test]
fn a_request_from_a_clock_that_is_far_off_is_passed_over() {
    let (mut net, reader, want) = ready(41);
    for (byte, time, answered) in [
        (1, NOON.after(121_000), 0),
        (2, sealcast_protocol::Position(NOON.0 - 150_001), 0),
        (3, sealcast_protocol::Position(NOON.0 - 149_000), 1),
        (4, NOON.after(119_000), 2),
    ] {
        let mut solicitation = net.solicitation(reader, vec![want]);
        solicitation.request.0[0] = byte;
        solicitation.time = time;
        solicitation.expires = time.after(30_000);
        net.world.now = NOON;
        net.put_solicitation(reader, solicitation);
        net.run(500);
        assert_eq!(net.sent.bundles, answered, "{byte}");
    }
}

/// fault 8: what is no answer leaves the request open.
#[test]
fn garbage_in_the_inbox_leaves_the_request_open() {
    let (mut net, reader) = asked(42);
    let (stranger, other) = (net.user(), net.reader(since(NOON)));
    net.learn();
    let solicitation = net.solicitations()[0].clone();
    let honest = handout(&net, reader, &solicitation);
    let bad = [
        b"garbage".to_vec(),
        Vec::new(),
        // From somebody whom the log does not name, and from one who may not reshare.
        false_bundle(&net.world, stranger, &honest),
        false_bundle(&net.world, other, &honest),
    ];
    for bytes in bad {
        net.put_inbox(reader, bytes);
    }
    // In the owner's name, each with one thing wrong.
    let changes: [fn(&mut sealcast_protocol::BundleContext); 8] = [
        |of| of.stream.0[0] ^= 1,
        |of| of.request[0] ^= 1,
        |of| of.wrap_key_hash[0] ^= 1,
        |of| of.user.0[0] ^= 1,
        |of| of.device.0[0] ^= 1,
        |of| of.covers[0].session.0[0] ^= 1,
        |of| of.covers[0].interval.from.0 -= 1,
        |of| of.key = sealcast_protocol::KeyUse::LongLived,
    ];
    let good = false_bundle(&net.world, OWNER, &honest);
    let good = sealcast_protocol::Unverified::<sealcast_protocol::Bundle>::decode(&good).unwrap();
    for change in changes {
        let mut bundle = good.claims().clone();
        change(&mut bundle.context);
        let nodes = |of: &sealcast_protocol::CoverSpec| {
            sealcast_crypto::cover(of.interval.from.0, of.interval.until.0).len()
        };
        let keys = nodes(&bundle.context.covers[0]) * 32;
        bundle.wrapped.resize(keys.next_multiple_of(256) + 1_136, 0);
        let key = net.world.peers[OWNER].identity.signing();
        net.put_inbox(reader, sign(key, bundle).unwrap().wire().to_vec());
    }
    // What the owner did not sign.
    let mut flipped = false_bundle(&net.world, OWNER, &honest);
    *flipped.last_mut().unwrap() ^= 1;
    net.put_inbox(reader, flipped);
    net.run(1_000);
    assert_eq!(net.nodes[reader].asker.open_requests(), 1);
    assert_eq!(net.nodes[reader].events.len(), 1, "that it asked");
    assert!(net.world.peers[reader].alarms.is_empty());
    net.answers(OWNER);
    net.put_ask(net.asked[0].clone());
    net.run(1_000);
    assert_eq!(net.opened(reader), ["one"]);
    assert_eq!(net.ends(reader), [End::Opened]);
}

/// What an honest owner would give to a request.
pub(super) fn handout(
    net: &Net,
    reader: usize,
    asked: &sealcast_protocol::Solicitation,
) -> sealcast_engine::Handout {
    sealcast_engine::Handout {
        lane: asked.wants[0].lane,
        user: net.world.id(reader),
        device: net.world.device(reader),
        covers: vec![sealcast_protocol::CoverSpec {
            session: asked.wants[0].session,
            interval: asked.wants[0].interval,
        }],
        to: sealcast_engine::HandoutKey::OneUse {
            request: asked.request,
            key: asked.wrap_key().unwrap(),
        },
    }
}

/// A keyholder lies: whoever comes next is believed, and the liar is named.
#[test]
fn a_false_cover_is_followed_by_the_honest_answer() {
    let mut lies = 0;
    for seed in 50..56 {
        let mut net = Net::new(seed);
        let reader = net.reader(since(NOON));
        let admin = net.admin();
        net.answers(OWNER);
        net.nodes[OWNER].giving = Giving::False;
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        net.read(reader);
        net.run(12_000);
        assert_eq!(net.opened(reader), ["one"], "{seed}");
        assert_eq!(net.ends(reader), [End::Opened]);
        let givers: Vec<_> = net.given.iter().map(|of| of.0).collect();
        if givers == [OWNER, admin] {
            lies += 1;
            assert!(net.nodes[reader].bad_covers > 0);
        } else {
            assert_eq!(givers, [admin], "nobody gives after the receipt");
        }
        net.run(60_000);
        assert_eq!(net.given.len(), givers.len());
    }
    assert!((1..6).contains(&lies), "{lies} of 6 lied first");
}

/// A root is seen through at once.
#[test]
fn a_false_root_is_named_and_not_taken() {
    let mut net = Net::new(57);
    let reader = net.reader(Interval::ALL);
    net.answers(OWNER);
    net.nodes[OWNER].giving = Giving::False;
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(1_000);
    let bad = net.nodes[reader].events.iter().any(|event| {
        matches!(event, AskerEvent::BadAnswer { giver, .. } if giver.0 == net.world.id(OWNER))
    });
    assert!(bad);
    assert_eq!(net.nodes[reader].asker.open_requests(), 1);
    assert_eq!(net.sent.receipts, 0);
    let session = net.sessions()[0];
    assert!(net.world.peers[reader].view.root(&session).is_none());
}

/// Whoever never says that it worked is given to three times.
#[test]
fn three_answers_without_a_receipt_end_a_request() {
    let mut net = Net::new(58);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    let holders = [OWNER, net.admin(), net.admin(), net.admin(), net.admin()];
    for holder in holders {
        net.nodes[holder].giving = Giving::False;
    }
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(29_000);
    assert_eq!((net.sent.solicitations, net.sent.bundles), (1, 3));
    for holder in holders {
        assert_eq!(net.nodes[holder].responder.open_requests(), 0);
    }
    assert_eq!(net.sent.receipts, 0);
}

/// fault 10: only the asker itself can say that it worked.
#[test]
fn a_receipt_that_the_asker_did_not_sign_ends_nothing() {
    let (mut net, reader) = asked(60);
    let other = net.reader(since(NOON));
    let admin = net.admin();
    net.answers(OWNER);
    for holder in [OWNER, admin] {
        net.nodes[holder].giving = Giving::Dies;
    }
    net.run(4_000);
    let first = usize::from(net.nodes[OWNER].is_up);
    assert_eq!(net.sent.claims, 1, "{first}");
    let survivor = if net.nodes[OWNER].is_up { OWNER } else { admin };
    net.nodes[survivor].giving = Giving::Honest;
    let solicitation = net.solicitations()[0].clone();
    let receipt = |by: usize| Receipt {
        version: 1,
        stream: net.world.stream,
        user: net.world.id(by),
        device: net.world.device(by),
        request: solicitation.request,
        wants: vec![0],
    };
    let forged = net.signed(other, AskBody::Receipt(receipt(reader)));
    let others = net.signed(other, AskBody::Receipt(receipt(other)));
    net.put_ask(forged);
    net.put_ask(others);
    net.run(8_000);
    assert_eq!(net.opened(reader), ["one"]);
    assert_eq!(net.ends(reader), [End::Opened]);
}

#[test]
fn claims_of_those_who_hold_no_roots_hold_no_keyholder_up() {
    let mut is_behind = false;
    for seed in 110..116 {
        let mut net = Net::new(seed);
        let reader = net.reader(since(NOON));
        let (other, resharer) = (net.reader(since(NOON)), net.resharer(since(NOON)));
        // Somebody who might come first, and is not there.
        let admin = net.admin();
        net.nodes[admin].is_up = false;
        net.answers(OWNER);
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        net.read(reader);
        net.run(251);
        let solicitation = net.solicitations()[0].clone();
        for by in [other, resharer] {
            let bytes = claim(&net, by, &solicitation);
            net.put_ask(bytes);
        }
        net.run(50);
        is_behind |= net.sent.claims == 0;
        net.run(450);
        assert_eq!(net.opened(reader), ["one"], "{seed}");
    }
    assert!(is_behind, "the owner always came before the claims");
}

/// Admins who claim again and again and never give delay another keyholder three times.
#[test]
fn no_more_than_three_users_claims_hold_a_keyholder_up() {
    let waited: Vec<_> = (62..68).map(seconds_behind_claimers).collect();
    // Three leases, and before each a turn; or none, where the keyholder's turn came first.
    assert!(waited.iter().all(|of| *of <= 18), "{waited:?}");
    assert!(waited.iter().any(|of| *of >= 15), "{waited:?}");
}

fn seconds_behind_claimers(seed: u64) -> u64 {
    let mut net = Net::new(seed);
    let reader = net.reader(since(NOON));
    let admins = [net.admin(), net.admin(), net.admin(), net.admin()];
    for admin in admins {
        net.nodes[admin].answers = false;
    }
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(251);
    let solicitation = net.solicitations()[0].clone();
    let mut tenths = 0;
    while net.opened(reader).is_empty() && tenths < 600 {
        // Each goes on where the one before lapses.
        let bytes = claim(&net, admins[(tenths / 51) % 4], &solicitation);
        net.put_ask(bytes);
        net.run(100);
        tenths += 1;
    }
    tenths as u64 / 10
}

pub(crate) fn claim(net: &Net, by: usize, asked: &sealcast_protocol::Solicitation) -> Vec<u8> {
    let claim = Claim {
        version: 1,
        stream: net.world.stream,
        asker: asked.device,
        request: asked.request,
        user: net.world.id(by),
        device: net.world.device(by),
        wants: vec![0],
    };
    net.signed(by, AskBody::Claim(claim))
}

/// Only keyholders refuse, and only what they rule.
#[test]
fn a_refusal_by_others_is_not_heard() {
    let (mut net, reader) = asked(63);
    let (other, publisher) = (net.reader(since(NOON)), net.user());
    net.grant(publisher, Roles::PUBLISHER, Interval::ALL, false);
    let solicitation = net.solicitations()[0].clone();
    for by in [other, publisher] {
        let refusal = Refusal {
            version: 1,
            stream: net.world.stream,
            asker: solicitation.device,
            request: solicitation.request,
            user: net.world.id(by),
            device: net.world.device(by),
            wants: vec![0],
            reason: RefusalReason::NotEntitled,
        };
        let bytes = net.signed(by, AskBody::Refusal(refusal.clone()));
        net.put_ask(bytes);
        let in_the_owners_name = Refusal {
            user: net.world.id(OWNER),
            device: net.world.device(OWNER),
            ..refusal
        };
        let bytes = net.signed(by, AskBody::Refusal(in_the_owners_name));
        net.put_ask(bytes);
    }
    net.run(31_000);
    assert_eq!(net.ends(reader), [End::TimedOut]);
}

/// Only what was asked for is taken from a co-reader; from anybody, only while the request is open.
#[test]
fn what_nobody_asked_for_is_not_taken() {
    let mut net = Net::new(64);
    let (reader, resharer) = (net.reader(since(NOON)), net.resharer(since(NOON)));
    net.world.publish(OWNER, "one").unwrap();
    net.world
        .share(OWNER, SharedWith::User(net.world.id(resharer)));
    net.learn();
    let want = net.want(OWNER, net.session(), since(NOON));
    let solicitation = net.solicitation(reader, vec![want]);
    for giver in [resharer, OWNER] {
        let handout = handout(&net, reader, &solicitation);
        let of = &net.world.peers[giver];
        let bundle =
            sealcast_engine::wrap_handout(&of.view, &of.identity, &mut net.world.rng, &handout);
        let bytes = bundle.unwrap().unwrap().wire().to_vec();
        net.put_inbox(reader, bytes.clone());
        net.run(100);
        net.world.put_key_item(&bytes);
        net.world.peers[reader]
            .view
            .handle(&ControlTopic::Keys, &bytes);
        net.learn();
        net.read(reader);
        assert_eq!(net.opened(reader), [""; 0], "{giver}");
    }
    // The same keys, asked for.
    net.answers(resharer);
    net.run(10_000);
    assert_eq!(net.opened(reader), ["one"]);
    // A request that is over takes nothing.
    let late = net.reader(since(NOON));
    net.nodes[resharer].is_up = false;
    net.read(late);
    net.run(260);
    let over = net.solicitations().last().unwrap().clone();
    net.run(30_000);
    assert_eq!(net.ends(late), [End::TimedOut]);
    let handout = handout(&net, late, &over);
    let of = &net.world.peers[OWNER];
    let bundle =
        sealcast_engine::wrap_handout(&of.view, &of.identity, &mut net.world.rng, &handout);
    net.put_inbox(late, bundle.unwrap().unwrap().wire().to_vec());
    net.run(1_000);
    assert_eq!(net.opened(late), [""; 0]);
}

/// Whoever catches a request can neither change whom it is for, nor read the answer.
#[test]
fn a_request_cannot_be_readdressed() {
    let (mut net, reader, want) = ready(65);
    let thief = net.user();
    net.learn();
    let solicitation = net.solicitation(reader, vec![want]);
    let thiefs = net.solicitation(thief, vec![want]);
    let bent = [
        sealcast_protocol::Solicitation {
            key: thiefs.key.clone(),
            ..solicitation.clone()
        },
        sealcast_protocol::Solicitation {
            user: thiefs.user,
            ..solicitation.clone()
        },
        sealcast_protocol::Solicitation {
            device: thiefs.device,
            ..solicitation.clone()
        },
        thiefs,
    ];
    for body in bent {
        net.put_solicitation(thief, body);
        net.run(2_000);
    }
    assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
    // In its own name it may be replayed, and then it is answered to the reader's key.
    net.put_solicitation(reader, solicitation);
    net.run(2_000);
    let [(_, bytes)] = &net.given[..] else {
        panic!("one answer")
    };
    let bundle = sealcast_protocol::Unverified::<sealcast_protocol::Bundle>::decode(bytes).unwrap();
    let opens = |peer| sealcast_protocol::open_bundle(bundle.claims(), &one_use_key(peer)).is_ok();
    assert!(opens(reader) && !opens(thief));
}

#[test]
fn any_bytes_change_nothing() {
    let (mut net, reader) = asked(66);
    net.run(DELAY_MS);
    net.answers(OWNER);
    let items: Vec<_> = net.asked.clone();
    for item in &items {
        for at in 0..item.len().min(2_000) {
            let mut flipped = item.clone();
            flipped[at] ^= 1 << (at % 8);
            if AskItem::decode(&flipped).is_ok() {
                net.put_ask(flipped.clone());
            }
            net.put_inbox(reader, flipped);
        }
    }
    // Before it is sent once more.
    net.run(4_000);
    assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
    net.ask(reader, AskerInput::Tick);
    assert_eq!(net.nodes[reader].asker.open_requests(), 1);
}
