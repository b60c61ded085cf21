//! Clients that come in by WebSocket.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::clients::{dial as dial_tls, is_served, listener, secured, tls};
use crate::rig::{Broker, Link, Peer, RULES, Rig, Version, connect, packet, publish, welcome};
use crate::tls::fixture;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the standard gives as the answer to that.
const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of some kind, as a client makes it; `first` has the bit in it that says that a message ends.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        long @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// A client's end of a WebSocket, which sends frames of so many bytes.
struct Web<L> {
    link: L,
    frame_max: usize,
    /// What is left of a frame of the proxy.
    left: u64,
}

impl<L: Link> Web<L> {
    fn new(mut link: L, frame_max: usize) -> Self {
        let answer = ask(&mut link, &request(""));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(
            answer.contains(&format!("\r\nSec-WebSocket-Accept: {ANSWER}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"),
            "{answer}"
        );
        Self {
            link,
            frame_max,
            left: 0,
        }
    }

    /// The kind of the next frame, and the length of its payload.
    fn head(&mut self) -> io::Result<(u8, u64)> {
        let mut head = [0; 2];
        self.link.read_exact(&mut head)?;
        assert!(
            head[0] & 0x70 == 0 && head[1] & 0x80 == 0,
            "a server's: {head:x?}"
        );
        let mut length = vec![0; [0, 2, 8][usize::from(head[1].saturating_sub(125))]];
        self.link.read_exact(&mut length)?;
        let long = length
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte));
        let length = if length.is_empty() {
            head[1].into()
        } else {
            long
        };
        Ok((head[0], length))
    }

    /// Waits for a control frame that is the next; what is in it.
    fn control(&mut self, kind: u8) -> Vec<u8> {
        let (first, length) = self.head().unwrap();
        assert_eq!(first, 0x80 | kind);
        let mut payload = vec![0; length as usize];
        self.link.read_exact(&mut payload).unwrap();
        payload
    }
}

impl<L: Link> Read for Web<L> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let (first, length) = self.head()?;
            match first {
                0x82 => self.left = length,
                0x88 => return Ok(0),
                other => panic!("a frame of another kind: {other:x}"),
            }
        }
        let most = into.len().min(self.left as usize);
        let count = self.link.read(&mut into[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<L: Link> Write for Web<L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut frames = Vec::new();
        let parts: Vec<_> = bytes.chunks(self.frame_max).collect();
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let kind = if index == 0 { 2 } else { 0 };
            frames.extend(frame(kind | if is_last { 0x80 } else { 0 }, part));
            // What comes in between says nothing.
            frames.extend(frame(0x8a, b"nobody asked"));
            frames.extend(if is_last { Vec::new() } else { frame(0, b"") });
        }
        self.link.write_all(&frames)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.flush()
    }
}

impl<L: Link> Link for Web<L> {
    fn socket(&self) -> &TcpStream {
        self.link.socket()
    }
}

fn request(more: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: proxy.example\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n{more}\r\n"
    )
}

