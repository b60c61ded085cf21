//! Asking for keys: who asks how often, who answers, and how it ends.

mod entitled;
mod floods;
mod hostile;
mod liars;
mod lost;
mod rig;

use sealcast_engine::{
    AskerEvent, AskerInput, Decision, End, Outcome, Responder, ResponderInput, ResponderLimits,
    ResponderOutput,
};
use sealcast_protocol::{Interval, Position, RefusalReason, Roles, Want};

use crate::asking::rig::{Giving, Net, Sent};
use crate::rig::{NOON, OWNER, header, since};

#[test]
fn a_reader_asks_and_what_it_lacked_opens() {
    let mut net = Net::new(1);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.world.publish(OWNER, "two").unwrap();
    net.read(reader);
    assert_eq!(net.opened(reader), [""; 0]);
    net.run(2_000);
    assert_eq!(net.opened(reader), ["one", "two"]);
    assert_eq!(net.ends(reader), [End::Opened]);
    let sent = Sent {
        solicitations: 1,
        claims: 1,
        refusals: 0,
        receipts: 1,
        bundles: 1,
    };
    assert_eq!(net.sent, sent);
    net.run(3_600_000);
    assert_eq!(net.sent, sent);
    assert_eq!(net.nodes[reader].asker.next_timeout(), None);
    assert_eq!(net.nodes[OWNER].responder.open_requests(), 0);
    assert_eq!(net.nodes[OWNER].responder.next_timeout(), None);
}

/// fault 9
#[test]
fn a_thousand_messages_under_one_missing_key_cost_one_request_and_open_together() {
    let mut net = Net::new(4);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    for i in 0..1_000 {
        net.world.tick(1);
        net.world.publish(OWNER, &i.to_string()).unwrap();
    }
    let start = net.world.now;
    net.read(reader);
    net.run(1_000);
    assert_eq!(net.opened(reader).len(), 1_000);
    assert_eq!((net.sent.solicitations, net.sent.bundles), (1, 1));
    assert_eq!(net.solicitations()[0].time, start.after(250));
}

/// fault 9
#[test]
fn ten_thousand_messages_under_a_hundred_missing_sessions_cost_one_request() {
    let mut net = Net::new(5);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    for i in 0..100 {
        net.world.tick(1_000);
        net.world.sync(OWNER);
        net.world.rekey(OWNER);
        net.world.publish(OWNER, &i.to_string()).unwrap();
    }
    net.learn();
    let headers: Vec<_> = net.world.data().iter().map(|of| header(of)).collect();
    for _ in 0..100 {
        for of in &headers {
            net.miss(reader, net.world.id(OWNER), of);
        }
    }
    assert_eq!(net.nodes[reader].asker.wants(), 100);
    net.run(2_000);
    assert_eq!(net.opened(reader).len(), 100);
    assert_eq!((net.sent.solicitations, net.sent.bundles), (1, 2));
    assert_eq!(net.sent.receipts, 1);
}

/// fault 10: a claim ends nothing.
#[test]
fn whoever_claims_and_dies_is_followed_by_another() {
    let mut net = Net::new(2);
    let reader = net.reader(since(NOON));
    net.world.publish(OWNER, "one").unwrap();
    net.answers(OWNER);
    let holders = [OWNER, net.admin(), net.admin()];
    for dying in holders {
        net.nodes[dying].giving = Giving::Dies;
    }
    net.read(reader);
    // Whose turn comes first follows from the request's id; the last one alive is honest.
    let mut lines = String::new();
    for _ in 0..15_000 {
        net.run(1);
        let alive: Vec<_> = holders
            .into_iter()
            .filter(|of| net.nodes[*of].is_up)
            .collect();
        if let [last] = alive[..] {
            net.nodes[last].giving = Giving::Honest;
        }
        let line = format!("{} alive, {:?}\n", alive.len(), net.opened(reader));
        if !lines.ends_with(&line) {
            lines += &line;
        }
    }
    assert_eq!(
        lines,
        "3 alive, []\n2 alive, []\n1 alive, []\n1 alive, [\"one\"]\n"
    );
    assert_eq!(net.ends(reader), [End::Opened]);
    let sent = &net.sent;
    // It was sent once more, as nothing came.
    assert_eq!((sent.solicitations, sent.claims, sent.bundles), (2, 3, 1));
}

