//! The program on NATS: strangers on the same server, and a cluster of which servers end.

mod cluster;
mod strangers;

use crate::rig::{Person, Rig};

/// Alice owns the stream `s` on a NATS bus, and Bob may read it from its start.
struct Cast {
    rig: Rig,
    alice: Person,
    bob: Person,
}

impl Cast {
    fn on(url: &str) -> Self {
        let rig = Rig::new();
        let [alice, bob] = ["alice", "bob"].map(|name| someone(&rig, name, url));
        let ticket = alice.done(&["stream", "create", "s"]);
        bob.done(&["join", &ticket]);
        alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
        Self { rig, alice, bob }
    }
}

/// Somebody with a home on a bus.
fn someone(rig: &Rig, name: &str, url: &str) -> Person {
    let person = rig.stranger(name);
    person.done(&["init", "--name", name, "--bus", url, "--no-passphrase"]);
    person
}
