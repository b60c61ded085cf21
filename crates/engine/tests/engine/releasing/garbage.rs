//! What comes into an asker's inbox while it waits for key nodes.

use sealcast_crypto::NodeShare;
use sealcast_protocol::{
    DealId, KeyNode, NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest,
    RequestId, StreamId, Unverified, Verified, sign,
};

use super::rig::{Asking, Net};

/// Makes something false of what a node answers, and of what another one does.
type Lie = fn(&mut Net, &Verified<NodeRequest>, NodeAnswer, NodeAnswer) -> NodeAnswer;

/// What two of three nodes answered, which the asker has not seen.
fn answered(net: &mut Net, asker: usize) -> Vec<Vec<u8>> {
    net.run_nodes();
    let answers = net.inbox(asker);
    assert_eq!(answers.len(), 2);
    answers
}

fn decoded(item: &[u8]) -> NodeAnswer {
    let answer = Unverified::<NodeAnswer>::decode(item).unwrap();
    answer.claims().clone()
}

/// fault 8: what no node that was asked signed for the request is nothing, and leaves it open.
#[test]
fn garbage_and_torn_mixed_or_forged_answers_leave_a_request_to_nodes_open() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    let good = answered(&mut net, reader);
    let asked = asking.sent[0].clone();
    let begun = "asked 2 nodes for 1 segments\n";
    assert_eq!(asking.told, begun);

    let bad = [torn(&good), of_others(&mut net, reader, &asked, &good)].concat();
    for item in &bad {
        assert!(!good.contains(item));
        net.put_in_inbox(reader, item);
    }
    asking.step(&mut net);
    assert_eq!(asking.told, begun);
    assert_eq!(asking.combiner.open_requests(), 1);
    assert!(net.world.opened(reader).is_empty());

    for item in &good {
        net.put_in_inbox(reader, item);
    }
    asking.step(&mut net);
    assert_eq!(asking.told, format!("{begun}1 segments\n"));
    assert_eq!((asking.done, asking.left), (1, 0));
    assert_eq!(net.world.opened(reader), ["one"]);
}

/// fault 8: what a node that was asked signed, and that is false, is told, and costs that node alone.
#[test]
fn who_answers_with_something_false_is_told_and_the_others_open_it_all_the_same() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    for (n, lie) in lies().into_iter().enumerate() {
        for who in [0, 1] {
            let phone = net.world.device_of(reader);
            let mut asking = Asking::new(&mut net, phone);
            let good = answered(&mut net, phone);
            let (mine, other) = (decoded(&good[who]), decoded(&good[1 - who]));
            let index = mine.to.index;
            let false_one = lie(&mut net, &asking.sent[0], mine, other);
            let peer = net.nodes[usize::from(index) - 1].peer;
            let lied = sign(net.world.peers[peer].identity.signing(), false_one).unwrap();
            // Its right one comes too late.
            let come: [&[u8]; 3] = [lied.wire(), &good[who], &good[1 - who]];
            for item in come {
                net.put_in_inbox(phone, item);
            }
            while asking.combiner.open_requests() > 0 {
                asking.step(&mut net);
            }
            let told = format!("lie {n} of node {index}: {}", asking.told);
            let named = format!("node {index} lies\n");
            assert!(asking.told.contains(&named), "{told}");
            assert_eq!(asking.told.matches("lies").count(), 1, "{told}");
            assert_eq!((asking.done, asking.left), (1, 0), "{told}");
            assert_eq!(net.world.opened(phone), ["one"], "{told}");
        }
    }
}

/// No answers, and such as are cut short, grown, flipped somewhere, or joined of two.
fn torn(good: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut items = vec![b"garbage".to_vec(), vec![0; 20_000]];
    for (item, other) in [(&good[0], &good[1]), (&good[1], &good[0])] {
        let len = item.len();
        items.extend((0..len).map(|at| item[..at].to_vec()));
        items.extend((0..len).map(|at| {
            let mut flipped = item.clone();
            flipped[at] ^= 1;
            flipped
        }));
        items.push([&item[..], &[0]].concat());
        items.push([&item[..], &other[..]].concat());
        // The signature of the other one, and half of all that it says.
        for at in [len - 64, len / 2] {
            items.push([&item[..at], &other[at..]].concat());
        }
    }
    items
}

