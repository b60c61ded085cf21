//! Under a condition that can end nothing is released that is yet to be published.

use sealcast_protocol::{
    Approval, Approvers, Condition, Demand, Interval, LogBody, Position, Roles, SessionId,
};

use super::rig::{Asking, Net};
use crate::rig::{NOON, OWNER};

/// The smallest segment, and how far clocks may be apart.
const MINUTE: u64 = 1 << 16;
const CLOCKS: u64 = 5_000;
const DAY: u64 = 86_400_000;

/// Two of three nodes that ask for the approval of somebody, and a reader whom it approves of.
fn begin() -> (Net, usize, usize) {
    begin_at(Position(NOON.0.next_multiple_of(1 << 32) - 5 * DAY))
}

fn begin_at(time: Position) -> (Net, usize, usize) {
    let mut net = Net::new(2, 3);
    net.world.now = time;
    let ann = net.world.user();
    let approved = approved_by(&net, ann);
    net.name(2, approved);
    let reader = net.reader_of_all();
    approve(&mut net, ann, reader, Position::END);
    (net, ann, reader)
}

fn approved_by(net: &Net, ann: usize) -> Condition {
    let of = vec![net.world.id(ann)];
    Condition(vec![vec![Demand::Approved(Approvers { needed: 1, of })]])
}

fn approve(net: &mut Net, by: usize, of: usize, until: Position) {
    let user = net.world.id(of);
    let approval = LogBody::Approve(Approval { user, until });
    net.world.write(by, approval).unwrap();
}

/// Waits until the smallest segment of now has ended for everybody.
fn pass(net: &mut Net) {
    let end = net.world.now.after(1).0.next_multiple_of(MINUTE);
    net.world.now = Position(end + CLOCKS);
}

fn say(net: &mut Net, text: &str) {
    net.world.publish(OWNER, text).unwrap();
}

fn session(net: &Net) -> SessionId {
    net.world.peers[OWNER].lane.session
}

#[test]
fn what_is_published_after_an_approval_ended_opens_by_no_node() {
    for withdraws in [true, false] {
        let (mut net, ann, reader) = begin();
        say(&mut net, "one");
        pass(&mut net);
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
        let until = match withdraws {
            true => Position::START,
            false => net.world.now,
        };
        approve(&mut net, ann, reader, until);
        say(&mut net, "two");
        for _ in 0..3 {
            pass(&mut net);
            let told = net.unlock(reader);
            assert!(told.contains("refuses: Condition"), "{told}");
            net.world.tick(5 * DAY);
        }
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

#[test]
fn what_is_published_after_the_time_until_which_nodes_release_opens_by_none() {
    let mut net = Net::new(2, 3);
    let until = net.world.now.after(10 * MINUTE);
    net.name(2, Condition(vec![vec![Demand::Before(until)]]));
    let reader = net.reader_of_all();
    say(&mut net, "one");
    pass(&mut net);
    net.unlock(reader);
    net.world.now = until;
    say(&mut net, "two");
    pass(&mut net);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}

/// The keys that were given while nothing could end reach weeks on, and those of another session open nothing.
#[test]
fn what_is_published_after_a_condition_was_set_opens_by_none_of_the_keys_from_before() {
    let stricter: [fn(&Net, usize) -> Condition; 3] = [
        approved_by,
        |net, _| Condition(vec![vec![Demand::Before(net.world.now)]]),
        |net, _| Condition(vec![vec![Demand::After(net.world.now.after(DAY))]]),
    ];
    for condition in stricter {
        let mut net = Net::new(1, 1);
        let (ann, reader) = (net.world.user(), net.reader_of_all());
        say(&mut net, "one");
        net.unlock(reader);
        say(&mut net, "two");
        assert_eq!(net.world.opened(reader), ["one", "two"]);
        let (before, condition) = (session(&net), condition(&net, ann));
        net.name(1, condition.clone());
        say(&mut net, "three");
        assert_ne!(session(&net), before);
        pass(&mut net);
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one", "two"]);
        // The same once more is no reason for another one, nor is none.
        let now = session(&net);
        for same in [condition, Condition::default()] {
            net.name(1, same);
            say(&mut net, "four");
            assert_eq!(session(&net), now);
        }
    }
}

#[test]
fn a_node_refuses_what_ends_later_than_now_and_says_when_to_ask() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    pass(&mut net);
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    let asked = asking.sent[0].clone();
    let end = asked.body().segments.iter().map(|of| of.interval().until);
    let end = end.max().unwrap();
    let last = |net: &mut Net, number: u8, early: u64| {
        net.inbox(reader);
        net.world.now = Position(end.0 - early);
        let again = net.renewed(reader, &asked, number, |of| of.nodes = vec![1, 2, 3]);
        for at in 0..3 {
            net.put_in_inbox(net.nodes[at].peer, again.wire());
        }
        net.run_nodes();
        let replies = net.inbox(reader);
        let waits = replies.iter().filter_map(|of| {
            sealcast_protocol::Unverified::<sealcast_protocol::NodeRefusal>::decode(of).ok()
        });
        let waits: Vec<_> = waits.map(|of| of.claims().wait_ms).collect();
        assert_eq!(replies.len(), 3);
        (net.last(0), waits)
    };
    let (early, waits) = last(&mut net, 1, 1);
    assert!(early.ends_with("NotEnded)"), "{early}");
    assert_eq!(waits, [1, 1, 1]);
    let (due, waits) = last(&mut net, 2, 0);
    assert!(due.starts_with("Released"), "{due}");
    assert!(waits.is_empty());
}

/// Whoever asks names old heads, and the bus hides from the node what the session was begun for: a condition that was set, or
/// a removal. With the session's record, or without it.
#[test]
fn a_node_takes_the_word_of_the_publisher_for_what_there_is_to_know() {
    for (removes, shows_record) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut net = Net::new(1, 1);
        let (ann, reader) = (net.world.user(), net.reader_of_all());
        say(&mut net, "one");
        let mut asking = Asking::new(&mut net, reader);
        while asking.combiner.open_requests() > 0 {
            asking.step(&mut net);
        }
        let (asked, before) = (asking.sent[0].clone(), session(&net));
        net.nodes[0].sees = Some(net.past());
        let node = net.nodes[0].peer;
        match removes {
            true => drop(net.world.revoke_user(OWNER, reader).unwrap()),
            false => {
                let approved = approved_by(&net, ann);
                net.name(1, approved);
            }
        }
        say(&mut net, "two");
        let now = session(&net);
        assert_ne!(now, before);
        if shows_record {
            let keys = sealcast_engine::ControlTopic::Keys;
            let topic = keys.name(net.world.stream);
            for item in net.world.bus[&topic].clone() {
                net.world.peers[node].view.handle(&keys, &item);
            }
            net.world.peers[node].view.settle();
        }
        for (number, of, says) in [(1, before, "Released"), (2, now, "Refused")] {
            let again = net.renewed(reader, &asked, number, |body| {
                (body.heads, body.session) = (asked.body().heads.clone(), of);
            });
            net.put_in_inbox(node, again.wire());
            net.run_nodes();
            let last = net.last(0);
            assert!(last.starts_with(says), "{last}");
            assert!(of == before || last.contains("LogBehind"), "{last}");
        }
    }
}

