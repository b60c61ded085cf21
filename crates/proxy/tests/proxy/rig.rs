//! A proxy with rules, and whoever talks to it, byte by byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use sealcast_proxy::{Config, Control, Counts, Exception, Instead, Proxy};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::toy::Toy;

/// How long is waited for what must come, however busy the machine is.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// What is sealed and opened in most tests, what is passed, sealed or opened alone.
pub(crate) const RULES: &str = r#"
[[rule]]
topics = "plant/#"
stream = "boiler"
do = "both"
undecryptable = "drop"

[[rule]]
topics = "late/#"
stream = "boiler"
do = "both"

[[rule]]
topics = "clear/#"
do = "pass"

[[rule]]
topics = "gateway/#"
stream = "boiler"
do = "seal"

[[rule]]
topics = "shown/#"
stream = "boiler"
do = "open"
undecryptable = "forward"
"#;

/// Which MQTT a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Three = 4,
    Five = 5,
}

pub(crate) const BOTH: [Version; 2] = [Version::Three, Version::Five];

/// A proxy, which is told to end when this is dropped.
pub(crate) struct Rig {
    runtime: Option<Runtime>,
    pub(crate) toy: Arc<Toy>,
    pub(crate) counts: Arc<Counts>,
    /// Where it listens first.
    pub(crate) port: u16,
    /// Where it listens.
    pub(crate) ports: Vec<u16>,
    /// Where it answers how it is.
    pub(crate) metrics: Option<u16>,
    control: Control,
    upstream: String,
    end: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
}

/// Plays the broker.
pub(crate) struct Broker(TcpListener);

/// One end of a connection.
pub(crate) struct Peer(Box<dyn Link>);

/// What packets travel over.
pub(crate) trait Link: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Link for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Link for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

fn config(rules: &str, more: &str, upstream: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let head = format!("listen = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n{more}\n");
    std::fs::write(&path, format!("{head}{rules}")).unwrap();
    Config::load(&path, &Instead::default()).unwrap()
}

impl Rig {
    /// A proxy with rules before a broker on some port.
    pub(crate) fn new(rules: &str, broker: u16) -> Self {
        Self::with(
            &format!("{rules}\n"),
            "",
            &format!("mqtt://127.0.0.1:{broker}"),
        )
    }

    /// The same with more in its configuration.
    pub(crate) fn with(rules: &str, more: &str, upstream: &str) -> Self {
        Self::over(rules, more, upstream, Arc::default())
    }

    /// The same over what seals and opens, and keeps.
    pub(crate) fn over(rules: &str, more: &str, upstream: &str, toy: Arc<Toy>) -> Self {
        let config = config(rules, more, upstream);
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let sealing = Arc::clone(&toy);
        let proxy = runtime.block_on(Proxy::start(config, sealing)).unwrap();
        let addresses = proxy.addresses().unwrap();
        let ports: Vec<_> = addresses.iter().map(|of| of.port()).collect();
        let (counts, control) = (proxy.counts(), proxy.control());
        let metrics = proxy.metrics().map(|of| of.port());
        let (end, ends) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        runtime.spawn(async move {
            // It ends as well when nobody is left who could say so.
            proxy.run(async { drop(ends.await) }).await;
            tell.send(()).ok();
        });
        Self {
            runtime: Some(runtime),
            toy,
            counts,
            port: ports[0],
            ports,
            metrics,
            control,
            upstream: upstream.to_owned(),
            end: Some(end),
            ended: Some(ended),
        }
    }

