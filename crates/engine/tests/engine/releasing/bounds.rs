//! What others can have a node do, and what a clock or a bus that is wrong does to it.

use sealcast_engine::ReleaserLimits;
use sealcast_protocol::{DeviceId, LogHash, NodeRequest, Position, Verified};

use super::rig::{Asking, Net};

const HOUR: u64 = 3_600_000;
const YEAR: u64 = 365 * 24 * HOUR;

/// One node that released something to a reader, and what it was asked for.
fn released() -> (Net, usize, Verified<NodeRequest>) {
    released_with(ReleaserLimits::default())
}

fn released_with(limits: ReleaserLimits) -> (Net, usize, Verified<NodeRequest>) {
    let mut net = Net::new(1, 1);
    net.limits = limits;
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    assert!(net.last(0).starts_with("Released"));
    let asked = asking.sent[0].clone();
    (net, reader, asked)
}

fn put(net: &mut Net, asked: &Verified<NodeRequest>) {
    net.put_in_inbox(net.nodes[0].peer, asked.wire());
}

#[test]
fn of_strangers_nothing_is_read_kept_or_said() {
    let (mut net, _, asked) = released();
    let known = net.world.peers[net.nodes[0].peer].store.clone();
    for number in 1..=5 {
        let stranger = net.world.user();
        net.world.sync(stranger);
        let asked = net.renewed(stranger, &asked, number, |_| ());
        put(&mut net, &asked);
        net.run_nodes();
        assert_eq!(net.inbox(stranger).len(), 0);
    }
    net.world.tick(HOUR);
    net.run_nodes();
    assert_eq!(net.nodes[0].audit.len(), 2);
    assert_eq!(net.world.peers[net.nodes[0].peer].store, known);
}

/// Who was granted something a moment ago is no stranger, though the node does not know of it yet.
#[test]
fn who_names_what_a_node_does_not_know_has_it_read_the_log_once_a_second() {
    let (mut net, _, asked) = released();
    net.nodes[0].reads_on = false;
    let newcomer = net.reader_of_all();
    net.world.sync(newcomer);
    let logs = net.nodes[0].logs_read;
    let heads = net.world.peers[newcomer].view.log();
    let heads = heads.heads(&LogHash([0; 32]));
    let early = net.renewed(newcomer, &asked, 1, |of| of.heads = heads);
    put(&mut net, &early);
    net.run_nodes();
    assert!(net.last(0).starts_with("Released"), "{}", net.last(0));
    assert_eq!(net.inbox(newcomer).len(), 1);
    // Once for its user, and once for itself.
    assert_eq!(net.nodes[0].logs_read, logs + 2);
    for number in 2..=5 {
        net.world.tick(100);
        let stranger = net.world.user();
        net.world.sync(stranger);
        let made_up = net.renewed(stranger, &asked, number, |of| {
            of.heads = Vec::from([LogHash([number; 32])]);
        });
        put(&mut net, &made_up);
        net.run_nodes();
        assert_eq!(net.nodes[0].logs_read, logs + 2);
        assert_eq!(net.inbox(stranger).len(), 0);
    }
    let due = net.next_timeout(0).unwrap();
    net.world.now = due;
    net.tick_node(0);
    assert_eq!(net.nodes[0].logs_read, logs + 3);
    assert_eq!(net.next_timeout(0), None);
}

/// Those whom the log names have entries of their own, and not without end.
#[test]
fn one_user_grows_the_audit_by_so_much_and_is_counted_from_then_on() {
    let (mut net, reader, asked) = released_with(ReleaserLimits {
        requests_at_once: 1_000,
        ..ReleaserLimits::default()
    });
    net.world.revoke_user(crate::rig::OWNER, reader).unwrap();
    for number in 1..=100 {
        let asked = net.renewed(reader, &asked, number, |_| ());
        put(&mut net, &asked);
        net.run_nodes();
    }
    // It began, it released, it refused 64 and counts the others.
    assert_eq!(net.nodes[0].audit.len(), 2 + 64 + 1);
    net.world.tick(60_000);
    let once_more = net.renewed(reader, &asked, 101, |_| ());
    put(&mut net, &once_more);
    net.run_nodes();
    assert!(net.last(0).ends_with("NotEntitled)"));
}

/// Hides the newest entry of a reader's list, which adds a device, and gives its pin and the entry.
fn hide_newest(net: &mut Net, reader: usize) -> (sealcast_protocol::ListPin, Vec<u8>) {
    let phone = net.world.device_of(reader);
    net.world.sync(phone);
    let user = net.world.id(reader);
    let pin = net.world.peers[phone].view.list(&user).unwrap().pin();
    let list = net.world.bus.get_mut(&user.devices_topic()).unwrap();
    (pin.unwrap(), list.pop().unwrap())
}