/// Who follows asks others at once, and key nodes when the segment has ended; not before.
#[test]
fn what_has_not_ended_is_asked_for_when_it_has() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    net.world.tick(1_000);
    say(&mut net, "two");
    let mut asking = Asking::new(&mut net, reader);
    let end = Position(net.world.now.0.next_multiple_of(MINUTE) + CLOCKS);
    let awaited = format!("awaited {}\n", end.0);
    assert_eq!(
        asking.told,
        format!("{awaited}left to others\nleft to others\n")
    );
    assert_eq!(asking.combiner.next_timeout(), Some(end));
    net.world.now = Position(end.0 - 1);
    asking.tick(&mut net);
    assert!(asking.sent.is_empty());
    assert_eq!(asking.combiner.next_timeout(), Some(end));
    net.world.now = end;
    asking.tick(&mut net);
    while asking.combiner.open_requests() > 0 {
        asking.step(&mut net);
    }
    assert_eq!(asking.sent.len(), 1);
    assert_eq!(net.world.opened(reader), ["one", "two"]);
    assert_eq!((asking.left, asking.combiner.next_timeout()), (2, None));
}

/// As it is where somebody else gave the keys meanwhile.
#[test]
fn what_others_gave_meanwhile_is_not_asked_for() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    let mut asking = Asking::new(&mut net, reader);
    let at = asking.combiner.next_timeout().unwrap();
    net.world
        .grant(OWNER, reader, Roles::ADMIN, Interval::ALL)
        .unwrap();
    assert_eq!(net.world.opened(reader), ["one"]);
    net.world.now = at;
    asking.tick(&mut net);
    assert_eq!(
        (asking.sent.len(), asking.combiner.next_timeout()),
        (0, None)
    );
}