    /// Has it go by another config file; what that changes later only.
    pub(crate) fn reload(&self, rules: &str, more: &str) -> Result<Vec<&'static str>, String> {
        let sealing = Arc::clone(&self.toy);
        let reloaded = self
            .control
            .reload(config(rules, more, &self.upstream), sealing);
        reloaded.map_err(|error| error.to_string())
    }

    /// A proxy whose broker is played, a client that was let in, and the broker's end of that.
    pub(crate) fn joined(version: Version) -> (Self, Peer, Peer) {
        let broker = Broker::new();
        let rig = Self::new(RULES, broker.port());
        let (client, server) = rig.join(&broker, version);
        (rig, client, server)
    }

    /// A client that was let in, and the broker's end of that.
    pub(crate) fn join(&self, broker: &Broker, version: Version) -> (Peer, Peer) {
        self.join_as(broker, version, "client")
    }

    /// The same with another name, since one that comes again has the former leave.
    pub(crate) fn join_as(&self, broker: &Broker, version: Version, name: &str) -> (Peer, Peer) {
        let mut client = self.dial();
        client.send(&connect(version, name, &[], None));
        let mut server = broker.accept();
        server.packet();
        server.send(&welcome(version, &[]));
        client.packet();
        (client, server)
    }

    pub(crate) fn dial(&self) -> Peer {
        Peer::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    /// From another address of this machine.
    pub(crate) fn dial_from(&self, address: [u8; 4]) -> Peer {
        let runtime = self.runtime.as_ref().unwrap();
        let stream = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            socket.connect(([127, 0, 0, 1], self.port).into()).await
        });
        let stream = stream.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        Peer::new(stream)
    }

    /// Tells it to end.
    pub(crate) fn stop(&mut self) {
        drop(self.end.take());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) {
        let ended = self.ended.take().unwrap();
        let runtime = self.runtime.as_ref().unwrap();
        let ended = runtime.block_on(async { tokio::time::timeout(WITHIN, ended).await });
        ended.expect("the proxy ends").unwrap();
    }

    /// Waits until something was done so often.
    pub(crate) fn counts_in_the_end(&self, exception: Exception, code: &str, count: u64) {
        let begun = Instant::now();
        while self.count(exception, code) != count {
            let so_far = self.count(exception, code);
            assert!(begun.elapsed() < WITHIN, "{so_far} of {count}: {code}");
            sleep(Duration::from_millis(1));
        }
    }

    /// How often something was done with a message for some reason.
    pub(crate) fn count(&self, exception: Exception, code: &str) -> u64 {
        let all = self.counts.exceptions();
        let of = all.iter().find(|of| of.0 == exception && of.1 == code);
        of.map_or(0, |of| of.2)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Broker {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The next connection of the proxy, or none where a client is disconnected instead.
    pub(crate) fn try_accept(&self, client: &mut Peer) -> Option<Peer> {
        let begun = Instant::now();
        loop {
            if let Ok((stream, _)) = self.0.accept() {
                stream.set_nonblocking(false).unwrap();
                return Some(Peer::new(stream));
            }
            assert!(begun.elapsed() < WITHIN, "it is neither served nor not");
            if client.is_gone() {
                return None;
            }
        }
    }

    /// Nobody connects, as far as that can be seen.
    pub(crate) fn accepts_nobody(&self) {
        for _ in 0..100 {
            assert!(self.0.accept().is_err(), "somebody connects");
            sleep(Duration::from_millis(1));
        }
    }

    /// The next connection of the proxy.
    pub(crate) fn accept(&self) -> Peer {
        let begun = Instant::now();
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::new(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    assert!(begun.elapsed() < WITHIN, "the proxy does not connect");
                    sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

impl Peer {
    pub(crate) fn new(link: impl Link + 'static) -> Self {
        let stream = link.socket();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.set_write_timeout(Some(WITHIN)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(Box::new(link))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the other side takes it");
        self.0.flush().expect("the other side takes it");
    }

    /// The port of the other end, and of this one.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let socket = self.0.socket();
        let ends = [socket.peer_addr(), socket.local_addr()];
        let [there, here] = ends.map(|end| end.unwrap().port());
        (there, here)
    }

    /// Sends as much as is taken.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).ok();
    }

    /// The next packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.next().expect("the connection is open")
    }

    /// Says nothing more.
    pub(crate) fn finish(&mut self) {
        self.0.socket().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Waits until the other side has closed, and nothing comes before.
    pub(crate) fn closed(&mut self) {
        if let Some(packet) = self.next() {
            panic!("it is not closed but says {packet:x?}");
        }
    }

    /// Whether the other side has closed by now; nothing may come before.
    fn is_gone(&mut self) -> bool {
        let patience = Some(Duration::from_millis(10));
        self.0.socket().set_read_timeout(patience).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.socket().set_read_timeout(Some(WITHIN)).unwrap();
        match read {
            Ok(count) => count == 0,
            Err(error) => !is_late(&error),
        }
    }

    /// Waits until the other side has closed or broken off, and no packet comes before.
    pub(crate) fn is_over(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "it says {next:x?}");
    }

    /// Waits until nothing more can come, whatever came before.
    pub(crate) fn is_cut_off(&mut self) {
        let mut bytes = [0; 1024];
        loop {
            match self.0.read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if is_late(&error) => panic!("it is not closed within {WITHIN:?}"),
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// The next packet; `None` where the other side has closed.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0];
        if self.read(&mut packet) == 0 {
            return None;
        }
        let mut length = 0;
        for index in 0.. {
            let mut byte = [0];
            assert_eq!(self.read(&mut byte), 1, "a packet is whole");
            packet.push(byte[0]);
            length |= usize::from(byte[0] & 0x7f) << (7 * index);
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        assert_eq!(self.read(&mut body), length, "a packet is whole");
        packet.extend(body);
        Some(packet)
    }

    /// Reads until the bytes are full, or the other side has closed or broken off.
    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut count = 0;
        while count < into.len() {
            match self.0.read(&mut into[count..]) {
                Ok(0) => break,
                Ok(some) => count += some,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing comes within {WITHIN:?}: {error}"),
            }
        }
        count
    }
}

/// Bytes behind their length.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

/// A packet of some kind, with its flags.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut length) = (vec![first], body.len());
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// Properties behind their length, where the version has them.
fn properties(version: Version, all: &[u8]) -> Vec<u8> {
    match version {
        Version::Three => Vec::new(),
        Version::Five => [&[u8::try_from(all.len()).unwrap()], all].concat(),
    }
}

/// A will: its flags but the one that says that it is there, its properties, topic and payload.
pub(crate) type Will<'a> = (u8, &'a [u8], &'a str, &'a [u8]);

/// A CONNECT with a user and a password.
pub(crate) fn connect(
    version: Version,
    client: &str,
    with: &[u8],
    will: Option<Will<'_>>,
) -> Vec<u8> {
    let flags = 0xc2 | will.map_or(0, |of| of.0 | 4);
    let mut body = field(b"MQTT");
    body.extend([version as u8, flags, 0, 60]);
    body.extend(properties(version, with));
    body.extend(field(client.as_bytes()));
    if let Some((_, with, topic, payload)) = will {
        body.extend(properties(version, with));
        body.extend(field(topic.as_bytes()));
        body.extend(field(payload));
    }
    body.extend(field(b"kim"));
    body.extend(field(b"password"));
    packet(0x10, &body)
}

/// What a broker says that lets somebody in.
pub(crate) fn welcome(version: Version, with: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(properties(version, with));
    packet(0x20, &body)
}

/// A message. `first` has its flags: twice its QoS, 1 where it is retained, 8 where it comes again.
pub(crate) fn publish(
    version: Version,
    first: u8,
    topic: &str,
    id: u16,
    with: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = field(topic.as_bytes());
    if first & 6 != 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(properties(version, with));
    body.extend(payload);
    packet(0x30 | first, &body)
}
