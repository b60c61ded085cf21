//! Keyholders and co-readers who lie, and keep no honest one from being heard.

use sealcast_engine::{AskerInput, End};
use sealcast_protocol::{AskItem, Interval, RefusalReason, Want};

use crate::asking::hostile::{claim, handout};
use crate::asking::rig::{Net, false_bundle};
use crate::rig::{NOON, OWNER, since};

/// One who may hand on and has many devices is one among those who are heard.
#[test]
fn a_co_reader_with_many_devices_keeps_no_other_from_being_heard() {
    let mut net = Net::new(120);
    let honest = net.resharer(since(NOON));
    let liar = net.resharer(since(NOON));
    let liars: Vec<_> = (0..9).map(|_| net.device_of(liar)).collect();
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(honest);
    net.run(3_000);
    assert_eq!(net.opened(honest), ["one"]);
    net.nodes[OWNER].is_up = false;
    net.answers(honest);
    let reader = net.reader(since(NOON));
    net.read(reader);
    net.run(251);
    let solicitation = net.solicitations().last().unwrap().clone();
    let honest = handout(&net, reader, &solicitation);
    for by in [liar].into_iter().chain(liars) {
        let lie = false_bundle(&net.world, by, &honest);
        net.put_inbox(reader, lie);
    }
    net.run(10_000);
    assert_eq!(net.opened(reader), ["one"]);
    assert_eq!(net.ends(reader), [End::Opened]);
}

/// Whoever makes up a session has a root that fits it.
#[test]
fn keys_of_a_session_that_nobody_announced_are_no_answer() {
    let mut net = Net::new(122);
    let (reader, liar) = (net.reader(Interval::ALL), net.resharer(Interval::ALL));
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, Want::EVERY_SESSION, Interval::ALL);
    net.ask(reader, AskerInput::Want(want));
    let solicitation = net.solicitations()[0].clone();
    let mut made_up = handout(&net, reader, &solicitation);
    let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(0xbd));
    let (stream, commitment) = (net.world.stream, root.commitment());
    made_up.covers[0].session =
        sealcast_protocol::SessionId::derive(&stream, &want.lane, &commitment);
    let lie = false_bundle(&net.world, liar, &made_up);
    net.put_inbox(reader, lie);
    net.run(1_000);
    assert_eq!(net.sent.receipts, 0);
    net.answers(OWNER);
    net.put_ask(net.asked[0].clone());
    net.run(1_000);
    net.read(reader);
    assert_eq!(net.opened(reader), ["one"]);
}

/// A keyholder whose answers never work holds the others up twice: by its claim, and by what it gave.
#[test]
fn a_keyholder_that_answers_falsely_again_and_again_holds_the_others_up_once() {
    let mut tenths: Vec<_> = (130..134).map(tenths_behind_a_liar).collect();
    tenths.sort_unstable();
    assert!(tenths[0] < 10, "{tenths:?}: somebody comes first");
    assert!((100..=130).contains(&tenths[3]), "{tenths:?}");
}

fn tenths_behind_a_liar(seed: u64) -> u64 {
    let mut net = Net::new(seed);
    let reader = net.reader(since(NOON));
    let admin = net.admin();
    net.nodes[admin].answers = false;
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(251);
    let solicitation = net.solicitations()[0].clone();
    let claim = claim(&net, admin, &solicitation);
    net.put_ask(claim);
    let lie = false_bundle(&net.world, admin, &handout(&net, reader, &solicitation));
    let mut tenths = 0;
    while net.opened(reader).is_empty() && tenths < 250 {
        if tenths % 10 == 0 {
            net.put_inbox(reader, lie.clone());
        }
        net.run(100);
        tenths += 1;
    }
    tenths
}

/// What was learned since a question was asked counts, and each want by itself.
#[test]
fn each_want_is_refused_for_its_own_reason() {
    let mut net = Net::new(121);
    let before = crate::rig::between(sealcast_protocol::Position(0), NOON);
    let reader = net.reader(before);
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let unknown = sealcast_protocol::SessionId([9; 16]);
    let wants = [net.session(), unknown].map(|of| net.want(OWNER, of, since(NOON)));
    for want in wants {
        net.ask(reader, AskerInput::Want(want));
    }
    net.run(2_000);
    let asked: Vec<_> = net
        .solicitations()
        .into_iter()
        .flat_map(|of| of.wants)
        .collect();
    assert_eq!(asked.len(), 2);
    let mut refused = Vec::new();
    for item in &net.asked {
        if let Ok(AskItem::Refusal(of)) = AskItem::decode(item) {
            let of = of.claims();
            let solicitations = net.solicitations();
            let to = solicitations.iter().find(|to| to.request == of.request);
            let wants = of
                .wants
                .iter()
                .map(|at| to.unwrap().wants[usize::from(*at)]);
            refused.extend(wants.map(|want| (want.session, of.reason)));
        }
    }
    refused.sort_unstable_by_key(|of| of.1);
    let reasons = [RefusalReason::NotEntitled, RefusalReason::UnknownSession];
    assert_eq!(
        refused,
        [(wants[0].session, reasons[0]), (unknown, reasons[1])]
    );
}

/// Whoever was lied to and found out does not hand the lie on.
#[test]
fn a_co_reader_hands_on_what_opens_and_not_what_it_was_given_first() {
    let mut net = Net::new(123);
    let (liar, honest) = (net.resharer(since(NOON)), net.resharer(since(NOON)));
    let deceived = net.resharer(since(NOON));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(honest);
    net.run(3_000);
    net.nodes[OWNER].is_up = false;
    net.answers(honest);
    net.read(deceived);
    net.run(251);
    let solicitation = net.solicitations().last().unwrap().clone();
    let lie = false_bundle(&net.world, liar, &handout(&net, deceived, &solicitation));
    net.put_inbox(deceived, lie);
    net.run(10_000);
    assert_eq!(net.opened(deceived), ["one"]);
    assert!(net.nodes[deceived].bad_covers > 0);
    net.nodes[honest].is_up = false;
    net.answers(deceived);
    let reader = net.reader(since(NOON));
    net.read(reader);
    net.run(10_000);
    assert_eq!(net.opened(reader), ["one"]);
}

/// Strangers who do not exist keep nobody from asking.
#[test]
fn made_up_strangers_do_not_take_the_room_of_one_who_is_there() {
    let mut net = Net::new(124);
    let stranger = net.user();
    net.answers(OWNER);
    let limits = sealcast_engine::ResponderLimits {
        strangers_max: 4,
        ..Default::default()
    };
    net.nodes[OWNER].responder = sealcast_engine::Responder::new(limits);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, net.session(), Interval::ALL);
    for byte in 1..=8 {
        let mut made_up = net.solicitation(stranger, vec![want]);
        made_up.user.0[0] ^= byte;
        made_up.device.0[0] ^= byte;
        net.put_solicitation(stranger, made_up);
    }
    net.run(15_000);
    assert_eq!(net.nodes[OWNER].questions, []);
    net.ask(stranger, AskerInput::Want(want));
    net.run(1_000);
    assert_eq!(net.nodes[OWNER].questions.len(), 1);
}
