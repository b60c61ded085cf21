//! Of messages that are JSON only the values that a rule names are sealed and opened.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealcast_proxy::Exception::{Dropped, Refused};

use crate::rig::{BOTH, Broker, Peer, Rig, Version, connect, packet, publish, welcome};
use crate::toy::envelope;

const RULES: &str = r#"
[[rule]]
topics = "plant/#"
stream = "boiler"
fields = ["/temp", "$.at[1]"]
do = "both"
"#;

const CLEAR: &str = "{ \"id\": 7, \"temp\": 61.40, \"at\": [1, \"boiler room\"] }";

/// What the broker has of [`CLEAR`].
fn sealed() -> String {
    let values = br#"{"/temp":61.40,"/at/1":"boiler room"}"#;
    let envelope = STANDARD.encode(envelope("boiler", "plant/7", values));
    format!("{{ \"id\": 7, \"temp\": \"{envelope}\", \"at\": [1, null] }}")
}

fn joined(version: Version) -> (Rig, Peer, Peer) {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let (client, server) = rig.join(&broker, version);
    (rig, client, server)
}

#[test]
fn named_values_are_sealed_and_put_back_and_all_else_stays_as_it_is() {
    for version in BOTH {
        let (rig, mut client, mut server) = joined(version);
        // It says that the payload is text, which it stays.
        let with: &[u8] = &[1, 1, 3, 0, 1, b't'];
        client.send(&publish(version, 2, "plant/7", 9, with, CLEAR.as_bytes()));
        let travels = publish(version, 2, "plant/7", 9, with, sealed().as_bytes());
        assert_eq!(server.packet(), travels);
        server.send(&travels);
        let back = publish(version, 2, "plant/7", 9, with, CLEAR.as_bytes());
        assert_eq!(client.packet(), back);
        assert_eq!((rig.counts.sealed(), rig.counts.opened()), (1, 1));
    }
}

/// Fault 19: where the values cannot be found nothing goes on.
#[test]
fn a_message_of_which_no_value_can_be_sealed_is_refused() {
    for version in BOTH {
        let (rig, mut client, mut server) = joined(version);
        let odd = [
            ("61.40", "json.no-field"),
            ("61.40 C", "json.malformed"),
            ("{\"temp\":61.40", "json.malformed"),
            ("{\"Temp\":61.40}", "json.no-field"),
            ("{\"temp\":61.40,\"\\u0074emp\":0}", "json.field-twice"),
        ];
        for (payload, code) in odd {
            client.send(&publish(version, 2, "plant/7", 9, &[], payload.as_bytes()));
            let told: &[u8] = match version {
                Version::Three => &[0, 9],
                Version::Five => &[0, 9, 0x87],
            };
            assert_eq!(client.packet(), packet(0x40, told), "{payload}");
            assert!(rig.count(Refused, code) > 0, "{payload}");
        }
        client.send(&packet(0xc0, &[]));
        assert_eq!(server.packet(), packet(0xc0, &[]), "nothing came before");
    }
}

/// Fault 7: values in clear are not delivered, nor are sealed ones in another place.
#[test]
fn a_message_whose_values_are_in_clear_or_of_another_message_is_dropped() {
    for version in BOTH {
        let (rig, mut client, mut server) = joined(version);
        let elsewhere = STANDARD.encode(envelope("boiler", "plant/8", b"{\"/temp\":1}"));
        let of_another = STANDARD.encode(envelope("boiler", "plant/7", b"{\"/gone\":1}"));
        let alone = STANDARD.encode(envelope("boiler", "plant/7", b"{\"/temp\":1}"));
        let odd = [
            (CLEAR.to_owned(), "json.in-clear"),
            ("{\"id\":7}".to_owned(), "json.no-field"),
            ("61.40".to_owned(), "json.no-field"),
            (format!("{{\"temp\":\"{elsewhere}\"}}"), "toy.not-opened"),
            (format!("{{\"temp\":\"{of_another}\"}}"), "json.other-shape"),
            // Of a message that had but one of them.
            (
                format!("{{\"temp\":\"{alone}\",\"at\":[0,\"forged\"]}}"),
                "json.in-clear",
            ),
            (
                format!("{{\"temp\":\"{alone}\",\"at\":[0,null]}}"),
                "json.other-shape",
            ),
        ];
        for (payload, code) in odd {
            server.send(&publish(version, 2, "plant/7", 9, &[], payload.as_bytes()));
            assert_eq!(server.packet(), packet(0x40, &[0, 9]), "{payload}");
            assert!(rig.count(Dropped, code) > 0, "{payload}");
        }
        server.send(&packet(0xd0, &[]));
        assert_eq!(client.packet(), packet(0xd0, &[]), "nothing came before");
    }
}

#[test]
fn the_values_of_a_will_are_sealed_too() {
    for version in BOTH {
        let broker = Broker::new();
        let rig = Rig::new(RULES, broker.port());
        let mut client = rig.dial();
        let will = (0, &[][..], "plant/7", CLEAR.as_bytes());
        client.send(&connect(version, "client", &[], Some(will)));
        let mut server = broker.accept();
        let came = server.packet();
        let has = |text: &[u8]| came.windows(text.len()).any(|part| part == text);
        assert!(has(sealed().as_bytes()) && !has(b"boiler room") && !has(b"61.40"));
        server.send(&welcome(version, &[]));
        client.packet();
    }
}
