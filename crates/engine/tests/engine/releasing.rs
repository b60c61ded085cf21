//! Key nodes release what the access log allows, and nothing else; fewer than are needed release nothing.

mod approved;
mod asker;
mod bounds;
mod closed;
mod ended;
mod entitled;
mod forged;
mod garbage;
mod hostile;
mod many;
mod paced;
mod read_by;
mod records;
mod renewed;
mod rig;
mod seeded;

use sealcast_engine::{Covered, NotSealed};
use sealcast_protocol::{Condition, Demand, LogHash, Position, SessionId};

use crate::rig::{NOON, OWNER, World};
use rig::Net;

const SET: LogHash = LogHash([0x5e; 32]);

#[test]
fn two_of_three_nodes_open_what_a_reader_may_read() {
    let mut net = Net::new(2, 3);
    net.publish(&["one", "two", "three"]);
    let reader = net.reader_of_all();
    assert!(net.world.opened(reader).is_empty());
    assert_eq!(
        net.unlock(reader),
        "asked 2 nodes for 1 segments\n1 segments\n"
    );
    assert_eq!(net.world.opened(reader), ["one", "two", "three"]);
}

#[test]
fn three_of_five_do_with_two_of_them_down() {
    let mut net = Net::new(3, 5);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    net.nodes[0].is_up = false;
    net.nodes[3].is_up = false;
    let told = net.unlock(reader);
    assert!(told.ends_with("1 segments\n"), "{told}");
    assert_eq!(net.world.opened(reader), ["one"]);
}

#[test]
fn fewer_than_are_needed_release_nothing_and_it_is_left_to_others() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    net.nodes[0].is_up = false;
    net.nodes[1].is_up = false;
    let told = net.unlock(reader);
    let last = "failed: TooFew { answered: 1, needed: 2, refused: [] }\nleft to others\n";
    assert!(told.ends_with(last), "{told}");
    assert!(net.world.opened(reader).is_empty());
}

#[test]
fn a_new_device_of_a_reader_opens_what_its_user_may_read() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    net.unlock(reader);
    let phone = net.world.device_of(reader);
    net.unlock(phone);
    assert_eq!(net.world.opened(phone), ["one"]);
}

#[test]
fn what_was_released_is_not_asked_for_again_and_is_there_after_a_restart() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    net.unlock(reader);
    net.world.sync(reader);
    net.world.restart(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    assert_eq!(net.unlock(reader), "");
}

#[test]
fn nothing_is_sealed_before_its_records_are_there() {
    let mut world = World::new(1);
    world.publish(OWNER, "before there were any").unwrap();
    let mut net = Net::new(1, 1);
    net.world.sync(OWNER);
    net.world.rekey(OWNER);
    let owner = &mut net.world.peers[OWNER];
    let session = owner.lane.session;
    let sealed = owner.publisher.seal(
        NOON,
        &mut owner.lane,
        &owner.view,
        &[sealcast_protocol::Draft::Single(b"x")],
    );
    let at = owner.lane.next_position(NOON, owner.view.mark()).unwrap();
    assert_eq!(
        sealed.map(|_| ()),
        Err(NotSealed::NeedsSegments(session, at))
    );
}

#[test]
fn records_are_made_for_a_quarter_of_an_hour_at_a_time_and_each_once() {
    let (session, start) = (SessionId([1; 16]), Position(5 << 20));
    let (due, covered) = Covered::NONE.due(session, start.after(7), SET);
    // 16, 4 and 1 in the block, and the six above.
    assert_eq!(due.len(), 27);
    assert!(
        covered.covers(&session, start) && covered.covers(&session, start.after((1 << 20) - 1))
    );
    assert!(!covered.covers(&session, start.after(1 << 20)));
    assert!(!covered.covers(&SessionId([2; 16]), start));

    let (next, covered) = covered.due(session, start.after(1 << 20), SET);
    assert_eq!(next.len(), 21);
    assert!(covered.covers(&session, start));
    // Where those above begin anew they are made anew.
    let (later, _) = covered.due(session, Position(8 << 20), SET);
    assert_eq!(later.len(), 22);
    let (other, _) = covered.due(SessionId([2; 16]), start.after(1 << 20), SET);
    assert_eq!(other.len(), 27);
}

#[test]
fn nothing_is_released_while_the_condition_does_not_hold() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let later = net.world.now.after(600_000);
    net.name(2, Condition(vec![vec![Demand::After(later)]]));
    net.world.deal(OWNER);
    let told = net.unlock(reader);
    assert!(told.contains("refuses: Condition"), "{told}");
    assert!(net.world.opened(reader).is_empty());
    net.world.now = later;
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}

#[test]
fn a_node_that_was_replaced_releases_nothing_and_the_others_go_on() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let gone = net.key_node(1);
    net.name_some(2, Condition::default(), &[0, 2]);
    // Nobody has dealt anew: the publisher is gone for good.
    let reader = net.reader_of_all();
    let mut asking = rig::Asking::new(&mut net, reader);
    asking.step(&mut net);
    assert_eq!(asking.told, "asked 2 nodes for 1 segments\n1 segments\n");
    let asked = asking.sent[0].clone();
    let again = net.resigned(reader, &asked, |of| {
        of.request.0[0] ^= 1;
        of.nodes = vec![2];
    });
    net.world.put(&gone.device.inbox_topic(), again.wire());
    net.run_nodes();
    assert_eq!(net.nodes[1].audit.len(), 2);
    assert!(format!("{:?}", net.nodes[1].audit[1].event).ends_with("UnknownDeal)"));
}

#[test]
fn a_node_that_joins_is_dealt_to_and_opens_what_was_sealed_before() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    net.add_node();
    net.name(2, Condition::default());
    net.world.deal(OWNER);
    let reader = net.reader_of_all();
    let new = (0..4).find(|at| net.nodes[*at].audit.is_empty() && net.nodes[*at].peer == 4);
    for at in 0..4 {
        net.nodes[at].is_up = Some(at) == new || at == (new.unwrap() + 1) % 4;
    }
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}
