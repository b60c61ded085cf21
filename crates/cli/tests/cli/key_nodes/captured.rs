//! Requests that somebody caught, and readers who were served before.

use super::asked::{all_answer, inbox, said};
use super::{Running, reader, stream_with_nodes};
use crate::rig::Rig;

/// The same request with another one-use key, and with another id, so that no node has seen it: nothing but the
/// signature, which covers both, tells it from one that is to be answered.
fn with_another_key(request: &[u8]) -> Vec<u8> {
    // A byte string of 1,216 bytes, behind the id.
    let mut starts = request.windows(3).enumerate();
    let (at, _) = starts.find(|(_, of)| of == &[0x59, 0x04, 0xc0]).unwrap();
    let mut altered = request.to_vec();
    altered[at - 1] ^= 1;
    // The seed in an ML-KEM key is any 32 bytes, so that the key is one.
    altered[at + 3 + 1_160] ^= 1;
    altered
}

#[test]
fn a_request_that_was_caught_is_answered_once_by_whom_it_names_and_with_its_own_key() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    let _running: Vec<_> = nodes.iter().map(Running::start).collect();
    all_answer(&kim);
    assert_eq!(bob.done(&["read", "plant"]), "one");
    let before: Vec<_> = nodes.iter().map(|of| said(of, &bob).len()).collect();
    assert_eq!(before.iter().sum::<usize>(), 2);
    let asked = before.iter().position(|count| *count == 1).unwrap();
    let caught = rig.last(&inbox(&nodes[asked]));
    let answers = inbox(&bob);
    let old = rig.items(&answers, 0);

    // To those who were asked again, and to the one who was not.
    for node in &nodes {
        rig.append(&inbox(node), &caught);
        rig.append(&inbox(node), &with_another_key(&caught));
    }
    // All have looked at it when they answer who comes later.
    all_answer(&kim);
    let after: Vec<_> = nodes.iter().map(|of| said(of, &bob).len()).collect();
    assert_eq!(after, before);
    assert_eq!(rig.items(&answers, 0), old);
}

#[test]
fn who_was_served_before_a_rekey_opens_nothing_of_the_session_after_it() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let _running: Vec<_> = nodes.iter().map(Running::start).collect();
    // The segment that he is given reaches weeks ahead.
    assert_eq!(bob.done(&["read", "plant"]), "one");
    owner.done(&["revoke", "plant", &bob.id()]);
    owner.done(&["rekey", "plant"]);
    owner.done(&["pub", "plant", "-m", "two"]);
    let read = bob.run(&["read", "plant"]);
    assert_eq!((read.code, read.stdout.as_slice()), (3, &b"one\n"[..]));
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    assert_eq!(kim.done(&["read", "plant"]), "one\ntwo");
}
