//! Replays, lies, and logs that are not whole.

use sealcast_protocol::{
    AuditChain, AuditEntry, AuditFault, Condition, Interval, KeyNodes, LogBody, LogHash,
    NodeAnswer, NodeRefusalReason, NodeRequest, OpenAnswerError, Position, Roles, Segment,
    Unverified, Verified, encode, sign,
};

use super::rig::{Asking, Net};
use crate::rig::{NOON, OWNER, between};

/// What a net with one message and one reader comes to after one step, and what was asked.
fn asked(net: &mut Net) -> (usize, Asking) {
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(net, reader);
    asking.step(net);
    (reader, asking)
}

fn replies(net: &mut Net, reader: usize) -> usize {
    net.run_nodes();
    net.inbox(reader).len()
}

/// Fault 3.
#[test]
fn a_request_that_is_replayed_is_answered_once_also_over_a_restart() {
    let mut net = Net::new(2, 3);
    let (reader, asking) = asked(&mut net);
    let wire = asking.sent[0].wire().to_vec();
    for _ in 0..2 {
        for at in 0..3 {
            for _ in 0..5 {
                net.put_in_inbox(net.nodes[at].peer, &wire);
            }
        }
        assert_eq!(replies(&mut net, reader), 0);
        for at in 0..3 {
            net.restart(at);
        }
    }
    // Beyond its time it is nothing either.
    net.world.tick(600_000);
    net.put_in_inbox(net.nodes[0].peer, &wire);
    assert_eq!(replies(&mut net, reader), 0);
}

#[test]
fn a_request_is_for_the_nodes_that_it_names_alone() {
    let mut net = Net::new(2, 3);
    let (reader, asking) = asked(&mut net);
    let named = asking.sent[0].body().nodes.clone();
    let other = (1..=3).find(|index| !named.contains(index)).unwrap();
    let wire = asking.sent[0].wire().to_vec();
    net.put_in_inbox(net.nodes[usize::from(other) - 1].peer, &wire);
    assert_eq!(replies(&mut net, reader), 0);
}

/// A request with a change, and the signature that it had.
fn altered(good: &Verified<NodeRequest>, change: impl FnOnce(&mut NodeRequest)) -> Vec<u8> {
    let mut body = good.body().clone();
    change(&mut body);
    let body = encode(&body);
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let signature = good.wire().last_chunk::<64>().unwrap();
    // An array of two byte strings.
    let parts: [&[u8]; 5] = [&[0x82, 0x59], &len, &body, &[0x58, 64], signature];
    parts.concat()
}

/// What a reader asked for, which has come to no node.
fn caught(net: &mut Net) -> (usize, Verified<NodeRequest>) {
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let asking = Asking::new(net, reader);
    for at in 0..net.nodes.len() {
        net.inbox(net.nodes[at].peer);
    }
    net.inbox(reader);
    (reader, asking.sent[0].clone())
}

/// What it says is covered by its signature, the one-use key too.
#[test]
fn a_request_with_another_key_or_change_is_nothing() {
    let mut net = Net::new(2, 3);
    let (reader, good) = caught(&mut net);
    assert_eq!(altered(&good, |_| ()), good.wire());
    let key = net.draw().key.wrap_key().as_bytes().to_vec();
    let changes: [&dyn Fn(&mut NodeRequest); 6] = [
        &|of| of.key = key.clone(),
        &|of| of.request.0[0] ^= 1,
        &|of| of.nodes = vec![1, 2, 3],
        &|of| of.segments[0].index += 1,
        &|of| of.heads.clear(),
        &|of| of.expires = of.expires.after(1),
    ];
    let mut forged = Vec::from(changes.map(|change| altered(&good, change)));
    // Whoever caught it cannot sign for the reader.
    let stranger = net.world.user();
    let signed = net.resigned(stranger, &good, |of| of.key = key.clone());
    forged.push(signed.wire().to_vec());
    for wire in &forged {
        assert_ne!(wire, good.wire());
        for at in 0..3 {
            net.put_in_inbox(net.nodes[at].peer, wire);
        }
        assert_eq!(replies(&mut net, reader), 0);
    }
    // That they began to run is all that the nodes kept.
    assert!(net.nodes.iter().all(|node| node.audit.len() == 1));
    // Nor is it used up by what others made of it.
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, good.wire());
    }
    assert_eq!(replies(&mut net, reader), 2);
}

