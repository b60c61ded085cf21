//! How clients come in: by TLS, with certificates of their own, and by several ways at once.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::rig::{Broker, Peer, RULES, Rig, Version, connect, packet, publish, welcome};
use crate::tls::fixture;

/// A file of these tests.
pub(crate) fn own(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxy/fixtures");
    folder.join(name).display().to_string()
}

/// A `[[listener]]` on a free port of loopback.
pub(crate) fn listener(scheme: &str, more: &str) -> String {
    format!("[[listener]]\nlisten = \"{scheme}://127.0.0.1:0\"\n{more}\n")
}

/// One that has clients use TLS.
pub(crate) fn secured(scheme: &str, more: &str) -> String {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let files = format!("certificate = \"{certificate}\"\nkey = \"{key}\"\n{more}");
    listener(scheme, &files)
}

fn certificates(path: &str) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(path).unwrap();
    all.map(Result::unwrap).collect()
}

/// How a client uses TLS that believes an authority, with a certificate of its own or without.
pub(crate) fn tls(authority: &str, own_files: Option<(&str, &str)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(authority));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(match own_files {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            config
                .with_client_auth_cert(certificates(certificate), key)
                .unwrap()
        }
    })
}

/// A connection that uses TLS, as soon as something is said.
pub(crate) fn dial(
    port: u16,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, stream)
}

/// Whether a client comes in, and its messages go both ways.
pub(crate) fn is_served(mut client: Peer, broker: &Broker) -> bool {
    client.try_send(&connect(Version::Five, "client", &[], None));
    let Some(mut server) = broker.try_accept(&mut client) else {
        return false;
    };
    server.packet();
    server.send(&welcome(Version::Five, &[]));
    assert_eq!(client.packet()[0], 0x20);
    let message = publish(Version::Five, 0, "clear/1", 0, &[], &[7; 40_000]);
    client.send(&message);
    assert_eq!(server.packet(), message);
    server.send(&message);
    assert_eq!(client.packet(), message);
    true
}

#[test]
fn clients_use_tls_and_know_the_proxy_by_its_certificate() {
    let broker = Broker::new();
    let rig = Rig::new(&format!("{}{RULES}", secured("mqtts", "")), broker.port());
    let port = rig.ports[1];
    let right = tls(&fixture("ca.pem"), None);
    assert!(is_served(Peer::new(dial(port, &right)), &broker));
    // Beside it the other listener is as it was.
    assert!(is_served(rig.dial(), &broker));
    // One that expects another certificate hangs up, and whoever speaks no TLS is not heard.
    let other = tls(&fixture("other-ca.pem"), None);
    let mut client = dial(port, &other);
    let refused = client.conn.complete_io(&mut client.sock);
    assert!(refused.is_err(), "{refused:?}");
    let mut plain = Peer::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    plain.try_send(&connect(Version::Five, "client", &[], None));
    plain.is_cut_off();
    assert!(is_served(Peer::new(dial(port, &right)), &broker));
}

#[test]
fn clients_have_a_certificate_where_the_listener_asks_for_one() {
    let broker = Broker::new();
    let more = format!("client_ca = \"{}\"", own("clients-ca.pem"));
    let rig = Rig::new(
        &format!("{}{RULES}", secured("mqtts", &more)),
        broker.port(),
    );
    let port = rig.ports[1];
    let authority = fixture("ca.pem");
    let files = (own("client.pem"), own("client.key"));
    let sensor = tls(&authority, Some((&files.0, &files.1)));
    assert!(is_served(Peer::new(dial(port, &sensor)), &broker));
    let others = (fixture("server.pem"), fixture("server.key"));
    for other in [None, Some((&*others.0, &*others.1))] {
        let other = dial(port, &tls(&authority, other));
        assert!(!is_served(Peer::new(other), &broker));
    }
    assert!(is_served(Peer::new(dial(port, &sensor)), &broker));
}

/// Neither holds up the other: of one that never ends its handshake nothing is kept for long.
#[test]
fn who_is_slow_with_tls_is_disconnected() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let more = "connect_timeout = \"200ms\"";
    let rules = format!("{}{RULES}", secured("mqtts", ""));
    let rig = Rig::with(&rules, more, &upstream);
    for begun in [&[][..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = Peer::new(TcpStream::connect(("127.0.0.1", rig.ports[1])).unwrap());
        client.send(begun);
        client.is_cut_off();
    }
    // By TLS, but not a word of MQTT.
    let right = tls(&fixture("ca.pem"), None);
    let mut client = dial(rig.ports[1], &right);
    // A slow machine may not come so far in time.
    client.conn.complete_io(&mut client.sock).ok();
    Peer::new(client).is_cut_off();
}

#[test]
fn all_listeners_stop_when_the_proxy_is_told_to_end() {
    let broker = Broker::new();
    let mut rig = Rig::new(&format!("{}{RULES}", secured("mqtts", "")), broker.port());
    let right = tls(&fixture("ca.pem"), None);
    let mut clients = [rig.dial(), Peer::new(dial(rig.ports[1], &right))];
    let mut servers = Vec::new();
    for client in &mut clients {
        client.send(&connect(Version::Five, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        server.send(&welcome(Version::Five, &[]));
        client.packet();
        servers.push(server);
    }
    rig.stop();
    for (mut client, mut server) in clients.into_iter().zip(servers) {
        assert_eq!(client.packet(), packet(0xe0, &[0x8b]));
        client.is_cut_off();
        server.closed();
    }
    rig.ended();
}
