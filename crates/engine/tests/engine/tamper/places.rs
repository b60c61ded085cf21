//! Whatever lies on a bus doubled, swapped, moved, or harmed in many ways at once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::history::*;

#[test]
fn whatever_comes_twice_counts_once_and_a_message_is_told() {
    let history = History::new();
    let (intact, data) = (history.bus(), history.data());
    let reference = history.read(&intact);
    for (topic, at, what) in history.control() {
        let item = intact[&topic][at].clone();
        let found = history.read(&history.with(&topic, at, [item.clone(), item]));
        assert_eq!(found, reference, "{what}");
    }
    for (at, item) in intact[&data].iter().enumerate() {
        let twice = [item.clone(), item.clone()];
        let mut found = history.read(&history.with(&data, at, twice));
        assert_eq!(found.of_items.remove(at + 1), "Replay\n");
        assert_eq!(found, reference, "{}", history.texts[at]);
    }
}

/// The bus may show what lies in a topic in another order. Of what a chain or the keys topic holds no
/// order matters; of messages a gap is told until the missing one comes, and a branch where the first
/// of all comes late.
#[test]
fn two_items_in_each_others_place_lose_nothing() {
    let history = History::new();
    let (intact, data) = (history.bus(), history.data());
    let reference = history.read(&intact);
    for (topic, items) in &intact {
        for at in 1..items.len() {
            for other in [0, at / 2, at - 1] {
                let mut bus = intact.clone();
                bus.get_mut(topic).unwrap().swap(at, other);
                let found = history.read(&bus);
                assert_eq!(found.opened(), reference.opened(), "{topic}: {at}, {other}");
                assert_eq!(found.alarms, reference.alarms);
                assert!(
                    *topic == data || found == reference,
                    "{topic}: {at}, {other}"
                );
                let all = found.of_items.iter().flat_map(|of| of.lines());
                let is_of_order = |line: &str| line.starts_with("gap") || line == "Branch";
                let mut told = all.filter(|line| !line.starts_with('"'));
                assert!(told.all(is_of_order), "{found:?}");
            }
        }
    }
}

/// Fault 5: an object of one kind, or of one place, is none of another.
#[test]
fn what_was_moved_to_another_topic_says_nothing_there() {
    let history = History::new();
    let (intact, data) = (history.bus(), history.data());
    let reference = history.read(&intact);
    for from in intact.keys() {
        for to in intact.keys().filter(|to| *to != from) {
            let mut bus = intact.clone();
            let moved = intact[from].clone();
            let count = moved.len();
            bus.get_mut(to).unwrap().extend(moved);
            let mut found = history.read(&bus).but_forged();
            if *to == data {
                let told = found.of_items.split_off(history.texts.len());
                assert_eq!(told, vec!["rejected: Malformed\n"; count], "{from}");
            }
            assert_eq!(found, reference, "{from} in {to}");
        }
    }
}

/// One of the things that anybody can do to an item.
#[derive(Clone, Debug)]
enum Harm {
    Flip { at: usize, pattern: u8 },
    Cut { len: usize },
    Drop,
    Double,
    Swap { other: usize },
    Move { topic: usize },
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, pattern)| Harm::Flip { at, pattern }),
        1 => any::<usize>().prop_map(|len| Harm::Cut { len }),
        1 => Just(Harm::Drop),
        1 => Just(Harm::Double),
        2 => any::<usize>().prop_map(|other| Harm::Swap { other }),
        1 => any::<usize>().prop_map(|topic| Harm::Move { topic }),
    ]
}

fn do_harm(bus: &mut Bus, topic: usize, item: usize, harm: &Harm) {
    let topics: Vec<_> = bus.keys().cloned().collect();
    let name = &topics[topic % topics.len()];
    let items = bus.get_mut(name).unwrap();
    if items.is_empty() {
        return;
    }
    let (at, len) = (item % items.len(), items.len());
    match harm {
        Harm::Flip { at: byte, pattern } => {
            let bytes = items[at].len().max(1);
            if let Some(byte) = items[at].get_mut(byte % bytes) {
                *byte ^= pattern;
            }
        }
        Harm::Cut { len } => {
            let bytes = items[at].len().max(1);
            items[at].truncate(len % bytes);
        }
        Harm::Drop => drop(items.remove(at)),
        Harm::Double => {
            let item = items[at].clone();
            items.push(item);
        }
        Harm::Swap { other } => items.swap(at, other % len),
        Harm::Move { topic } => {
            let item = items.remove(at);
            let to = &topics[topic % topics.len()];
            bus.get_mut(to).unwrap().push(item);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is done to a bus, nothing opens that would not have opened, nothing twice, and nothing
    /// of it ends a reader.
    #[test]
    fn many_harms_at_once_open_nothing_more(
        harms in prop::collection::vec((any::<usize>(), any::<usize>(), harm()), 1..12),
    ) {
        thread_local! {
            static HISTORY: (History, Outcome) = {
                let history = History::new();
                let reference = history.read(&history.bus());
                (history, reference)
            };
        }
        HISTORY.with(|(history, reference)| {
            let mut bus = history.bus();
            for (topic, item, harm) in &harms {
                do_harm(&mut bus, *topic, *item, harm);
            }
            let found = history.read(&bus);
            for (text, count) in found.opened() {
                prop_assert!(reference.opened().get(text) >= Some(&count), "{text}");
            }
            // Who looks at the data topic alone loses only what was harmed there.
            let (view, alarms) = history.view(&history.bus());
            let found = history.read_with(&view, alarms, &bus);
            let intact: BTreeSet<_> = bus[&history.data()].iter().collect();
            for (at, item) in history.bus()[&history.data()].iter().enumerate() {
                let is_of_rob = history.texts[at].starts_with("rob");
                if intact.contains(item) && !is_of_rob {
                    for text in reference.but_gaps(at) {
                        prop_assert!(found.opened().contains_key(text), "{text}");
                    }
                }
            }
            Ok(())
        })?;
    }
}