/// Answers to another request, and answers and refusals of this one by whom it is not for to give them.
fn of_others(
    net: &mut Net,
    reader: usize,
    asked: &Verified<NodeRequest>,
    good: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let (stranger, phone) = (net.world.user(), net.world.device_of(reader));
    let of_phone = Asking::new(net, phone);
    let mut items = answered(net, phone);
    items.push(of_phone.sent[0].wire().to_vec());
    items.push(asked.wire().to_vec());

    let peer_of = |index: u8| net.nodes[usize::from(index) - 1].peer;
    let named = |peer: usize| KeyNode {
        user: net.world.id(peer),
        device: net.world.device(peer),
    };
    let answer = decoded(&good[0]);
    let (first, second) = (answer.to, decoded(&good[1]).to);
    let mut indices = 1..=3;
    let third = indices.find(|index| !asked.body().nodes.contains(index));
    let third = third.unwrap();
    let (own, two, three) = (peer_of(first.index), peer_of(second.index), peer_of(third));
    let forged = [
        // In the name of a node that was asked.
        (stranger, first),
        (two, first),
        (three, first),
        // In its own name, of one that is no node, was not asked, or is another one.
        (stranger, with(first, |to| to.node = named(stranger))),
        (three, with(first, |to| to.node = named(three))),
        (two, with(first, |to| to.node = named(two))),
        (
            three,
            with(first, |to| (to.index, to.node) = (third, named(three))),
        ),
        // Of one that was asked, to something else.
        (own, with(first, |to| to.stream = StreamId([7; 32]))),
        (own, with(first, |to| to.asker = net.world.device(phone))),
        (own, with(first, |to| to.request = RequestId([7; 16]))),
        (own, with(first, |to| to.asked = [7; 32])),
        (own, with(first, |to| to.deal = DealId([7; 32]))),
    ];
    for (signer, to) in forged {
        let key = net.world.peers[signer].identity.signing();
        let answer = NodeAnswer {
            to,
            ..answer.clone()
        };
        let refusal = NodeRefusal {
            version: 1,
            to,
            reason: NodeRefusalReason::NotEntitled,
            wait_ms: 0,
        };
        items.push(sign(key, answer).unwrap().wire().to_vec());
        items.push(sign(key, refusal).unwrap().wire().to_vec());
    }
    items
}

fn with(mut to: NodeReplyTo, change: impl FnOnce(&mut NodeReplyTo)) -> NodeReplyTo {
    change(&mut to);
    to
}

/// What a node that was asked may sign.
fn lies() -> [Lie; 7] {
    [
        |_, _, mut mine, _| {
            mine.wrapped[700] ^= 1;
            mine
        },
        |_, _, mut mine, _| {
            mine.wrapped.fill(0);
            mine
        },
        // As long as for two segments.
        |_, _, mut mine, _| {
            mine.wrapped.extend([0_u8; 64]);
            mine
        },
        |_, _, mine, other| NodeAnswer {
            wrapped: other.wrapped,
            ..mine
        },
        // Another share than it was dealt, that of the other one, and a false pepper.
        |net, asked, mine, _| sealed(net, asked, &mine, &mine, |share| share[0] ^= 1),
        |net, asked, mine, other| sealed(net, asked, &mine, &other, |_| ()),
        |net, asked, mine, _| sealed(net, asked, &mine, &mine, |share| share[63] ^= 1),
    ]
}

/// What a node answers that has the share of this or another one, altered.
fn sealed(
    net: &mut Net,
    asked: &Verified<NodeRequest>,
    mine: &NodeAnswer,
    holder: &NodeAnswer,
    change: impl FnOnce(&mut [u8; 64]),
) -> NodeAnswer {
    let share_of = |of: &NodeAnswer| {
        let peer = net.nodes[usize::from(of.to.index) - 1].peer;
        let view = &net.world.peers[peer].view;
        view.share(&asked.body().deal).unwrap()
    };
    let index = share_of(mine).index();
    let mut bytes = *share_of(holder).expose();
    change(&mut bytes);
    let share = NodeShare::from_bytes(index, &bytes).unwrap();
    NodeAnswer::seal(&mut net.world.rng, asked, &share, mine.to.node).unwrap()
}
