//! A broker that is reached by TLS.

use std::path::Path;

use sealcast_brokers::mosquitto::Server;

use crate::rig::{RULES, Rig, Version, connect, packet, publish};

/// A file that tests of servers share.
pub(crate) fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bus-nats/tests/nats/fixtures");
    folder.join(name).display().to_string()
}

#[test]
fn a_broker_is_believed_by_its_certificate() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let config = format!("allow_anonymous true\ncertfile {certificate}\nkeyfile {key}");
    let server = Server::start_with(&config);
    let upstream = format!("mqtts://127.0.0.1:{}", server.port());
    let with = |ca: &str| {
        Rig::with(
            RULES,
            &format!("upstream_ca = \"{}\"", fixture(ca)),
            &upstream,
        )
    };
    let version = Version::Five;
    let rig = with("ca.pem");
    let mut client = rig.dial();
    client.send(&connect(version, "client", &[], None));
    let welcome = client.packet();
    assert_eq!(
        (welcome[0], &welcome[2..4]),
        (0x20, &[0, 0][..]),
        "{welcome:x?}"
    );
    client.send(&packet(
        0x82,
        &[&[0, 1, 0, 0, 7][..], b"plant/#", &[0]].concat(),
    ));
    assert_eq!(client.packet(), packet(0x90, &[0, 1, 0, 0]));
    client.send(&publish(version, 0, "plant/7", 0, &[], b"61.4 C"));
    assert_eq!(
        client.packet(),
        publish(version, 0, "plant/7", 0, &[], b"61.4 C")
    );
    assert!(rig.counts.sealed() == 1 && rig.counts.opened() == 1);
    // Nothing is said to one that nobody vouches for.
    let rig = with("other-ca.pem");
    let mut client = rig.dial();
    client.send(&connect(version, "client", &[], None));
    assert_eq!(client.packet(), packet(0x20, &[0, 0x88, 0]));
    client.closed();
}
