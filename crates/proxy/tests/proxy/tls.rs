//! A broker that is reached by TLS.

use std::path::Path;

use sealcast_brokers::free_port;
use sealcast_brokers::mosquitto::Server;

use crate::clients::own;
use crate::rig::{RULES, Rig, Version, connect, packet, publish};
use crate::watch::{METRICS, healthz};

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

/// Whoever runs it has a certificate to renew, or a line of the config file to mend: which, is said.
#[test]
fn why_a_broker_is_not_believed_is_told() {
    let why = |certificate: &str, ca: &str| {
        let server = Server::start_with(&format!(
            "allow_anonymous true\ncertfile {}\nkeyfile {}",
            own(certificate),
            own("broker.key")
        ));
        tells(ca, server.port())
    };
    let says = |why: &str| format!("the broker cannot be reached: {why}\n");
    let authority = own("brokers-ca.pem");
    for (certificate, ca, told) in [
        ("expired.pem", &authority, "its certificate has expired"),
        (
            "other-name.pem",
            &authority,
            "its certificate is for another name",
        ),
        (
            "other-name.pem",
            &fixture("ca.pem"),
            "its certificate does not chain to those of `upstream_ca`, or of the system",
        ),
    ] {
        assert_eq!(why(certificate, ca), says(told));
    }
    let plain = Server::start_with("allow_anonymous true");
    let told = tells(&authority, plain.port());
    let either = ["it does not speak TLS", "it hangs up"].map(says);
    assert!(either.contains(&told), "{told}");
    assert_eq!(tells(&authority, free_port()), says("nobody listens there"));
}

/// What is told of a broker on some port that is known by an authority.
fn tells(authority: &str, port: u16) -> String {
    let upstream = format!("mqtts://127.0.0.1:{port}");
    let more = format!("upstream_ca = \"{authority}\"\n{METRICS}");
    let rig = Rig::with(RULES, &more, &upstream);
    let (status, told) = healthz(&rig);
    assert_eq!(status, 503, "{told}");
    told
}