/// The reader's clock is ahead.
#[test]
fn who_is_told_that_it_has_not_ended_asks_again_when_it_has() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    pass(&mut net);
    for node in &mut net.nodes {
        node.behind_ms = 100_000;
    }
    let mut asking = Asking::new(&mut net, reader);
    let due = net.world.now.after(100_000);
    while net.world.opened(reader).is_empty() {
        asking.step(&mut net);
    }
    assert!(asking.told.contains("refuses: NotEnded"), "{}", asking.told);
    assert_eq!(asking.sent.len(), 3, "{}", asking.told);
    assert!(net.world.now <= due.after(CLOCKS));
    // From then on it knows how far they are apart.
    say(&mut net, "two");
    asking.miss_all(&mut net);
    while net.world.opened(reader) != ["one", "two"] {
        asking.step(&mut net);
    }
    assert_eq!(asking.sent.len(), 4, "{}", asking.told);
}

/// Nothing else is published meanwhile that would have anybody ask.
#[test]
fn nodes_that_were_away_when_it_ended_are_asked_when_they_are_back() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    for node in &mut net.nodes {
        node.is_up = false;
    }
    let mut asking = Asking::new(&mut net, reader);
    let start = net.world.now;
    while net.world.now < start.after(17 * MINUTE) {
        asking.step(&mut net);
    }
    let sent = asking.sent.len();
    assert!((2..30).contains(&sent), "{sent}");
    for node in &mut net.nodes {
        node.is_up = true;
    }
    while net.world.opened(reader).is_empty() {
        asking.step(&mut net);
    }
    // The next larger segment around it ends after 64.
    assert!(net.world.now < start.after(40 * MINUTE));
}

/// Then it is no use to ask again, but when more has ended.
#[test]
fn nodes_that_refuse_for_the_condition_are_not_asked_on() {
    let (mut net, ann, reader) = begin();
    say(&mut net, "one");
    approve(&mut net, ann, reader, Position::START);
    pass(&mut net);
    let mut asking = Asking::new(&mut net, reader);
    let start = net.world.now;
    while net.world.now < start.after(DAY / 24) {
        asking.step(&mut net);
    }
    let told = &asking.told;
    assert!(told.contains("refuses: Condition"), "{told}");
    assert!(asking.sent.len() <= 8, "{} requests", asking.sent.len());
}

#[test]
fn nodes_that_go_on_saying_so_are_asked_less_and_less_often() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    pass(&mut net);
    for node in &mut net.nodes {
        node.stalls = true;
    }
    let mut asking = Asking::new(&mut net, reader);
    let start = net.world.now;
    while net.world.now < start.after(DAY / 2) {
        asking.step(&mut net);
    }
    let sent = asking.sent.len();
    assert!((20..60).contains(&sent), "{sent}");
    for node in &mut net.nodes {
        node.stalls = false;
    }
    while net.world.opened(reader).is_empty() {
        asking.step(&mut net);
    }
}

/// A line a day, and all of it in one request: a year has no more than 53 segments that have ended.
#[test]
fn a_year_opens_with_no_more_segments_than_without_a_condition() {
    let (mut net, _, reader) = begin_at(NOON);
    for day in 0..360 {
        say(&mut net, &day.to_string());
        net.world.tick(DAY);
    }
    pass(&mut net);
    net.world.sync(reader);
    let held = net.world.peers[reader].view.segment_records(&session(&net));
    assert!(held <= 53 + 9, "{held}");
    let mut asking = Asking::new(&mut net, reader);
    while asking.combiner.open_requests() > 0 {
        asking.step(&mut net);
    }
    assert_eq!(net.world.opened(reader).len(), 360);
    let segments: Vec<_> = asking
        .sent
        .iter()
        .map(|of| of.body().segments.len())
        .collect();
    assert!(segments.iter().sum::<usize>() <= 53, "{segments:?}");
}

/// What a device holds of a publisher who seals all the time is what may be asked for now or soon.
#[test]
fn of_a_session_that_goes_on_the_open_ones_are_held_and_the_largest_that_ended() {
    let (mut net, _, reader) = begin();
    say(&mut net, "first");
    let stored = |net: &Net| {
        let store = net.world.peers[reader].store.keys();
        let of = store.filter(|(space, _)| *space == sealcast_engine::Space::SegmentRecords);
        of.count()
    };
    let session = session(&net);
    for quarter in 1..200 {
        net.world.tick(1 << 20);
        net.world.cover(OWNER, session, net.world.now);
        net.world.sync(reader);
        let held = net.world.peers[reader].view.segment_records(&session);
        // Three that ended of each size, the open ones, and what is ahead in the quarter of an hour.
        assert!(held <= 3 * 8 + 9 + 21, "{held} after {quarter}");
        assert!(stored(&net) <= held, "{} for {held}", stored(&net));
    }
    let held = net.world.peers[reader].view.segment_records(&session);
    net.world.restart(reader);
    net.world.sync(reader);
    let view = &net.world.peers[reader].view;
    assert_eq!(view.segment_records(&session), held);
    // Nothing needs to be read again where nothing can end any more.
    let rereads = net.world.peers[reader].rereads;
    net.name(2, Condition::default());
    net.world.sync(reader);
    let peer = &net.world.peers[reader];
    assert!(peer.view.segment_records(&session) < 10);
    assert_eq!((peer.rereads, stored(&net)), (rereads, 1));
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["first"]);
}

