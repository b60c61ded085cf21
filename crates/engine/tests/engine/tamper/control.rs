//! Lists, log entries, records and bundles that were altered or cut short.

use std::collections::BTreeSet;

use super::history::*;

/// What is lost with each control object that is refused or missing: the messages that depend on it,
/// and what is told of them. Of what stays, nothing is told but gaps where others are missing.
const LOST: [(&str, &str); 30] = [
    // The owner's card: nobody is named by anything else.
    (
        "list owner 0",
        "rejected: UnknownSender: owner 1, pam 1, rob 1, rob 2, framed, owner 2, older 1, older 2, \
         owner 3, owner 4, pam 2",
    ),
    // Without the first entry the log has not begun, so that no record counts.
    (
        "log owner 0",
        "rejected: UnknownSender: pam 1, rob 1, rob 2, framed, pam 2; rejected: UnknownSession: \
         owner 1, owner 2, older 1, older 2, owner 3, owner 4",
    ),
    // Without a link of the chain what follows it waits: the grants to pam, rob, and both readers,
    // and the revocations of rob and ray. A reader needs no grant of its own to open what it holds.
    (
        "log owner 1",
        "rejected: UnknownSender: pam 1, rob 1, rob 2, framed, pam 2",
    ),
    ("log owner 2", "rejected: UnknownSender: rob 1, rob 2"),
    ("log owner 3", ""),
    ("log owner 4", ""),
    ("log owner 5", ""),
    ("log owner 6", ""),
    (
        "list pam 0",
        "rejected: UnknownSender: pam 1, framed, pam 2",
    ),
    ("list rob 0", "rejected: UnknownSender: rob 1, rob 2"),
    ("list reader 0", ""),
    ("list ray 0", ""),
    // Records and the reader's bundles, session by session; the other bundles are for ray and owner.
    ("record 0", "rejected: UnknownSession: owner 1"),
    ("bundle 1", "sealed, key not here: owner 1"),
    ("bundle 2", ""),
    ("record 3", "rejected: UnknownSession: pam 1, framed"),
    ("bundle 4", "sealed, key not here: pam 1, framed"),
    ("bundle 5", ""),
    ("record 6", "rejected: UnknownSession: rob 1, rob 2"),
    ("bundle 7", ""),
    ("bundle 8", ""),
    ("record 9", "rejected: UnknownSession: owner 2"),
    ("bundle 10", "sealed, key not here: rob 1, rob 2"),
    ("bundle 11", "sealed, key not here: owner 2"),
    ("record 12", "rejected: UnknownSession: older 1, older 2"),
    ("bundle 13", "sealed, key not here: older 1, older 2"),
    ("record 14", "rejected: UnknownSession: owner 3, owner 4"),
    ("bundle 15", "sealed, key not here: owner 3, owner 4"),
    ("record 16", "rejected: UnknownSession: pam 2"),
    ("bundle 17", "sealed, key not here: pam 2"),
];

#[test]
fn what_depends_on_a_control_object_is_lost_with_it_and_nothing_else() {
    let history = History::new();
    let reference = history.read(&history.bus());
    let mut found = Vec::new();
    for (topic, at, what) in history.control() {
        let without = history.read(&history.with(&topic, at, []));
        assert_eq!(without.alarms, reference.alarms, "{what}");
        found.push((what, history.lost(&reference, &without)));
    }
    let found: Vec<_> = found
        .iter()
        .map(|(of, lost)| (&of[..], &lost[..]))
        .collect();
    assert_eq!(found, LOST);
}

/// Faults 5 and 17: every altered form of a control object is as if it were not there, all of them at
/// once in its place as well; beside it they change nothing. Of the first of each kind every byte, of
/// the others one in five. That somebody writes to the topic who is none of its own is told.
#[test]
fn every_byte_of_every_control_object_counts_and_what_was_altered_is_as_if_it_were_not_there() {
    let history = History::new();
    let reference = history.read(&history.bus());
    let mut kinds = BTreeSet::new();
    for (topic, at, what) in history.control() {
        let item = &history.world.bus[&topic][at];
        let without = history.read(&history.with(&topic, at, []));
        let kind = what.split(' ').next().unwrap().to_owned();
        let step = if kinds.insert(kind) { 1 } else { 5 };
        for forms in [altered(item), cut(item)] {
            let forms: Vec<_> = forms.into_iter().step_by(step).collect();
            let found = history.read(&history.with(&topic, at, forms.clone()));
            let is_told = found.alarms.iter().any(|of| of.starts_with("Forged"));
            assert!(is_told, "{what}");
            let found = found.but_forged();
            // To find the one that is taken, if one is.
            if found != without {
                for (i, form) in forms.iter().enumerate() {
                    let found = history.read(&history.with(&topic, at, [form.clone()]));
                    let found = found.but_forged();
                    assert_eq!(found, without, "{what}: form {i} of {}", forms.len());
                }
            }
            assert_eq!(found, without, "{what}: all forms together");
            let beside = forms.into_iter().step_by(9).chain([item.clone()]);
            let found = history.read(&history.with(&topic, at, beside));
            assert_eq!(
                found.but_forged(),
                reference,
                "{what}: beside the intact one"
            );
        }
    }
}

#[test]
fn an_altered_control_object_alone_is_as_if_it_were_not_there() {
    let history = History::new();
    for (topic, at, what) in history.control() {
        let item = &history.world.bus[&topic][at];
        let without = history.read(&history.with(&topic, at, []));
        let forms = altered(item);
        // The head, the tail, and a byte now and then.
        let step = forms.len() / 5;
        for form in forms.iter().step_by(step).chain(forms.last()) {
            let found = history.read(&history.with(&topic, at, [form.clone()]));
            assert_eq!(found.but_forged(), without, "{what}");
        }
    }
}
