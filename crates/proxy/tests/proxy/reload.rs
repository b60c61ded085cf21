//! Another config file for a proxy that runs.

use std::net::TcpStream;
use std::path::Path;

use sealcast_proxy::Exception::{Dropped, Refused};

use crate::clients::{dial, is_served, listener, secured, tls};
use crate::rig::{BOTH, Broker, Peer, RULES, Rig, packet, publish};
use crate::tls::fixture;
use crate::toy::{envelope, payload};

/// What was passed is sealed, and what was sealed is refused.
const OTHERS: &str = r#"
[[rule]]
topics = "clear/#"
stream = "other"
do = "both"
"#;

#[test]
fn fault_19_a_client_goes_by_the_new_rules_from_its_next_message_on() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        let message = |topic: &str, id, bytes: &[u8]| publish(version, 2, topic, id, &[], bytes);
        client.send(&message("clear/1", 1, b"in clear"));
        assert_eq!(server.packet(), message("clear/1", 1, b"in clear"));
        assert_eq!(rig.reload(OTHERS, ""), Ok(vec![]));
        client.send(&message("clear/1", 2, b"sealed now"));
        let sealed = envelope("other", "clear/1", b"sealed now");
        assert_eq!(server.packet(), message("clear/1", 2, &sealed));
        client.send(&message("plant/7", 3, b"no rule any more"));
        let reason: &[u8] = if version as u8 == 5 { &[0x87] } else { &[] };
        assert_eq!(client.packet(), packet(0x40, &[&[0, 3], reason].concat()));
        // So is what is received.
        server.send(&message("clear/1", 4, &sealed));
        assert_eq!(client.packet(), message("clear/1", 4, b"sealed now"));
        for (topic, bytes) in [
            ("clear/1", &b"a stranger's"[..]),
            ("plant/7", &envelope("boiler", "plant/7", b"x")),
        ] {
            server.send(&message(topic, 5, bytes));
            assert_eq!(server.packet(), packet(0x40, &[0, 5]));
        }
        assert_eq!(rig.count(Refused, "proxy.no-rule"), 1);
        assert_eq!(rig.count(Dropped, "proxy.no-rule"), 1);
        // And back.
        assert_eq!(rig.reload(RULES, ""), Ok(vec![]));
        client.send(&message("plant/7", 6, b"sealed again"));
        let sealed = server.packet();
        let sealed = &sealed[sealed.len() - envelope("boiler", "plant/7", b"sealed again").len()..];
        assert_eq!(
            payload("boiler", "plant/7", sealed),
            Some(b"sealed again".to_vec())
        );
    }
}

#[test]
fn clients_that_connect_later_see_other_certificates() {
    let broker = Broker::new();
    let before = format!("{}{RULES}", secured("mqtts", ""));
    let rig = Rig::new(&before, broker.port());
    let port = rig.ports[1];
    let right = tls(&fixture("ca.pem"), None);
    assert!(is_served(Peer::new(dial(port, &right)), &broker));
    let agents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/fixtures");
    let agents = |name: &str| agents.join(name).display().to_string();
    let files = |certificate: &str, key: &str| {
        let files = format!("certificate = \"{certificate}\"\nkey = \"{key}\"");
        format!("{}{OTHERS}", listener("mqtts", &files))
    };
    // A key that is another's: all is as it was, rules as well.
    let wrong = rig.reload(&files(&agents("server.pem"), &fixture("server.key")), "");
    assert!(wrong.unwrap_err().contains("cannot use"));
    assert!(is_served(Peer::new(dial(port, &right)), &broker));
    let changed = rig.reload(&files(&agents("server.pem"), &agents("server.key")), "");
    assert_eq!(changed, Ok(vec![]));
    let mut client = dial(port, &right);
    assert!(client.conn.complete_io(&mut client.sock).is_err());
    assert_eq!(rig.reload(&before, ""), Ok(vec![]));
    assert!(is_served(Peer::new(dial(port, &right)), &broker));
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let more = "connections_max = 1\naddress_connections_max = 1\nmetrics = \"127.0.0.1:0\"\nlog = \"warn\"\n\
                park_messages_max = 1\npark_bytes_max = \"1 KiB\"\npark_age_max = \"1h\"";
    let rules = format!("{}{RULES}", listener("ws", ""));
    let park = ["park_messages_max", "park_bytes_max", "park_age_max"];
    let later = [
        &["listen", "metrics", "connections_max"][..],
        &["address_connections_max"],
        &park,
        &["log"],
    ]
    .concat();
    assert_eq!(rig.reload(&rules, more), Ok(later));
    let both = [rig.dial(), rig.dial()];
    for client in both {
        assert!(is_served(client, &broker));
    }
    drop(TcpStream::connect(("127.0.0.1", rig.port)).unwrap());
}