/// fault 14
#[test]
fn what_nobody_has_is_asked_for_ever_more_seldom() {
    let mut net = Net::new(3);
    let reader = net.reader(Interval::ALL);
    net.world.publish(OWNER, "one").unwrap();
    let start = net.world.now;
    net.read(reader);
    for _ in 0..24 * 60 {
        net.run(60_000);
        // Reading again and again, as a program does that is started anew, asks no more often.
        net.read(reader);
    }
    let times: Vec<_> = net
        .solicitations()
        .iter()
        .map(|of| (of.time.0 - start.0) / 1_000)
        .collect();
    // Each is sent twice. 30 s of waiting for an answer, then 30 s, a minute, two, four, … an hour in between.
    let (times, repeats): (Vec<_>, Vec<_>) = times.chunks(2).map(|of| (of[0], of[1])).unzip();
    assert_eq!(times, repeats);
    assert_eq!(times[..8], [0, 60, 150, 300, 570, 1_080, 2_070, 4_020]);
    assert_eq!(times.len(), 7 + (86_400 - 2_070) / 3_600 + 1 - 1);
    assert!(net.ends(reader).iter().all(|end| *end == End::TimedOut));
    assert_eq!(net.nodes[reader].asker.wants(), 1);
}

/// fault 14: what a keyholder has refused it does not refuse again.
#[test]
fn a_session_that_nobody_knows_is_refused_once() {
    let mut net = Net::new(6);
    let reader = net.reader(Interval::ALL);
    net.answers(OWNER);
    net.learn();
    let want = net.want(OWNER, sealcast_protocol::SessionId([9; 16]), Interval::ALL);
    net.ask(reader, AskerInput::Want(want));
    net.run(600_000);
    assert!(net.sent.solicitations > 3);
    assert_eq!(net.sent.refusals, 1);
    let first = End::Refused(RefusalReason::UnknownSession);
    assert_eq!(net.ends(reader)[..2], [first, End::TimedOut]);
    assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
}

#[test]
fn no_more_than_twenty_requests_a_second_leave_a_device() {
    let mut net = Net::new(7);
    let reader = net.reader(Interval::ALL);
    net.learn();
    let limits = sealcast_engine::AskerLimits {
        requests_max: 1_000,
        ..Default::default()
    };
    net.nodes[reader].asker = sealcast_engine::Asker::new(limits);
    for second in 0..3_u64 {
        for at in 0..30 * 128_u64 {
            let session = u128::from(second << 32 | (at + 1)).to_be_bytes();
            let session = sealcast_protocol::SessionId(session);
            let want = net.want(OWNER, session, Interval::ALL);
            net.ask(reader, AskerInput::Want(want));
        }
        net.run(1_000);
    }
    let sent = net.sent.solicitations;
    // 20 at once, and 20 in each second.
    assert!((60..=80).contains(&sent), "{sent}");
}

/// Whoever holds the keys of one lane alone answers for that lane, and nobody waits for it with the
/// others.
#[test]
fn one_request_reaches_the_keyholders_of_every_lane() {
    let mut net = Net::new(8);
    let reader = net.reader(Interval::ALL);
    let publishers: Vec<_> = (0..20)
        .map(|i| {
            let publisher = net.user();
            net.grant(publisher, Roles::PUBLISHER, Interval::ALL, false);
            net.world.publish(publisher, &format!("{i:02}")).unwrap();
            net.answers(publisher);
            publisher
        })
        .collect();
    net.learn();
    net.read(reader);
    net.run(1_000);
    assert_eq!(net.opened(reader).len(), publishers.len());
    assert_eq!(net.sent.solicitations, 1);
    assert_eq!(net.sent.bundles, 20);
    assert_eq!(net.ends(reader), [End::Opened]);
}

