//! What is released to those of whom some people approve.

use sealcast_protocol::{
    Approval, Approvers, Condition, Demand, LogBody, LogHash, Position, Roles, StreamTopics,
};

use super::rig::Net;
use crate::rig::{OWNER, since};

/// After so long a segment has ended in which something was just published.
const ENDED: u64 = 2 << 16;

/// Nodes that ask for the approval of so many of these.
fn asking_for(net: &mut Net, needed: u8, of: &[usize]) {
    let mut of: Vec<_> = of.iter().map(|peer| net.world.id(*peer)).collect();
    of.sort();
    let approved = Demand::Approved(Approvers { needed, of });
    net.name(2, Condition(vec![vec![approved]]));
}

/// Has somebody approve of another.
fn approve(net: &mut Net, by: usize, of: usize, until: Position) -> LogHash {
    let user = net.world.id(of);
    let approval = LogBody::Approve(Approval { user, until });
    net.world.write(by, approval).unwrap()
}

/// What the nodes said to a device of a reader that has nothing yet.
fn told(net: &mut Net, reader: usize) -> String {
    let device = net.world.device_of(reader);
    let told = net.unlock(device);
    let opened = net.world.opened(device) == ["one"];
    assert_eq!(told.contains("refuses: "), !opened, "{told}");
    told
}

/// Somebody who is asked of whom another is approved, with one message published.
fn begin() -> (Net, usize, usize) {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let ann = net.world.user();
    asking_for(&mut net, 1, &[ann]);
    let reader = net.reader_of_all();
    approve(&mut net, ann, reader, Position::END);
    net.world.tick(ENDED);
    (net, ann, reader)
}

/// Takes an item off the bus, and gives it.
fn hide(net: &mut Net, topic: &str, at: usize) -> Vec<u8> {
    net.world.bus.get_mut(topic).unwrap().remove(at)
}

fn chain_of(net: &Net, peer: usize) -> String {
    StreamTopics(net.world.stream).access(&net.world.device(peer))
}

#[test]
fn nothing_rests_on_who_wrote_more_than_the_bus_shows() {
    let (mut net, ann, reader) = begin();
    let [sue, eve] = [net.world.user(), net.world.user()];
    approve(&mut net, ann, reader, Position::START);
    approve(&mut net, ann, sue, Position::END);
    let chain = chain_of(&net, ann);
    let withdrawn = hide(&mut net, &chain, 1);
    assert!(told(&mut net, reader).contains("refuses: LogBehind"));
    // Of whom nothing rests on.
    asking_for(&mut net, 1, &[ann, eve]);
    approve(&mut net, eve, reader, Position::END);
    assert!(!told(&mut net, reader).contains("refuses"));
    approve(&mut net, eve, reader, Position::START);
    assert!(told(&mut net, reader).contains("refuses: LogBehind"));
    net.world.put(&chain, &withdrawn);
    assert!(told(&mut net, reader).contains("refuses: Condition"));
}

#[test]
fn nothing_rests_on_whose_device_list_is_hidden_in_part() {
    let (mut net, ann, reader) = begin();
    for _ in 0..2 {
        net.world.device_of(ann);
    }
    let list = net.world.id(ann).devices_topic();
    let hidden = hide(&mut net, &list, 1);
    assert!(told(&mut net, reader).contains("refuses: LogBehind"));
    net.world.put(&list, &hidden);
    assert!(!told(&mut net, reader).contains("refuses"));
}

#[test]
fn what_a_device_approved_is_void_when_its_card_is_revoked() {
    let (mut net, ann, reader) = begin();
    let laptop = net.world.device_of(ann);
    assert!(!told(&mut net, reader).contains("refuses"));
    // The access log does not know of it yet.
    net.world.out(laptop);
    assert!(!told(&mut net, reader).contains("refuses"));
    let other = net.world.device_of(ann);
    approve(&mut net, other, reader, Position::END);
    net.world.tick(1);
    net.world.out(other);
    assert!(told(&mut net, reader).contains("refuses: Condition"));
    approve(&mut net, ann, reader, Position::END);
    assert!(!told(&mut net, reader).contains("refuses"));
}

#[test]
fn approvals_are_counted_until_they_end_or_one_is_removed() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let [ann, ben] = [net.world.user(), net.world.user()];
    asking_for(&mut net, 2, &[ann, ben]);
    let reader = net.reader_of_all();
    net.world.tick(ENDED);
    let opens = |net: &mut Net| {
        let told = told(net, reader);
        let is_refused = told.contains("refuses: Condition");
        assert_eq!(told.contains("refuses"), is_refused, "{told}");
        !is_refused
    };
    assert!(!opens(&mut net));
    approve(&mut net, ann, reader, Position::END);
    assert!(!opens(&mut net));
    let soon = net.world.now.after(600_000);
    approve(&mut net, ben, reader, soon);
    assert!(opens(&mut net));
    net.world.now = soon;
    assert!(!opens(&mut net));
    approve(&mut net, ben, reader, Position::END);
    assert!(opens(&mut net));
    approve(&mut net, ann, reader, Position::START);
    assert!(!opens(&mut net));
    approve(&mut net, ann, reader, Position::END);
    net.world.revoke_user(OWNER, reader).unwrap();
    net.world.tick(1);
    net.world
        .write_grant(OWNER, reader, Roles::READER, since(Position::START))
        .unwrap();
    assert!(!opens(&mut net));
    for by in [ann, ben] {
        approve(&mut net, by, reader, Position::END);
    }
    assert!(opens(&mut net));
}

/// Nobody approves whom the condition does not name, and nobody of himself.
#[test]
fn who_is_not_asked_approves_of_nobody() {
    let mut net = Net::new(2, 2);
    let [ann, eve] = [net.world.user(), net.world.user()];
    asking_for(&mut net, 1, &[ann]);
    let until = Position::END;
    for (by, user) in [(eve, ann), (OWNER, eve), (ann, ann)] {
        let user = net.world.id(user);
        let approval = LogBody::Approve(Approval { user, until });
        assert!(net.world.write(by, approval).is_err());
    }
}

/// What it approved of is over then; who is not sure takes it back, and that is heard.
#[test]
fn who_is_asked_no_more_takes_back_and_approves_of_nobody() {
    let mut net = Net::new(2, 2);
    let [ann, eve, reader] = [net.world.user(), net.world.user(), net.world.user()];
    asking_for(&mut net, 1, &[ann]);
    approve(&mut net, ann, reader, Position::END);
    asking_for(&mut net, 1, &[eve]);
    let user = net.world.id(reader);
    let say = |until| LogBody::Approve(Approval { user, until });
    assert!(net.world.write(ann, say(Position::END)).is_err());
    assert!(net.world.write(ann, say(Position::START)).is_ok());
}
