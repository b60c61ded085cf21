//! Two proxies before a broker, under load with QoS 1 and 2: broker restarted, ways to it cut, proxies killed. Nothing that
//! was acknowledged is lost, the broker sees no message, no more is doubled than clients, proxies and broker may have on
//! their way whenever a connection ends, and no more than with the same clients at the broker itself in the same time. What is late is
//! the broker's doing: while as many messages are on their way to a client as may be, mosquitto 2.0.11 queues others, and sends new ones past them. It has to
//! the more often the longer an acknowledgement takes, so through proxies more often than directly; at the broker itself it has to for who is as far away.
//!
//! `cargo xtask relays --minutes N --seed S` lasts as long as wanted; a failed run leaves its folder. The seed repeats what
//! was done, not how the system took it.

#![expect(
    clippy::print_stdout,
    reason = "a failed run is repeated by what it prints"
)]

mod judge;
mod scene;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use sealcast_crash::Chance;

use scene::{Blow, Far, Scene, WINDOW};

const SECONDS: &str = "SEALCAST_RELAYS_SECONDS";
const SEED: &str = "SEALCAST_RELAYS_SEED";
const SECONDS_IN_CI: u64 = 20;
/// Milliseconds between two blows.
const REST_MS_MIN: u64 = 200;
const REST_MS_MAX: u64 = 1_500;

/// By how much more may be doubled through proxies than directly. A blow that falls while messages are on their way doubles those of
/// two flows, a window of each, or nothing: which of two companies that fare alike it hits is chance. Three such blows are
/// beyond that, however long it lasts, since directly more are hit: broker and ways double nothing through a proxy that lives.
const DOUBLED_MORE: u64 = 3 * WINDOW * FLOWS;
/// Messages of its own that a proxy has on their way to a client beside those of the broker.
const OWN: u64 = 16;
/// Flows of a QoS, and of a subscriber.
const FLOWS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Has all publish for a while, with some blows, until all has arrived. How often each blow fell.
fn bout(
    scene: &mut Scene,
    chance: &mut Chance,
    blows: &[Blow],
    lasts: Duration,
) -> BTreeMap<Blow, u64> {
    scene.sealed.go();
    scene.direct.go();
    let (began, mut fell) = (Instant::now(), BTreeMap::new());
    let (mut doubled, mut last) = (BTreeMap::<_, [u64; 4]>::new(), None);
    let mut before = scene.doubled();
    // What is doubled before the next blow falls is the doing of the last.
    let mut note = |scene: &Scene, last| {
        let now = scene.doubled();
        if let Some(last) = last {
            let of_it = doubled.entry(last).or_default();
            (0..now.len()).for_each(|of| of_it[of] += now[of] - before[of]);
        }
        before = now;
    };
    while began.elapsed() < lasts {
        let rest = REST_MS_MIN + chance.below(REST_MS_MAX - REST_MS_MIN);
        thread::sleep(Duration::from_millis(rest));
        let blow = blows[usize::try_from(chance.below(blows.len() as u64)).unwrap()];
        note(scene, last.replace(blow));
        scene.strike(blow, chance);
        *fell.entry(blow).or_default() += 1;
        scene.look();
    }
    for company in [&mut scene.sealed, &mut scene.direct] {
        company.rest();
    }
    note(scene, last);
    println!("{fell:?}");
    println!("doubled of QoS 1 and 2, direct and then through proxies: {doubled:?}");
    for (name, company) in [("direct", &scene.direct), ("sealed", &scene.sealed)] {
        for qos in [1, 2] {
            println!("{name}, QoS {qos}: {}", company.ledger().count(qos));
        }
    }
    fell
}

/// What is wrong, after so many restarts of the broker.
fn faults(scene: &Scene, restarts: u64) -> Vec<String> {
    let mut faults = scene.faults();
    for (name, company, own) in [("direct", &scene.direct, 0), ("sealed", &scene.sealed, OWN)] {
        let ledger = company.ledger();
        faults.extend(ledger.odd());
        let [one, two] = [1, 2].map(|qos| ledger.count(qos));
        // A client sends again what it had on its way, and so does its broker.
        let (published, subscribed) = one.again;
        let may_double = published * WINDOW + subscribed * (WINDOW + own);
        if one.lost + two.lost > 0 {
            faults.push(format!("{name}: {} lost", one.lost + two.lost));
        }
        if one.doubled > may_double {
            faults.push(format!("{name}: {} doubled, of {may_double}", one.doubled));
        }
        // Of mosquitto 2.0.11: it sends some again with another number after it was restarted.
        if two.doubled > restarts * WINDOW * FLOWS {
            faults.push(format!("{name}: {} of QoS 2 doubled", two.doubled));
        }
    }
    let [sealed, direct] = [&scene.sealed, &scene.direct].map(|of| of.ledger().count(1).doubled);
    if sealed > direct + DOUBLED_MORE {
        faults.push(format!(
            "{sealed} doubled through proxies, and {direct} directly"
        ));
    }
    faults
}

/// There is no proxy, and no connection ends.
#[test]
fn what_is_late_is_so_at_the_broker_itself_for_who_is_far_from_it() {
    let mut far = Far::new(Duration::from_millis(20));
    far.until_late();
    let [one, two] = [1, 2].map(|qos| far.company.ledger().count(qos));
    println!("QoS 1: {one}\nQoS 2: {two}");
    assert!(
        one.late > 0,
        "mosquitto keeps the order: what is late is ours"
    );
    assert_eq!((one.lost, one.doubled, one.again), (0, 0, (0, 0)));
    assert_eq!((two.lost, two.doubled), (0, 0));
}

#[test]
fn proxies_that_are_killed_lose_nothing_and_double_what_was_on_its_way_at_most() {
    let lasts = Duration::from_secs(number(SECONDS).unwrap_or(SECONDS_IN_CI)) / 2;
    let seed = number(SEED).unwrap_or(1);
    println!("seed {seed}, twice {lasts:?}");
    let (mut scene, mut chance) = (Scene::new(), Chance::new(seed));
    let mut restarts = 0;
    for blows in [&Blow::ALL[1..], &Blow::ALL] {
        let fell = bout(&mut scene, &mut chance, blows, lasts);
        restarts += fell.get(&Blow::BrokerRestarted).unwrap_or(&0);
        let faults = faults(&scene, restarts);
        if !faults.is_empty() {
            let place = scene.rig.keep().display().to_string();
            panic!("seed {seed}: {faults:#?}\nleft in {place}");
        }
        // Where nothing was acknowledged, nothing was shown.
        for (company, qos) in [(&scene.sealed, 1), (&scene.sealed, 2), (&scene.direct, 1)] {
            assert!(company.ledger().count(qos).acked > 0);
        }
    }
}
