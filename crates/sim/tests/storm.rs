//! Very many devices that ask at once.
#![cfg(test)]

use sealcast_sim::{Kind, Storm, storm};

/// Of all who ask, nobody is given more than twice, nobody hears the others, and twice as many cost
/// twice as much.
#[test]
fn what_a_storm_costs_grows_with_the_devices_and_no_faster() {
    let of = |devices| storm(&Storm { seed: 7, devices }).unwrap();
    let (few, many) = (of(50), of(200));
    assert_eq!(many.waits_ms.len(), 200, "all have the year");
    assert!(many.bundles_max <= 2, "{}", many.bundles_max);
    assert_eq!(many.outgrows(&few), None, "{few:?}\n{many:?}");
    // What an asker hears is what it is given.
    assert!(many.asking.heard.items <= many.answering.sent(Kind::Bundle).items);
    // Whoever answers hears all, and says no more than a claim and a bundle to most.
    let said = many.answering.sent_in_all().items;
    assert!(said <= 2 * 200 * 11 / 10, "{said}");
    // None waits for a time-out, not even whose request was lost.
    assert!(many.wait_ms(0) < 10_000, "{}", many.wait_ms(0));
}

#[test]
fn the_same_storm_comes_twice() {
    let of = |seed| storm(&Storm { seed, devices: 10 }).unwrap();
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}
