//! Gaps, reordering, replays, branches and forks: told, and each once.

use sealcast_engine::{Mode, Publisher, Reader, Tracker};
use sealcast_protocol::{Interval, Position, Roles};

use crate::rig::{NOON, OWNER, World, between, header, lines};

const HISTORY: Mode = Mode::History(Interval::ALL);

#[test]
fn envelopes_in_order_are_opened_and_nothing_is_told() {
    let mut world = World::new(20);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    for mode in [HISTORY, Mode::Live] {
        let mut reader = Reader::new(mode);
        assert_eq!(world.feed(OWNER, &mut reader, &items), "a\nb\nc\n");
    }
}

#[test]
fn a_dropped_envelope_is_noticed_by_the_next() {
    let mut world = World::new(21);
    let mut items = world.sealed(OWNER, &["a", "b", "c", "d"]);
    items.drain(1..3);
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), &items);
    assert_eq!(told, "a\ngap of 2\nd\n");
}

#[test]
fn a_dropped_beginning_is_noticed() {
    let mut world = World::new(22);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut reader = Reader::new(HISTORY);
    assert_eq!(world.feed(OWNER, &mut reader, &items[2..]), "gap of 2\nc\n");
    assert_eq!(world.feed(OWNER, &mut reader, &items[..2]), "a\nb\n");
}

#[test]
fn what_was_missing_may_still_come_once() {
    let mut world = World::new(23);
    let items = world.sealed(OWNER, &["a", "b", "c", "d"]);
    let mut reader = Reader::new(HISTORY);
    let order = [0, 3, 2, 1, 2].map(|at: usize| &items[at]);
    let told = world.feed(OWNER, &mut reader, order);
    assert_eq!(told, "a\ngap of 2\nd\nc\nb\nReplay\n");
}

#[test]
fn the_same_envelope_twice_is_a_replay() {
    let mut world = World::new(24);
    let items = world.sealed(OWNER, &["a", "b"]);
    let order = [0, 0, 1, 0].map(|at: usize| &items[at]);
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), order);
    assert_eq!(told, "a\nReplay\nb\nReplay\n");
}

/// fault 20
#[test]
fn reading_history_again_is_no_replay_and_leaves_live_reading_alone() {
    let mut world = World::new(25);
    let items = world.sealed(OWNER, &["a", "b"]);
    let mut live = Reader::new(Mode::Live);
    assert_eq!(world.feed(OWNER, &mut live, &items), "a\nb\n");
    for _ in 0..2 {
        assert_eq!(
            world.feed(OWNER, &mut Reader::new(HISTORY), &items),
            "a\nb\n"
        );
    }
    let next = world.sealed(OWNER, &["c"]);
    assert_eq!(
        world.feed(OWNER, &mut live, items.iter().chain(&next)),
        "Replay\nReplay\nc\n"
    );
}

#[test]
fn what_was_delivered_live_is_a_replay_after_a_restart() {
    let mut world = World::new(26);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut live = Reader::new(Mode::Live);
    world.feed(OWNER, &mut live, &items[..2]);
    let mut again = resumed(&live);
    assert_eq!(world.feed(OWNER, &mut again, &items), "Replay\nReplay\nc\n");
    assert_eq!(
        world.feed(OWNER, &mut resumed(&again), &items[2..]),
        "Replay\n"
    );
}

fn resumed(reader: &Reader) -> Reader {
    let mut again = Reader::new(Mode::Live);
    for (device, tracker) in reader.trackers() {
        again.resume(*device, Tracker::from_bytes(&tracker.to_bytes()).unwrap());
    }
    again
}

#[test]
fn a_hole_is_still_a_hole_after_a_restart() {
    let mut world = World::new(27);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut live = Reader::new(Mode::Live);
    let told = world.feed(OWNER, &mut live, [&items[0], &items[2]]);
    assert_eq!(told, "a\ngap of 1\nc\n");
    let mut again = resumed(&live);
    assert_eq!(
        world.feed(OWNER, &mut again, [&items[1], &items[1]]),
        "b\nReplay\n"
    );
}

