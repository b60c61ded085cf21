//! What the proxy tells whoever watches it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use sealcast_brokers::free_port;

use crate::rig::{Broker, Peer, RULES, Rig, Version, WITHIN, connect, packet, publish};

pub(crate) const METRICS: &str = "metrics = \"127.0.0.1:0\"";

/// The status of an answer, and what is in it.
fn get(rig: &Rig, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", rig.metrics.unwrap())).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let asked = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// How it is while nobody listens where the broker is.
fn away() -> (u16, String) {
    let says = "the broker cannot be reached: nobody listens there\n";
    (503, says.to_owned())
}

pub(crate) fn healthz(rig: &Rig) -> (u16, String) {
    get(rig, "/healthz", "127.0.0.1")
}

#[test]
fn messages_connections_and_bytes_are_counted_and_nothing_is_named() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, METRICS, &upstream);
    let (mut client, mut server) = rig.join(&broker, Version::Five);
    let message = |topic| publish(Version::Five, 2, topic, 7, &[], b"61.4 C");
    client.send(&message("plant/7"));
    let sealed = server.packet();
    server.send(&sealed);
    client.packet();
    client.send(&message("clear/7"));
    server.packet();
    client.send(&message("nobody/7"));
    assert_eq!(client.packet(), packet(0x40, &[0, 7, 0x87]));
    let (status, text) = get(&rig, "/metrics", "localhost:9465");
    assert_eq!(status, 200);
    for line in [
        "# TYPE sealcast_proxy_connections gauge",
        "sealcast_proxy_healthy 1",
        "sealcast_proxy_connections 1",
        "sealcast_proxy_connections_total 1",
        "sealcast_proxy_messages_total{fate=\"sealed\"} 1",
        "sealcast_proxy_messages_total{fate=\"opened\"} 1",
        "sealcast_proxy_messages_total{fate=\"passed\"} 1",
        "sealcast_proxy_exceptions_total{fate=\"refused\",reason=\"proxy.no-rule\"} 1",
        "sealcast_proxy_broker_up 1",
        "sealcast_proxy_stream_up{stream=\"1\"} 1",
    ] {
        assert!(text.lines().any(|of| of == line), "{line}: {text}");
    }
    let received = "sealcast_proxy_bytes_total{side=\"broker\",direction=\"received\"} ";
    let received = text.lines().find_map(|of| of.strip_prefix(received));
    assert_eq!(received, Some(&*(sealed.len() + 5).to_string()));
    for name in [
        "plant", "clear", "nobody", "boiler", "kim", "client\"", "61.4",
    ] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert_eq!(healthz(&rig), (200, "ok\n".to_owned()));
    // A page may come from a name that leads here.
    assert_eq!(get(&rig, "/metrics", "rebound.example:9465").0, 421);
    assert_eq!(get(&rig, "/", "127.0.0.1").0, 404);
}

#[test]
fn what_is_not_well_is_told() {
    let rig = Rig::with(RULES, METRICS, &format!("mqtt://127.0.0.1:{}", free_port()));
    assert_eq!(healthz(&rig), away());
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, METRICS, &upstream);
    assert_eq!(
        healthz(&rig).0,
        200,
        "nobody has connected, so it looks itself"
    );
    drop(broker.accept());
    let (mut client, mut server) = rig.join(&broker, Version::Three);
    let message = |payload| publish(Version::Three, 0, "plant/7", 0, &[], payload);
    let passes = publish(Version::Three, 0, "clear/1", 0, &[], b"behind it");
    rig.toy.fails("toy.away", false);
    for behind in [&message(b"x"), &passes] {
        client.send(behind);
    }
    server.packet();
    assert_eq!(healthz(&rig), (503, "stream 1: toy.away\n".to_owned()));
    *rig.toy.fault.lock().unwrap() = None;
    client.send(&message(b"y"));
    server.packet();
    assert_eq!(healthz(&rig).0, 200);
}

/// Somebody was let in just now, so that it was there.
#[test]
fn a_broker_that_has_gone_is_not_said_to_be_there() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, METRICS, &upstream);
    let (mut client, server) = rig.join(&broker, Version::Five);
    assert_eq!(healthz(&rig), (200, "ok\n".to_owned()));
    drop((server, broker));
    client.closed();
    assert_eq!(healthz(&rig), away());
}

/// Whoever is slow there keeps no client waiting, and no end.
#[test]
fn who_asks_and_says_nothing_holds_up_nobody() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let mut rig = Rig::with(RULES, METRICS, &upstream);
    let silent: Vec<_> = (0..80)
        .map(|_| TcpStream::connect(("127.0.0.1", rig.metrics.unwrap())).unwrap())
        .collect();
    let mut client: Peer = rig.dial();
    client.send(&connect(Version::Five, "client", &[], None));
    assert_eq!(broker.accept().packet()[0], 0x10);
    rig.stop();
    rig.ended();
    drop(silent);
}