/// Whoever caught it may ask for the same, as itself and with a key of its own.
#[test]
fn who_signs_what_another_asked_for_is_given_what_is_its_own_by_its_own_key() {
    let mut net = Net::new(2, 3);
    let (reader, good) = caught(&mut net);
    let hour = between(NOON, NOON.after(3_600_000));
    let (equal, less) = (net.reader_of_all(), net.reader(hour));
    let of_equal = net.forge(equal, &good, |_| ());
    assert_eq!(of_equal.answers().len(), 3);
    assert_eq!(of_equal.opened(&net), good.body().segments.len());
    let of_less = net.forge(less, &good, |_| ());
    of_less.assert_refused(&net, NodeRefusalReason::NotEntitled);
    // What is its own it may have.
    let own = NOON.0.next_multiple_of(1 << 16) >> 16;
    let own = net.forge(less, &good, |of| {
        of.segments = vec![Segment {
            depth: 32,
            index: own,
        }];
    });
    assert_eq!(own.answers().len(), 3);
    assert_eq!(own.items.len(), 3);

    // Nothing of that came to the reader, whose own answers are of use to nobody else.
    assert_eq!(replies(&mut net, reader), 0);
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, good.wire());
    }
    net.run_nodes();
    let answers = net.inbox(reader);
    assert_eq!(answers.len(), 2);
    for item in &answers {
        let answer = Unverified::<NodeAnswer>::decode(item).unwrap();
        for of in [&of_equal, &of_less, &own] {
            let opened = answer.claims().open(&good, &of.key).map(|_| ());
            assert_eq!(opened, Err(OpenAnswerError::NotAuthentic));
        }
    }
}

#[test]
fn a_request_from_the_future_or_the_past_is_nothing() {
    let mut net = Net::new(2, 3);
    let (reader, asking) = asked(&mut net);
    let now = net.world.now;
    let times = [
        (Position(now.0 - 500_000), Position(now.0 - 300_000)),
        (now.after(130_000), now.after(160_000)),
    ];
    for (n, (time, expires)) in (1..).zip(times) {
        let wrong = net.resigned(reader, &asking.sent[0], |of| {
            of.request.0[0] ^= n;
            (of.time, of.expires) = (time, expires);
        });
        for at in 0..3 {
            net.put_in_inbox(net.nodes[at].peer, wrong.wire());
        }
        assert_eq!(replies(&mut net, reader), 0);
    }
}

#[test]
fn a_node_that_has_not_read_what_the_asker_names_refuses() {
    let mut net = Net::new(2, 3);
    let (reader, asking) = asked(&mut net);
    let ahead = net.resigned(reader, &asking.sent[0], |of| {
        of.request.0[0] ^= 1;
        of.nodes = vec![1, 2, 3];
        of.heads.push(LogHash([0xff; 32]));
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, ahead.wire());
    }
    assert_eq!(replies(&mut net, reader), 3);
    for node in &net.nodes {
        let last = format!("{:?}", node.audit.last().unwrap().event);
        assert!(last.ends_with("LogBehind)"), "{last}");
    }
}

#[test]
fn a_node_whose_bus_hides_what_it_showed_refuses() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    for node in &mut net.nodes {
        node.is_whole = false;
    }
    let told = net.unlock(reader);
    assert!(told.contains("refuses: LogBehind"), "{told}");
    assert!(net.world.opened(reader).is_empty());
    for node in &mut net.nodes {
        node.is_whole = true;
    }
    net.world.tick(60_000);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}

/// The revocation came after the request, and before the node read the log.
#[test]
fn a_node_decides_by_the_log_as_it_is_after_the_request_came() {
    let mut net = Net::new(1, 1);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    net.run_nodes();
    net.nodes[0].reads_on = false;
    let mut asking = Asking::new(&mut net, reader);
    net.world.revoke_user(OWNER, reader).unwrap();
    asking.step(&mut net);
    assert!(
        asking.told.contains("refuses: NotEntitled"),
        "{}",
        asking.told
    );
}

#[test]
fn a_clock_that_was_set_back_far_releases_nothing() {
    let mut net = Net::new(1, 1);
    let (reader, asking) = asked(&mut net);
    net.world.now = Position(net.world.now.0 - 700_000);
    net.restart(0);
    let now = net.world.now;
    let again = net.resigned(reader, &asking.sent[0], |of| {
        of.request.0[0] ^= 1;
        (of.time, of.expires) = (now, now.after(30_000));
    });
    net.put_in_inbox(net.nodes[0].peer, again.wire());
    assert_eq!(replies(&mut net, reader), 0);
}

#[test]
fn a_node_that_lies_is_named_and_the_others_open_it() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    for liar in 0..3 {
        let phone = net.world.device_of(reader);
        net.nodes[liar].lies = true;
        let told = net.unlock(phone);
        net.nodes[liar].lies = false;
        assert!(told.ends_with("1 segments\n"), "{told}");
        let is_named = told.contains(&format!("node {} lies\n", liar + 1));
        let was_asked = told.contains("asked 1 nodes");
        assert_eq!(is_named, was_asked, "{told}");
        assert_eq!(net.world.opened(phone), ["one"]);
    }
}