/// Every message comes from a run of its own, as from a program that a timer starts.
#[test]
fn a_dropped_run_is_noticed_by_the_next_run() {
    let mut world = World::new(28);
    let mut items = Vec::new();
    for text in ["a", "b", "c", "d"] {
        world.new_run(OWNER);
        items.extend(world.sealed(OWNER, &[text]));
    }
    items.remove(2);
    for mode in [HISTORY, Mode::Live] {
        let mut reader = Reader::new(mode);
        assert_eq!(world.feed(OWNER, &mut reader, &items), "a\nb\nd\n");
        reader.give_up(&world.peers[OWNER].view, true);
        let none: [&Vec<u8>; 0] = [];
        assert_eq!(world.feed(OWNER, &mut reader, none), "gap of 0\n");
    }
}

#[test]
fn a_late_run_is_waited_for_only_so_long() {
    let mut world = World::new(29);
    let first = world.sealed(OWNER, &["first"]);
    world.new_run(OWNER);
    let lost = world.sealed(OWNER, &["lost"]);
    world.new_run(OWNER);
    let texts: Vec<_> = (0..70).map(|at| at.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let items = world.sealed(OWNER, &texts);
    let mut reader = Reader::new(HISTORY);
    let told = world.feed(
        OWNER,
        &mut reader,
        first.iter().chain(&items[..40]).chain(&lost),
    );
    assert!(
        !told.contains("gap") && told.ends_with("39\nlost\n"),
        "{told}"
    );
    let mut reader = resumed_from(&world, &first);
    let told = world.feed(OWNER, &mut reader, &items);
    assert_eq!(told.matches("gap").count(), 1, "{told}");
    assert!(told.contains("63\ngap of 0\n64\n"), "{told}");
}

fn resumed_from(world: &World, items: &[Vec<u8>]) -> Reader {
    let mut reader = Reader::new(HISTORY);
    world.feed(OWNER, &mut reader, items);
    reader
}

#[test]
fn a_run_that_is_waited_for_is_not_forgotten_by_a_restart() {
    let mut world = World::new(30);
    let first = world.sealed(OWNER, &["first"]);
    world.new_run(OWNER);
    world.sealed(OWNER, &["lost"]);
    world.new_run(OWNER);
    let last = world.sealed(OWNER, &["last"]);
    let mut live = Reader::new(Mode::Live);
    assert_eq!(
        world.feed(OWNER, &mut live, first.iter().chain(&last)),
        "first\nlast\n"
    );
    let mut again = resumed(&live);
    again.give_up(&world.peers[OWNER].view, true);
    let none: [&Vec<u8>; 0] = [];
    assert_eq!(world.feed(OWNER, &mut again, none), "gap of 0\n");
}

/// Two processes of one home: the second follows the newest of the first, and both go on.
#[test]
fn two_processes_of_one_home_are_one_branch() {
    let mut world = World::new(31);
    let mut items = world.sealed(OWNER, &["a1", "a2"]);
    let first = swap_run(&mut world, None);
    items.extend(world.sealed(OWNER, &["b1"]));
    let second = swap_run(&mut world, Some(first));
    items.extend(world.sealed(OWNER, &["a3"]));
    let first = swap_run(&mut world, Some(second));
    items.extend(world.sealed(OWNER, &["b2"]));
    swap_run(&mut world, Some(first));
    items.extend(world.sealed(OWNER, &["a4", "a5"]));
    let told = "a1\na2\nb1\nBranch\na3\nb2\na4\na5\n";
    for mode in [HISTORY, Mode::Live] {
        assert_eq!(world.feed(OWNER, &mut Reader::new(mode), &items), told);
    }
    let mut reader = Reader::new(Mode::Live);
    assert_eq!(
        world.feed(OWNER, &mut reader, &items[3..]),
        "a3\nb2\na4\na5\n"
    );
    let mut reader = Reader::new(Mode::Live);
    world.feed(OWNER, &mut reader, &items[..3]);
    let told = world.feed(OWNER, &mut resumed(&reader), &items[3..]);
    assert_eq!(told, "Branch\na3\nb2\na4\na5\n");
}

fn swap_run(world: &mut World, run: Option<Publisher>) -> Publisher {
    let run = run.unwrap_or_else(|| {
        Publisher::new(world.stream, &world.peers[OWNER].identity, &mut world.rng)
    });
    std::mem::replace(&mut world.peers[OWNER].publisher, run)
}

#[test]
fn a_home_that_forgot_its_lane_is_a_branch() {
    let mut world = World::new(32);
    let mut items = world.sealed(OWNER, &["a", "b"]);
    let (session, is_announced) = (world.peers[OWNER].lane.session, true);
    world.peers[OWNER].lane = sealcast_engine::Lane {
        session,
        is_announced,
        ..sealcast_engine::Lane::default()
    };
    world.new_run(OWNER);
    items.extend(world.sealed(OWNER, &["c"]));
    assert_eq!(
        world.feed(OWNER, &mut Reader::new(HISTORY), &items),
        "a\nb\nBranch\nc\n"
    );
}

/// A copy of a running machine: both go on with one run.
#[test]
fn a_cloned_run_is_a_fork() {
    let mut world = World::new(33);
    let mut items = world.sealed(OWNER, &["a"]);
    let twin = twin_sealed(&mut world, &["x", "y"]);
    items.extend(world.sealed(OWNER, &["b", "c"]));
    let first = world.feed(OWNER, &mut Reader::new(HISTORY), items.iter().chain(&twin));
    assert_eq!(first, "a\nb\nc\nFork\nFork\n");
    let order = [&items[0], &twin[0], &items[1], &items[2]];
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), order);
    assert_eq!(told, "a\nx\nFork\nFork\nc\n");
    let order = [&items[0], &twin[1], &items[1]];
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), order);
    assert_eq!(told, "a\ngap of 1\ny\nFork\nb\n");
}

