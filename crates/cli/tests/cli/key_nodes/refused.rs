//! Who may not read, and asks for it all the same.

use super::asked::{all_answer, ask_again, caught, inbox, said, said_times};
use super::{Running, reader, stream_with_nodes};
use crate::agent::looked_for;
use crate::rig::Rig;

/// An answer has more bytes, and a refusal fewer.
const ANSWER_BYTES_MIN: usize = 1_200;

/// Programs of their own do not even ask. These do, and one who may read does the same and is answered.
#[test]
fn who_expired_was_revoked_or_never_granted_is_refused_by_each_node_and_opens_nothing() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    let expired = reader(&rig, &owner, &ticket, "eve", "-1m");
    let revoked = reader(&rig, &owner, &ticket, "rob", "+400d");
    let stranger = rig.person("sam");
    stranger.done(&["join", &ticket]);
    owner.done(&["revoke", "plant", &revoked.id()]);
    owner.done(&["pub", "plant", "-m", "secret"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    let _running: Vec<_> = nodes.iter().map(Running::start).collect();
    assert_eq!(bob.done(&["read", "plant"]), "secret");
    let caught = caught(&rig, &bob, &nodes);
    all_answer(&bob);

    for asker in [&stranger, &expired, &revoked, &kim] {
        ask_again(&rig, asker, &caught, &nodes);
    }
    for node in &nodes {
        // Asked last, so that they have looked at all of it.
        assert_eq!(said_times(node, &kim, 1), ["released"]);
        for refused in [&expired, &revoked] {
            assert_eq!(said_times(node, refused, 1), ["not-entitled"]);
        }
        let to_stranger = said(node, &stranger);
        assert!(to_stranger.is_empty(), "{to_stranger:?}");
    }
    assert_eq!(rig.count(&inbox(&stranger)), 0);
    for person in [&expired, &revoked, &stranger] {
        let ran = person.run(&["read", "plant"]);
        assert_eq!((ran.code, ran.stdout.as_slice()), (3, &b""[..]));
    }
    for refused in [&expired, &revoked] {
        let inbox = inbox(refused);
        looked_for(|| rig.count(&inbox), |count| *count >= 3);
        let lens: Vec<_> = rig.items(&inbox, 0).iter().map(Vec::len).collect();
        assert!(lens.iter().all(|len| *len < ANSWER_BYTES_MIN), "{lens:?}");
    }
}