#[test]
fn what_one_could_not_give_is_asked_for_again_when_another_is_there() {
    let mut net = Net::new(9);
    let reader = net.reader(Interval::ALL);
    let publishers = [net.user(), net.user()];
    for publisher in publishers {
        net.grant(publisher, Roles::PUBLISHER, Interval::ALL, false);
        net.world
            .publish(publisher, &publisher.to_string())
            .unwrap();
    }
    net.learn();
    net.answers(publishers[0]);
    net.read(reader);
    net.run(31_000);
    assert_eq!(net.opened(reader), [publishers[0].to_string()]);
    assert_eq!(net.ends(reader), [End::Partly]);
    net.answers(publishers[1]);
    net.run(60_000);
    assert_eq!(net.opened(reader).len(), 2);
    assert_eq!(net.ends(reader), [End::Partly, End::Opened]);
    assert_eq!(net.solicitations()[1].wants.len(), 1);
}

/// Where the log entitles the reader, others may give whatever one says.
#[test]
fn a_no_ends_a_request_at_once_only_where_log_and_owner_agree() {
    let no = End::Refused(RefusalReason::NotEntitled);
    for (is_granted, by_owner, ms) in [
        (false, true, 1_000),
        (false, false, 30_100),
        (true, true, 30_300),
    ] {
        let mut net = Net::new(10);
        let reader = net.user();
        if is_granted {
            net.grant(reader, Roles::READER, Interval::ALL, false);
        }
        let admin = net.admin();
        net.nodes[OWNER].answers = by_owner;
        net.nodes[admin].answers = !by_owner;
        for holder in [OWNER, admin] {
            net.nodes[holder].policy = |_| Decision::Refuse(RefusalReason::NotEntitled);
            let limits = ResponderLimits {
                strangers_max: 1,
                ..ResponderLimits::default()
            };
            net.nodes[holder].responder = Responder::new(limits);
        }
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        match is_granted {
            true => net.read(reader),
            false => {
                let want = net.want(OWNER, net.session(), Interval::ALL);
                net.ask(reader, AskerInput::Want(want));
            }
        }
        net.run(1_000);
        assert_eq!(net.sent.refusals, 1);
        let at_once: &[End] = if ms == 1_000 { &[no] } else { &[] };
        assert_eq!(net.ends(reader), at_once);
        net.run(ms - 1_000);
        assert_eq!(net.ends(reader), [no]);
    }
}

/// A stranger is not in the log: the application decides, and a yes is a grant.
#[test]
fn a_stranger_is_answered_once_somebody_has_granted() {
    let mut net = Net::new(11);
    net.world.publish(OWNER, "one").unwrap();
    let stranger = net.user();
    net.answers(OWNER);
    net.learn();
    let want = net.want(OWNER, Want::EVERY_SESSION, Interval::ALL);
    net.ask(stranger, AskerInput::Want(want));
    net.run(2_000);
    assert_eq!(net.nodes[OWNER].questions, [], "nobody is asked by default");

    net.nodes[OWNER].responder = Responder::new(ResponderLimits {
        strangers_max: 1,
        ..Default::default()
    });
    net.nodes[OWNER].policy = |_| Decision::Refuse(RefusalReason::PendingApproval);
    net.run(10_000);
    let [question] = &net.nodes[OWNER].questions[..] else {
        panic!("one question");
    };
    assert_eq!(question.user, net.world.id(stranger));
    let no = Decision::Refuse(RefusalReason::NotEntitled);
    assert_eq!(question.wants, [(want, no)]);
    let pending = End::Refused(RefusalReason::PendingApproval);
    assert_eq!(net.ends(stranger), [pending], "it was sent once more");

    net.nodes[OWNER].policy = |_| Decision::Give;
    net.grant(stranger, Roles::READER, Interval::ALL, false);
    net.ask(stranger, AskerInput::Want(want));
    net.run(1_000);
    net.read(stranger);
    assert_eq!(net.opened(stranger), ["one"]);
    let settled = AskerEvent::Settled {
        want,
        outcome: Outcome::Opened,
    };
    assert!(net.nodes[stranger].events.contains(&settled));
}

