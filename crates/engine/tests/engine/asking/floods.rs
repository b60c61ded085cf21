//! Very many requests at once: honest ones are answered, and everything stays bounded.

use sealcast_crypto::SigningKey;
use sealcast_engine::{AskBody, Responder, ResponderInput, ResponderLimits, ResponderOutput};
use sealcast_protocol::{Claim, Receipt, RequestId, Solicitation, Want, sign};

use crate::asking::rig::Net;
use crate::rig::{NOON, OWNER, since};

const FLOOD: u64 = 100_000;

/// An honest reader, one that floods, an owner who answers, and a message.
fn crowd(seed: u64) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let (honest, flooding) = (net.reader(since(NOON)), net.reader(since(NOON)));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    (net, honest, flooding)
}

/// How long the honest reader waits when nobody else asks.
fn unloaded(seed: u64) -> u64 {
    let (mut net, honest, _) = crowd(seed);
    net.time_to_open(honest, 10_000).unwrap()
}

/// Hands the owner a hundred requests a millisecond, for a second; the honest reader asks meanwhile.
/// Returns how long it waited.
fn flood(net: &mut Net, honest: usize, body: &Solicitation, key: &SigningKey) -> u64 {
    let mut waited = None;
    let start = net.world.now;
    for ms in 0..FLOOD / 100 {
        for i in 0..100 {
            let mut body = body.clone();
            body.request.0[..8].copy_from_slice(&(1 + ms * 100 + i).to_be_bytes());
            let bytes = sign(key, body).unwrap().wire().to_vec();
            net.respond(OWNER, ResponderInput::Item(&bytes));
        }
        let responder = &net.nodes[OWNER].responder;
        assert!(responder.unchecked_requests() <= 16);
        assert!(responder.open_requests() <= 64);
        assert!(responder.remembered() <= 2_100);
        if ms == 100 {
            net.read(honest);
        }
        net.run(1);
        if ms >= 100 && waited.is_none() && !net.opened(honest).is_empty() {
            waited = Some(net.world.now.0 - start.0 - 100);
        }
    }
    waited.unwrap()
}

/// fault 3
#[test]
fn a_hundred_thousand_requests_of_one_reader_hold_up_no_other() {
    let alone = unloaded(70);
    let (mut net, honest, flooding) = crowd(70);
    let session = net.sessions()[0];
    let want = net.want(OWNER, session, since(NOON));
    let body = net.solicitation(flooding, vec![want]);
    let key = SigningKey::from_seed(net.world.peers[flooding].identity.signing().expose_seed());
    let waited = flood(&mut net, honest, &body, &key);
    assert!(waited <= 2 * alone, "{waited} ms instead of {alone}");
    // Twenty at once, and twenty in the second.
    let flooded = net.sent.bundles - 1;
    assert!((20..=41).contains(&flooded), "{flooded}");
}

#[test]
fn a_hundred_thousand_forged_requests_cost_few_signatures() {
    let alone = unloaded(71);
    let (mut net, honest, named) = crowd(71);
    let session = net.sessions()[0];
    let want = net.want(OWNER, session, since(NOON));
    let body = net.solicitation(named, vec![want]);
    let waited = flood(&mut net, honest, &body, &SigningKey::from_seed(&[7; 32]));
    assert!(waited <= 2 * alone, "{waited} ms instead of {alone}");
    // 125 at once, and a thousand in the second.
    let checked = net.nodes[OWNER].responder.checked_requests();
    assert!((1_000..=1_130).contains(&checked), "{checked}");
    assert_eq!(net.sent.bundles, 1);

    // In the name of devices that nobody knows, none.
    let (mut net, honest, named) = crowd(71);
    let mut body = net.solicitation(named, vec![want]);
    body.user.0[0] ^= 1;
    let waited = flood(&mut net, honest, &body, &SigningKey::from_seed(&[7; 32]));
    assert!(waited <= 2 * alone, "{waited} ms instead of {alone}");
    assert_eq!(net.nodes[OWNER].responder.checked_requests(), 1);
}