/// What is answered, up to where it ends or a WebSocket begins.
fn ask(link: &mut impl Link, request: &str) -> String {
    link.socket()
        .set_read_timeout(Some(crate::rig::WITHIN))
        .unwrap();
    link.write_all(request.as_bytes()).unwrap();
    link.flush().unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(link.read(&mut byte).unwrap(), 1, "{answer:x?}");
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

fn rig(more: &str, broker: &Broker) -> Rig {
    let listeners = format!("{}{}", listener("ws", more), secured("wss", more));
    Rig::new(&format!("{listeners}{RULES}"), broker.port())
}

fn dial(rig: &Rig) -> TcpStream {
    TcpStream::connect(("127.0.0.1", rig.ports[1])).unwrap()
}

/// However packets are cut into frames, and frames into segments.
#[test]
fn packets_travel_in_frames_of_any_length_and_by_tls() {
    let broker = Broker::new();
    let rig = rig("", &broker);
    for frame_max in [1, 125, 126, 1_000, 65_535, 65_536, usize::MAX] {
        assert!(is_served(
            Peer::new(Web::new(dial(&rig), frame_max)),
            &broker
        ));
    }
    let secured = dial_tls(rig.ports[2], &tls(&fixture("ca.pem"), None));
    assert!(is_served(Peer::new(Web::new(secured, 1_000)), &broker));
    // Several packets in one frame, which comes right behind the request.
    let mut client = dial(&rig);
    let message = publish(Version::Five, 0, "clear/1", 0, &[], b"x");
    let packets = [connect(Version::Five, "client", &[], None), message.clone()].concat();
    let all = [request("").into_bytes(), frame(0x82, &packets)].concat();
    client.write_all(&all).unwrap();
    assert!(ask(&mut client, "").starts_with("HTTP/1.1 101 "));
    let mut server = broker.accept();
    server.packet();
    server.send(&welcome(Version::Five, &[]));
    assert_eq!(server.packet(), message);
}

#[test]
fn pings_are_answered_and_a_close_is() {
    let broker = Broker::new();
    let rig = rig("", &broker);
    let mut client = Web::new(dial(&rig), usize::MAX);
    client
        .write_all(&connect(Version::Five, "client", &[], None))
        .unwrap();
    let mut server = broker.accept();
    server.packet();
    server.send(&welcome(Version::Five, &[]));
    let (first, length) = client.head().unwrap();
    assert_eq!(first, 0x82);
    let mut welcome = vec![0; length as usize];
    client.link.read_exact(&mut welcome).unwrap();
    for said in [&b""[..], b"are you there?", &[7; 125]] {
        client.link.write_all(&frame(0x89, said)).unwrap();
        assert_eq!(client.control(10), said);
    }
    client.link.write_all(&frame(0x88, &[0x03, 0xe9])).unwrap();
    assert_eq!(client.control(8), [0x03, 0xe9]);
    Peer::new(client.link).is_cut_off();
    server.closed();
}

#[test]
fn what_no_client_may_send_closes_its_connection_and_says_why() {
    let broker = Broker::new();
    let rig = rig("", &broker);
    let (protocol, binary) = ([0x03, 0xea], [0x03, 0xeb]);
    let unmasked = vec![0x82, 1, 0xc0];
    let mut odd_length = frame(0x82, &[7; 200]);
    odd_length[2..4].copy_from_slice(&[0, 100]);
    let endless = vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    for (bytes, why) in [
        (frame(0x81, b"text"), binary),
        (frame(0x83, b"x"), protocol),
        (frame(0x8b, b"x"), protocol),
        (frame(0xc2, b"x"), protocol),
        (frame(0x80, b"nothing was begun"), protocol),
        ([frame(2, b"begun"), frame(0x82, b"x")].concat(), protocol),
        (frame(9, b"in parts"), protocol),
        (frame(0x89, &[7; 126]), protocol),
        (frame(0x88, b"x"), protocol),
        (unmasked, protocol),
        (odd_length, protocol),
        (endless, protocol),
    ] {
        let mut client = Web::new(dial(&rig), usize::MAX);
        client.link.write_all(&bytes).unwrap();
        assert_eq!(client.control(8), why, "{bytes:x?}");
        Peer::new(client.link).is_cut_off();
    }
    // What is no MQTT in it is none.
    let mut client = Peer::new(Web::new(dial(&rig), usize::MAX));
    client.send(&packet(0xc0, &[]));
    client.is_cut_off();
}

#[test]
fn who_asks_for_no_websocket_gets_none() {
    let broker = Broker::new();
    let rig = rig("", &broker);
    let right = request("");
    for (odd, status) in [
        (
            "GET / HTTP/1.1\r\nHost: proxy.example\r\n\r\n".to_owned(),
            426,
        ),
        (right.replace("GET", "POST"), 400),
        (right.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (right.replace("Version: 13", "Version: 8"), 426),
        (right.replace("mqttv3.1, mqtt", "mqttv3.1"), 400),
        (right.replace(KEY, "c2hvcnQ="), 400),
        (right.replace(KEY, "no base64"), 400),
        (request(&format!("Sec-WebSocket-Key: {KEY}\r\n")), 400),
        (
            request(&format!("X-Large: {}\r\n", "x".repeat(16 << 10))),
            400,
        ),
        (request(&"X: y\r\n".repeat(64)), 400),
        ("\x10\x0c\0\x04MQTT\x05\x02\0\0\0\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = dial(&rig);
        let answer = ask(&mut client, &odd);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{odd}: {answer}"
        );
        Peer::new(client).is_cut_off();
    }
}

/// A script in a browser could else use a proxy on loopback without anybody's leave.
#[test]
fn pages_may_connect_that_are_of_a_listed_origin() {
    let broker = Broker::new();
    let page = |origin: &str| request(&format!("Origin: {origin}\r\n"));
    for (origins, ours, others) in [
        ("", 403, 403),
        ("\"https://Ours.example\"", 101, 403),
        ("\"*\"", 101, 101),
    ] {
        let rig = rig(&format!("origins = [{origins}]"), &broker);
        for (origin, host, status) in [
            ("https://ours.example", "proxy.example", ours),
            ("https://ours.example:8443", "proxy.example", others),
            ("http://ours.example", "proxy.example", others),
            ("null", "proxy.example", others),
            // A name that somebody has lead here.
            ("http://proxy.example", "proxy.example", others),
            ("http://127.0.0.1:1", "127.0.0.1:2", others),
            // Itself, as some programs say.
            ("http://127.0.0.1:1883", "127.0.0.1:1883", 101),
            ("http://[::1]:9", "[::1]:9", 101),
            ("http://127.0.0.1", "127.0.0.1:80", 101),
        ] {
            let asked = page(origin).replace("Host: proxy.example", &format!("Host: {host}"));
            let answer = ask(&mut dial(&rig), &asked);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{origin}: {answer}"
            );
        }
        // By TLS nobody has a name lead here.
        let mut secured = dial_tls(rig.ports[2], &tls(&fixture("ca.pem"), None));
        let answer = ask(&mut secured, &page("https://proxy.example:443"));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}