/// fault 14: nobody is asked to decide as often as somebody else cares to ask.
#[test]
fn who_waits_for_a_decision_learns_it_by_asking_again() {
    let mut net = Net::new(86);
    let reader = net.reader(Interval {
        from: Position::START,
        until: since(NOON).from,
    });
    net.answers(OWNER);
    net.nodes[OWNER].policy = |_| Decision::Refuse(RefusalReason::PendingApproval);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, Want::EVERY_SESSION, since(NOON));
    for _ in 0..10 {
        net.ask(reader, AskerInput::Want(want));
        net.run(1_000);
    }
    let pending = End::Refused(RefusalReason::PendingApproval);
    assert_eq!(net.nodes[OWNER].questions.len(), 1);
    assert_eq!(net.ends(reader), [pending]);
    // It was a no.
    net.nodes[OWNER].policy = |_| Decision::Give;
    net.run(60_000);
    let no = End::Refused(RefusalReason::NotEntitled);
    assert_eq!(net.ends(reader), [pending, End::TimedOut, no]);
    // That to which nothing came was sent twice.
    assert_eq!(net.sent.solicitations, 4);
}

/// Another keyholder may well give what the owner leaves to a human.
#[test]
fn an_owner_who_hesitates_does_not_keep_an_admin_from_giving() {
    for seed in 80..84 {
        let mut net = Net::new(seed);
        let reader = net.reader(since(NOON));
        net.answers(OWNER);
        net.nodes[OWNER].policy = |_| Decision::Refuse(RefusalReason::PendingApproval);
        let _admin = net.admin();
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        net.read(reader);
        net.run(2_000);
        assert_eq!(net.opened(reader), ["one"], "{seed}");
        assert_eq!(net.ends(reader), [End::Opened]);
    }
}

/// Whoever waited for it has gone.
#[test]
fn what_the_user_wants_no_more_is_not_asked_for_again_unless_it_is_missing() {
    for is_missing in [false, true] {
        for is_open in [false, true] {
            let mut net = Net::new(85);
            let reader = net.reader(Interval::ALL);
            net.world.publish(OWNER, "one").unwrap();
            net.learn();
            let want = net.want(OWNER, net.session(), Interval::ALL);
            net.ask(reader, AskerInput::Want(want));
            if is_missing {
                net.read(reader);
            }
            net.run(if is_open { 1_000 } else { 31_000 });
            let open = net.nodes[reader].asker.open_requests();
            // Nobody answers, so that it is sent once more.
            let sent = if is_open { 1 } else { 2 };
            assert_eq!((net.sent.solicitations, open), (sent, usize::from(is_open)));
            net.ask(reader, AskerInput::Unwant(want));
            net.run(3_600_000);
            assert_eq!(net.sent.solicitations > sent, is_missing);
            assert_eq!(net.nodes[reader].asker.wants(), usize::from(is_missing));
        }
    }
}

/// All that is given to one request is taken, however many bundles it takes.
#[test]
fn every_session_of_a_lane_comes_by_one_request() {
    let mut net = Net::new(93);
    let reader = net.reader(Interval::ALL);
    for i in 0..100 {
        net.world.tick(1_000);
        net.world.sync(OWNER);
        net.world.rekey(OWNER);
        net.world.publish(OWNER, &i.to_string()).unwrap();
    }
    net.answers(OWNER);
    net.learn();
    let want = net.want(OWNER, Want::EVERY_SESSION, Interval::ALL);
    net.ask(reader, AskerInput::Want(want));
    net.run(2_000);
    assert_eq!(net.opened(reader).len(), 100);
    let sent = &net.sent;
    assert_eq!((sent.solicitations, sent.bundles, sent.receipts), (1, 2, 1));
    net.run(30_000);
    assert_eq!(net.ends(reader), [End::Opened]);
    assert_eq!(net.nodes[reader].asker.next_timeout(), None);
}