/// Answers are of use to nobody but the asker, in that request.
#[test]
fn an_answer_that_is_copied_to_another_request_is_passed_over() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let phone = net.world.device_of(reader);
    let mut first = Asking::new(&mut net, reader);
    net.run_nodes();
    let answers = net.inbox(reader);
    assert_eq!(answers.len(), 2);
    let mut second = Asking::new(&mut net, phone);
    for node in &mut net.nodes {
        node.is_up = false;
    }
    for answer in &answers {
        net.put_in_inbox(phone, answer);
    }
    second.step(&mut net);
    assert_eq!(second.told, "asked 2 nodes for 1 segments\n");
    assert!(net.world.opened(phone).is_empty());
    for answer in &answers {
        net.put_in_inbox(reader, answer);
    }
    first.step(&mut net);
    assert_eq!(net.world.opened(reader), ["one"]);
}

/// Each entry names the one before, and is signed. An end that is kept elsewhere tells where entries are missing there.
#[test]
fn the_audit_is_a_chain_that_shows_what_was_altered() {
    let mut net = Net::new(1, 1);
    let (reader, _) = asked(&mut net);
    for text in ["two", "three"] {
        net.world.rekey(OWNER);
        net.publish(&[text]);
        net.unlock(reader);
    }
    let identity = &net.world.peers[net.nodes[0].peer].identity;
    let key = identity.signing().verifying_key();
    let signed = |entry: &AuditEntry| {
        sign(identity.signing(), entry.clone())
            .unwrap()
            .wire()
            .to_vec()
    };
    let audit: Vec<_> = net.nodes[0].audit.iter().map(signed).collect();
    let read = |entries: &[&Vec<u8>]| {
        let mut chain = AuditChain::new(net.world.stream, net.key_node(0));
        let taken = entries
            .iter()
            .try_for_each(|of| chain.take(of, &key).map(drop));
        taken.map(|()| chain)
    };
    let all: Vec<_> = audit.iter().collect();
    assert_eq!(all.len(), 4);
    let whole = read(&all).unwrap();
    assert_eq!(whole.len(), 4);
    let mut later = net.nodes[0].audit[1].clone();
    later.time = later.time.after(1);
    let altered = signed(&later);
    let mut spoilt = audit[1].clone();
    *spoilt.last_mut().unwrap() ^= 1;
    let broken = |at: usize, entries: &[&Vec<u8>]| match read(entries) {
        Err(AuditFault::Broken { seq }) => assert_eq!(seq, at as u64),
        other => panic!("{other:?}"),
    };
    broken(2, &[all[0], &altered, all[2], all[3]]);
    broken(1, &[all[0], all[2], all[3]]);
    broken(0, &[all[1], all[2], all[3]]);
    broken(1, &[all[0], all[0]]);
    broken(1, &[all[0], all[2], all[1], all[3]]);
    assert!(matches!(
        read(&[all[0], &spoilt]),
        Err(AuditFault::NotSigned(_))
    ));
    let kept = *whole.end();
    assert!(read(&all[..3]).unwrap().ends(kept).is_err());
    assert!(whole.ends(kept).is_ok());
}

/// Who named the nodes says two things at once: neither counts, whichever a node saw first.
#[test]
fn a_node_whose_log_is_forked_releases_nothing_until_nodes_are_named_again() {
    let mut net = Net::new(2, 3);
    let admin = net.world.user();
    net.world
        .write_grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    let nodes = (0..3).map(|at| net.key_node(at)).collect();
    let set = KeyNodes {
        threshold: 2,
        nodes,
        condition: Condition::default(),
        generation: 0,
    };
    net.world.write(admin, LogBody::KeyNodes(set)).unwrap();
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let asking = Asking::new(&mut net, reader);
    assert_eq!(asking.sent.len(), 1);
    // What is asked for was still released a moment before.
    net.fork(admin);
    for restarts in [false, true] {
        if restarts {
            (0..3).for_each(|at| net.restart(at));
            net.unlock(reader);
        } else {
            net.run_nodes();
        }
        assert!(net.world.opened(reader).is_empty());
    }
    let audits = net.nodes.iter().flat_map(|node| &node.audit);
    let events: Vec<_> = audits.map(|of| format!("{:?}", of.event)).collect();
    let refused = events.iter().filter(|of| of.contains("UnknownDeal"));
    assert_eq!(refused.count(), 2);
    assert!(!events.iter().any(|of| of.contains("Released")));
    net.name(2, Condition::default());
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}