/// What a copy of the publisher seals that goes on from the same place.
fn twin_sealed(world: &mut World, texts: &[&str]) -> Vec<Vec<u8>> {
    let of = &mut world.peers[OWNER];
    let mut lane = of.lane;
    let drafts: Vec<_> = texts
        .iter()
        .map(|text| sealcast_protocol::Draft::Single(text.as_bytes()))
        .collect();
    // Not advancing over a batch leaves the publisher where it was, as in the original.
    let sealed = of
        .publisher
        .seal(world.now, &mut lane, &of.view, &drafts)
        .unwrap();
    sealed.envelopes.into_iter().map(|of| of.bytes).collect()
}

#[test]
fn a_batch_that_never_left_leaves_no_trace() {
    let mut world = World::new(34);
    let mut items = world.sealed(OWNER, &["a"]);
    twin_sealed(&mut world, &["never left"]);
    items.extend(world.sealed(OWNER, &["b"]));
    assert_eq!(
        world.feed(OWNER, &mut Reader::new(HISTORY), &items),
        "a\nb\n"
    );
}

#[test]
fn live_reading_that_starts_midway_takes_any_first_envelope() {
    let mut world = World::new(35);
    let items = world.sealed(OWNER, &["a", "b", "c", "d", "e"]);
    let mut live = Reader::new(Mode::Live);
    let order = [2, 4, 1].map(|at: usize| &items[at]);
    assert_eq!(
        world.feed(OWNER, &mut live, order),
        "c\ngap of 1\ne\nReplay\n"
    );
}

#[test]
fn runs_from_before_live_reading_are_not_live() {
    let mut world = World::new(36);
    let old = world.sealed(OWNER, &["yesterday's"]);
    world.tick(86_400_000);
    world.new_run(OWNER);
    let items = world.sealed(OWNER, &["a", "b"]);
    let mut live = Reader::new(Mode::Live);
    let told = world.feed(OWNER, &mut live, items.iter().chain(&old));
    assert_eq!(told, "a\nb\nReplay\n");
    let mut live = Reader::new(Mode::Live);
    live.raise_floor(Position(world.now.0 - 60_000));
    let told = world.feed(OWNER, &mut live, old.iter().chain(&items));
    assert_eq!(told, "Replay\na\nb\n");
}