#[test]
fn a_clock_that_is_set_back_holds_up_neither_who_asks_nor_who_answers() {
    let day = 86_400_000;
    let mut net = Net::new(94);
    let reader = net.reader(Interval::ALL);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let start = net.world.now;
    net.world.now = start.after(day);
    net.read(reader);
    net.run(1_000);
    assert_eq!(net.nodes[reader].asker.open_requests(), 1);
    net.world.now = start;
    net.run(1);
    net.run(30_000);
    assert_eq!(net.ends(reader), [End::TimedOut]);
    net.run(60_000);
    assert_eq!(net.ends(reader), [End::TimedOut; 2]);

    // Who answers has used up what it gives at once.
    net.answers(OWNER);
    let want = net.want(OWNER, net.session(), Interval::ALL);
    net.world.now = start.after(day);
    for at in 1..=30 {
        let mut asked = net.solicitation(reader, vec![want]);
        asked.request.0[0] = at;
        net.put_solicitation(reader, asked);
    }
    net.run(100);
    assert_eq!(net.sent.bundles, 20);
    net.world.now = start.after(120_000);
    net.nodes[reader].asker = sealcast_engine::Asker::new(Default::default());
    net.read(reader);
    net.run(2_000);
    assert_eq!(net.opened(reader), ["one"]);
}

/// Whoever starts session after session takes the room of no other lane.
#[test]
fn the_sessions_of_one_lane_do_not_crowd_out_anothers() {
    let mut net = Net::new(95);
    let reader = net.reader(Interval::ALL);
    let publisher = net.user();
    net.grant(publisher, Roles::PUBLISHER, Interval::ALL, false);
    for i in 0..20 {
        net.world.tick(1_000);
        net.world.sync(publisher);
        net.world.rekey(publisher);
        net.world.publish(publisher, &i.to_string()).unwrap();
    }
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let limits = sealcast_engine::AskerLimits {
        wants_max: 20,
        ..Default::default()
    };
    net.nodes[reader].asker = sealcast_engine::Asker::new(limits);
    net.answers(OWNER);
    net.nodes[OWNER].giving = Giving::Dies;
    net.read(reader);
    net.run(1_000);
    let asked: Vec<_> = net
        .solicitations()
        .into_iter()
        .flat_map(|of| of.wants)
        .collect();
    let of_owner = asked.iter().filter(|of| of.lane == net.world.id(OWNER));
    assert_eq!((of_owner.count(), asked.len()), (1, 1 + 5));
}

/// Two processes of one home answer, each with a machine of its own.
#[test]
fn another_process_of_the_same_home_is_waited_for_like_anybody() {
    let mut seconds = Vec::new();
    for seed in 86..92 {
        let mut net = Net::new(seed);
        let reader = net.reader(since(NOON));
        let admin = net.admin();
        net.nodes[admin].is_up = false;
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        net.read(reader);
        net.run(260);
        let claim = hostile::claim(&net, OWNER, &net.solicitations()[0]);
        let mut process = Responder::new(ResponderLimits::default());
        let view = &net.world.peers[OWNER].view;
        let start = net.world.now;
        for item in [&net.asked[0], &claim] {
            process.handle(start, view, ResponderInput::Item(item));
        }
        let mut waited = 0;
        let is_claim = |of: &ResponderOutput| {
            matches!(
                of,
                ResponderOutput::Send(sealcast_engine::AskBody::Claim(_))
            )
        };
        while !std::iter::from_fn(|| process.poll_output()).any(|of| is_claim(&of)) {
            assert!(waited < 30_000, "it never claims");
            waited += 100;
            process.handle(start.after(waited), view, ResponderInput::Tick);
        }
        seconds.push(waited);
    }
    // At once where nobody is ahead; otherwise behind the lease, in turn.
    seconds.sort_unstable();
    seconds.dedup();
    assert_eq!(seconds, [0, 5_700]);
}