#[test]
fn what_nobody_signed_pushes_out_nothing_that_is_signed() {
    let (mut net, reader, asked) = released();
    let (pin, hidden) = hide_newest(&mut net, reader);
    let waits = net.renewed(reader, &asked, 1, |of| of.list = pin);
    put(&mut net, &waits);
    for number in 0..100 {
        let forged = net.renewed(reader, &asked, 2, |of| {
            of.device = DeviceId([number + 1; 16]);
        });
        put(&mut net, &forged);
    }
    net.run_nodes();
    assert_eq!(net.nodes[0].audit.len(), 2);

    let topic = net.world.id(reader).devices_topic();
    net.world.put(&topic, &hidden);
    net.world.tick(11_000);
    let other = net.renewed(reader, &asked, 3, |_| ());
    put(&mut net, &other);
    net.run_nodes();
    // The one that waited is decided on, with the other.
    assert_eq!(net.nodes[0].audit.len(), 4);
    assert!(net.last(0).starts_with("Released"));
}

#[test]
fn nothing_is_released_to_devices_of_a_list_that_is_withheld() {
    let (mut net, reader, asked) = released();
    let (pin, hidden) = hide_newest(&mut net, reader);
    // One of its devices names what the bus does not show; the other may be what is revoked there.
    let waits = net.renewed(reader, &asked, 1, |of| of.list = pin);
    let by_old_list = net.renewed(reader, &asked, 2, |_| ());
    for asked in [waits, by_old_list] {
        put(&mut net, &asked);
        net.run_nodes();
    }
    assert!(net.last(0).ends_with("LogBehind)"), "{}", net.last(0));
    let topic = net.world.id(reader).devices_topic();
    net.world.put(&topic, &hidden);
    net.world.tick(11_000);
    let again = net.renewed(reader, &asked, 3, |_| ());
    put(&mut net, &again);
    net.run_nodes();
    assert!(net.last(0).starts_with("Released"), "{}", net.last(0));
}

#[test]
fn nor_where_an_entry_of_it_is_shown_without_the_one_before() {
    let (mut net, reader, asked) = released();
    let (_, hidden) = hide_newest(&mut net, reader);
    let topic = net.world.id(reader).devices_topic();
    net.world.put(&topic, &hidden);
    net.world.device_of(reader);
    let list = net.world.bus.get_mut(&topic).unwrap();
    let at = list.iter().position(|of| *of == hidden).unwrap();
    list.remove(at);
    let by_old_list = net.renewed(reader, &asked, 1, |of| {
        of.list = asked.body().list;
    });
    put(&mut net, &by_old_list);
    net.restart(0);
    net.run_nodes();
    assert!(net.last(0).ends_with("LogBehind)"), "{}", net.last(0));
    net.world.put(&topic, &hidden);
    let again = net.renewed(reader, &asked, 2, |of| of.list = asked.body().list);
    put(&mut net, &again);
    net.run_nodes();
    assert!(net.last(0).starts_with("Released"), "{}", net.last(0));
}

#[test]
fn a_clock_that_was_ahead_when_it_began_silences_no_node() {
    let (mut net, reader, asked) = released();
    let now = net.world.now;
    net.world.now = now.after(YEAR);
    net.restart(0);
    net.run_nodes();
    assert_eq!(net.last(0), "Began");
    net.world.now = now.after(1_000);
    net.restart(0);
    let again = net.renewed(reader, &asked, 1, |_| ());
    put(&mut net, &again);
    net.run_nodes();
    assert!(net.last(0).starts_with("Released"), "{}", net.last(0));
}

/// Where an asker agreed with a clock that was ahead, somebody has to say that it was.
#[test]
fn a_clock_by_which_it_decided_is_believed_until_who_runs_it_says_otherwise() {
    let (mut net, reader, asked) = released();
    let now = net.world.now;
    net.world.now = now.after(2 * HOUR);
    let ahead = net.renewed(reader, &asked, 1, |_| ());
    put(&mut net, &ahead);
    net.run_nodes();
    assert!(net.last(0).starts_with("Released"));
    net.world.now = now.after(1_000);
    for (number, trusts_clock, last, behind) in [
        (2, false, "Began", Some(2 * HOUR - 1_000)),
        (3, true, "Released", None),
        (4, false, "Released", None),
    ] {
        net.nodes[0].trusts_clock = trusts_clock;
        net.restart(0);
        let again = net.renewed(reader, &asked, number, |_| ());
        put(&mut net, &again);
        net.run_nodes();
        assert!(net.last(0).starts_with(last), "{}", net.last(0));
        assert_eq!(net.clock_behind_ms(0), behind);
    }
    assert!(net.nodes[0].audit.last().unwrap().time < Position(now.0 + HOUR));
}