/// What an entitled reader can make others write has a limit, too.
#[test]
fn a_reader_who_asks_for_everything_again_and_again_is_given_so_much() {
    let (mut net, _, greedy) = crowd(72);
    for _ in 0..40 {
        net.world.tick(1_000);
        net.world.sync(OWNER);
        net.world.rekey(OWNER);
    }
    net.learn();
    let want = net.want(OWNER, Want::EVERY_SESSION, since(NOON));
    let body = net.solicitation(greedy, vec![want]);
    for i in 0..400_u64 {
        let mut body = body.clone();
        body.time = net.world.now;
        body.expires = net.world.now.after(1_000);
        body.request.0[..8].copy_from_slice(&(1 + i).to_be_bytes());
        net.put_solicitation(greedy, body);
        net.run(100);
    }
    // 4,096 covers at once, and eight in each of the 40 seconds.
    let given = net.given_covers().len();
    assert!((4_096..=4_096 + 8 * 41).contains(&given), "{given}");
    assert!(net.sent.claims < 400, "what is not given is not claimed");
}

/// Many at once, and several who answer: nobody is given more than twice, and nothing is lost.
#[test]
fn a_crowd_that_asks_at_once_is_answered_about_once_each() {
    let mut net = Net::new(73);
    let readers: Vec<_> = (0..40).map(|_| net.reader(since(NOON))).collect();
    net.answers(OWNER);
    let _admins = [net.admin(), net.admin()];
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    for reader in &readers {
        net.read(*reader);
    }
    net.run(3_000);
    for reader in &readers {
        assert_eq!(net.opened(*reader), ["one"]);
    }
    let sent = &net.sent;
    assert_eq!((sent.solicitations, sent.receipts), (40, 40));
    assert_eq!((sent.claims, sent.bundles), (40, 40));
}

/// Nothing says that a topic shows a request before what was said to it.
#[test]
fn replies_that_overtake_their_request_are_not_lost() {
    let (mut net, honest, _) = crowd(75);
    let want = net.want(OWNER, net.session(), since(NOON));
    let asked = net.solicitation(honest, vec![want]);
    let receipt = Receipt {
        version: 1,
        stream: asked.stream,
        user: asked.user,
        device: asked.device,
        request: asked.request,
        wants: vec![0],
    };
    let receipt = net.signed(honest, AskBody::Receipt(receipt));
    net.respond(OWNER, ResponderInput::Item(&receipt));
    net.put_solicitation(honest, asked.clone());
    net.run(1_000);
    assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
    // Those that many others have overtaken are.
    for byte in 2..=255 {
        for place in [0, 1] {
            let claim = Claim {
                version: 1,
                stream: asked.stream,
                asker: asked.device,
                request: RequestId([byte; 16]),
                user: net.world.id(OWNER),
                device: net.world.device(OWNER),
                wants: vec![place],
            };
            let claim = net.signed(OWNER, AskBody::Claim(claim));
            net.respond(OWNER, ResponderInput::Item(&claim));
        }
    }
    for (byte, bundles) in [(2, 1), (255, 1)] {
        let mut asked = asked.clone();
        asked.request = RequestId([byte; 16]);
        net.put_solicitation(honest, asked);
        net.run(1_000);
        assert_eq!(net.sent.bundles, bundles, "{byte}");
    }
}

/// A responder that is behind with its checks still hears who has claimed.
#[test]
fn replies_that_come_before_a_request_is_checked_are_not_lost() {
    let (net, honest, _) = crowd(74);
    let limits = ResponderLimits {
        checks_per_second: 1,
        ..ResponderLimits::default()
    };
    let mut slow = Responder::new(limits);
    let want = net.want(OWNER, net.session(), since(NOON));
    let mut outputs = Vec::new();
    for byte in [1, 2] {
        let mut asked = net.solicitation(honest, vec![want]);
        asked.request.0[0] = byte;
        let receipt = Receipt {
            version: 1,
            stream: asked.stream,
            user: asked.user,
            device: asked.device,
            request: asked.request,
            wants: vec![0],
        };
        let asked = net.signed(honest, AskBody::Solicitation(Box::new(asked)));
        let receipt = net.signed(honest, AskBody::Receipt(receipt));
        for item in [asked, receipt] {
            let view = &net.world.peers[OWNER].view;
            slow.handle(net.world.now, view, ResponderInput::Item(&item));
        }
    }
    let view = &net.world.peers[OWNER].view;
    slow.handle(net.world.now.after(2_000), view, ResponderInput::Tick);
    while let Some(output) = slow.poll_output() {
        outputs.push(output);
    }
    // The first is checked at once and claimed; the second was over when its check came.
    let claims = outputs
        .iter()
        .filter(|of| matches!(of, ResponderOutput::Send(AskBody::Claim(_))));
    assert_eq!(claims.count(), 1);
    assert_eq!(slow.checked_requests(), 2);
    assert_eq!(slow.open_requests(), 0);
}