/// What is given for a minute goes when what is given for four opens the same.
#[test]
fn who_follows_for_long_holds_no_more_keys_than_who_reads_it_all_at_once() {
    let (mut net, _, reader) = begin();
    let mut all = Vec::new();
    let stored = |net: &Net| {
        let store = net.world.peers[reader].store.keys();
        let of = store.filter(|(space, _)| *space == sealcast_engine::Space::Cover);
        of.count()
    };
    for minute in 0..100 {
        all.push(minute.to_string());
        say(&mut net, all.last().unwrap());
        pass(&mut net);
        net.unlock(reader);
        assert_eq!(net.world.opened(reader).len(), all.len());
        assert!(stored(&net) <= 4 * 3 + 1, "{} after {minute}", stored(&net));
    }
    net.world.restart(reader);
    assert_eq!(net.world.opened(reader), all);
}

/// The smaller ones were passed over while nothing could end.
#[test]
fn the_keys_are_read_again_when_a_condition_that_can_end_comes_into_force() {
    for restarts in [false, true] {
        let mut net = Net::new(1, 1);
        net.world.now = Position(NOON.0.next_multiple_of(1 << 32) - 5 * DAY);
        let (ann, reader) = (net.world.user(), net.reader_of_all());
        say(&mut net, "one");
        net.world.sync(reader);
        let session = session(&net);
        assert_eq!(net.world.peers[reader].view.segment_records(&session), 1);
        if restarts {
            net.world.restart(reader);
        }
        let approved = approved_by(&net, ann);
        net.name(1, approved);
        approve(&mut net, ann, reader, Position::END);
        net.world.sync(reader);
        assert_eq!(net.world.peers[reader].rereads, 1);
        assert!(net.world.peers[reader].view.segment_records(&session) > 9);
        pass(&mut net);
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

/// By a clock that was ahead they were taken for ended.
#[test]
fn the_keys_are_read_again_when_a_clock_was_ahead() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    let right = net.world.now;
    net.world.tick(DAY);
    net.world.sync(reader);
    net.world.now = right;
    net.world.sync(reader);
    assert_eq!(net.world.peers[reader].rereads, 1);
    // A second more or less is nothing.
    net.world.now = right.after(10_000);
    net.world.sync(reader);
    net.world.now = right;
    pass(&mut net);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    assert_eq!(net.world.peers[reader].rereads, 1);
}

/// Where a grant ends inside the smallest segment nobody waits for what no node will give.
#[test]
fn what_lies_in_no_segment_that_may_be_read_is_not_waited_for() {
    let (mut net, ann, _) = begin();
    net.world.now = Position(net.world.now.0.next_multiple_of(MINUTE));
    let until = net.world.now.after(MINUTE / 2);
    let reader = net.reader(Interval {
        from: Position::START,
        until,
    });
    approve(&mut net, ann, reader, Position::END);
    say(&mut net, "one");
    let asking = Asking::new(&mut net, reader);
    assert_eq!(asking.told, "left to others\n");
    assert_eq!(asking.combiner.next_timeout(), None);
}

/// What lay in segments that had ended by a clock that was ahead was given up, and is lacking when that is set right.
#[test]
fn what_went_while_a_clock_was_ahead_is_read_again_in_a_later_run() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    // Of this time there are smaller ones by themselves.
    net.world.tick(DAY);
    say(&mut net, "two");
    pass(&mut net);
    net.world.sync(reader);
    let now = net.world.now;
    net.world.now = now.after(60 * DAY);
    net.world.sync(reader);
    let by = net.world.peers[reader].view.read_by();
    net.world.now = now;
    net.world.restart(reader);
    net.world.peers[reader].view.restore_read_by(Some(&by));
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one", "two"]);
}

/// What others write in their chains is no reason to read the keys again.
#[test]
fn who_begins_again_does_not_take_a_clock_that_is_not_read_yet_for_one_set_back() {
    let (mut net, _, reader) = begin();
    say(&mut net, "one");
    net.world.tick(DAY);
    say(&mut net, "two");
    pass(&mut net);
    net.world.sync(reader);
    let by = net.world.peers[reader].view.read_by();
    net.world.restart(reader);
    let peer = &mut net.world.peers[reader];
    peer.view.restore_read_by(Some(&by));
    let before = peer.rereads;
    let other = net.world.user();
    net.world
        .write_grant(OWNER, other, Roles::READER, Interval::ALL)
        .unwrap();
    net.world.sync(reader);
    assert_eq!(net.world.peers[reader].rereads, before);
}