/// Following from a position on: what lies before it is passed by, and never becomes live.
#[test]
fn what_history_passed_by_is_not_live_afterwards() {
    let mut world = World::new(37);
    let mut items = world.sealed(OWNER, &["a", "b"]);
    world.tick(1_000);
    let from = world.now;
    items.extend(world.sealed(OWNER, &["c"]));
    world.new_run(OWNER);
    items.extend(world.sealed(OWNER, &["d"]));
    let mut reader = Reader::new(Mode::History(between(from, Position::END)));
    assert_eq!(world.feed(OWNER, &mut reader, &items), "c\nd\n");
    reader.go_live();
    let next = world.sealed(OWNER, &["e"]);
    let told = world.feed(OWNER, &mut reader, items.iter().chain(&next));
    assert_eq!(told, "Replay\nReplay\nReplay\nReplay\ne\n");
}

/// Older data that came in lately lies before the position to follow from, and stays there.
#[test]
fn older_data_that_was_passed_by_is_not_live_afterwards() {
    let mut world = World::new(44);
    world.publish(OWNER, "a").unwrap();
    let interval = between(Position(5), Position(50));
    world.backfill(OWNER, interval, &[(7, "old")]);
    let items = world.data().clone();
    let mut reader = Reader::new(Mode::History(between(NOON, Position::END)));
    assert_eq!(world.feed(OWNER, &mut reader, &items), "a\n");
    reader.go_live();
    assert_eq!(world.feed(OWNER, &mut reader, &items), "Replay\nReplay\n");
}

/// Live and older data by turns in one run: parts of it lie outside the interval that is read.
#[test]
fn a_run_that_leaves_the_interval_and_comes_back_has_no_gap() {
    let mut world = World::new(38);
    let mut items = world.sealed(OWNER, &["a"]);
    let interval = between(Position(10), Position(90));
    let kind = sealcast_protocol::SessionKind::Backfill { interval };
    let new = world.draw(OWNER, NOON, kind);
    let of = &mut world.peers[OWNER];
    let records: Vec<_> = [20, 40, 60].map(|at| (Position(at), vec![b'o'])).into();
    let past = of
        .publisher
        .seal_past(&mut of.lane, &of.view, new.session, &records)
        .unwrap();
    of.publisher.advance(&past);
    items.extend(past.envelopes.into_iter().map(|of| of.bytes));
    items.extend(world.sealed(OWNER, &["b", "c"]));
    let recent = Mode::History(between(NOON, Position::END));
    assert_eq!(
        world.feed(OWNER, &mut Reader::new(recent), &items),
        "a\nb\nc\n"
    );
    let old = Mode::History(between(Position(30), Position(90)));
    assert_eq!(world.feed(OWNER, &mut Reader::new(old), &items), "o\no\n");
    items.remove(2);
    let told = world.feed(OWNER, &mut Reader::new(recent), &items);
    assert_eq!(told, "a\ngap of 2\nb\nc\n");
}

/// Forged envelopes say what they like: nothing that they say counts.
#[test]
fn forged_envelopes_change_nothing_about_honest_ones() {
    let mut world = World::new(39);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut forged = items.clone();
    for item in &mut forged {
        item[80] ^= 1;
    }
    let outside = Mode::History(between(NOON.after(1), Position::END));
    let order: Vec<_> = forged.iter().chain(&items).chain(&forged).collect();
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), order.clone());
    assert_eq!(told.replace("rejected: BadSignature\n", ""), "a\nb\nc\n");
    assert_eq!(told.matches("rejected").count(), 6);
    assert_eq!(world.feed(OWNER, &mut Reader::new(outside), order), "");
    // A false predecessor hides no gap.
    world.tick(1);
    let next = world.sealed(OWNER, &["d", "e"]);
    let mut reader = Reader::new(outside);
    let told = world.feed(
        OWNER,
        &mut reader,
        items[..2].iter().chain(&forged[2..]).chain(&next),
    );
    assert_eq!(told, "gap of 3\nd\ne\n");
}

/// `spec/reading.md`, section "Order": what is passed by counts by its hash. Who reads its interval is told
/// that the signature does not hold.
#[test]
fn what_is_passed_by_counts_by_what_it_says_and_not_by_its_signature() {
    let mut world = World::new(139);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut forged = items[2].clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut reader = Reader::new(HISTORY);
    let told = world.feed(OWNER, &mut reader, [&forged]);
    assert_eq!(told, "rejected: BadSignature\n");
    world.tick(1);
    let next = world.sealed(OWNER, &["d"]);
    let outside = Mode::History(between(NOON.after(1), Position::END));
    let order = items[..2].iter().chain([&forged]).chain(&next);
    let told = world.feed(OWNER, &mut Reader::new(outside), order);
    assert_eq!(told, "d\n");
}

/// As above, where live reading goes on: what came meanwhile is passed by.
#[test]
fn what_came_meanwhile_counts_by_what_it_says() {
    let mut world = World::new(140);
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    let mut first = Reader::new(Mode::Live);
    assert_eq!(world.feed(OWNER, &mut first, &items[..1]), "a\n");
    let next = world.sealed(OWNER, &["d"]);
    // In the signature, and in what the hash covers.
    for (at, told) in [(items[2].len() - 1, "d\n"), (80, "gap of 2\nd\n")] {
        let mut live = resumed(&first);
        let mut altered = items[2].clone();
        altered[at] ^= 1;
        let view = &world.peers[OWNER].view;
        live.pass(view, &items[1]);
        live.pass(view, &altered);
        assert_eq!(world.feed(OWNER, &mut live, &next), told);
    }
}

/// Devices that nobody knows keep nothing busy.
#[test]
fn strangers_are_not_tracked() {
    let mut world = World::new(40);
    let item = world.sealed(OWNER, &["a"]).remove(0);
    let mut reader = Reader::new(Mode::History(between(Position(1), Position(2))));
    for at in 0..50 {
        let mut stranger = item.clone();
        stranger[28] = at;
        stranger[29] ^= 1;
        world.feed(OWNER, &mut reader, [&stranger]);
    }
    assert_eq!(reader.trackers().count(), 0);
    assert_eq!(header(&item).device, world.device(OWNER));
}

/// A timer's runs push out what is remembered of older ones; older data that a backfill brings in
/// afterwards is still new.
#[test]
fn a_backfill_in_a_long_history_is_no_replay() {
    let mut world = World::new(41);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let mut live = Reader::new(Mode::Live);
    let mut first = Vec::new();
    for at in 0..520 {
        world.new_run(OWNER);
        world.tick(60_000);
        let items = world.sealed(OWNER, &["run"]);
        world.sync(reader);
        world.feed(reader, &mut live, &items);
        if at < 2 {
            first.extend(items);
        }
    }
    let mut again = resumed(&live);
    let told = world.feed(reader, &mut again, &first);
    assert_eq!(told, "Replay\nReplay\n");
    world.backfill(
        OWNER,
        between(Position(5), Position(50)),
        &[(7, "old"), (9, "older")],
    );
    world.sync(reader);
    let items = world.data().clone();
    assert_eq!(world.feed(reader, &mut again, &items), "old\nolder\n");
    assert_eq!(world.feed(reader, &mut again, &items), "Replay\nReplay\n");
}

/// Memory does not grow with the number of runs, however many come.
#[test]
fn a_stored_tracker_stays_small() {
    let mut world = World::new(42);
    let item = world.sealed(OWNER, &["a"]).remove(0);
    let mut header = header(&item);
    let mut tracker = Tracker::from_start();
    for at in 0..40_000_u64 {
        header.instance.0 = at.to_be_bytes();
        header.position = Position(at);
        header.seq = 2 * (at % 2) as u32;
        let hash = sealcast_protocol::EnvelopeHash([(at % 251) as u8; 16]);
        tracker.observe(&header, hash, Position(at));
        tracker.give_up(false);
    }
    let bytes = tracker.to_bytes();
    assert!(bytes.len() < 64 * 1024, "{} bytes", bytes.len());
    let again = Tracker::from_bytes(&bytes).unwrap();
    assert_eq!(again.to_bytes(), bytes);
}

#[test]
fn history_goes_on_into_live_reading_without_a_seam() {
    let mut world = World::new(43);
    let items = world.sealed(OWNER, &["a", "b"]);
    let mut reader = Reader::new(HISTORY);
    world.feed(OWNER, &mut reader, &items);
    reader.go_live();
    let next = world.sealed(OWNER, &["c"]);
    let told = world.feed(OWNER, &mut reader, items[1..].iter().chain(&next));
    assert_eq!(told, "Replay\nc\n");
    assert_eq!(lines(world.events(OWNER, Interval::ALL)), "");
}
