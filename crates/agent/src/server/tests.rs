//! Servers that decide, and servers that do not. The certificates in `tests/fixtures` are good for a
//! century: `server.pem` is that of `localhost`, by `authority.pem`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::any;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

const YES: &str = r#"{"decision":"yes"}"#;

/// What a server was sent: method and path, headers, body.
type Seen = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A server that answers every request so, by TLS or without; its port, and what it is sent.
async fn serve(
    tls: bool,
    answer: impl Fn() -> axum::response::Response + Clone + Send + Sync + 'static,
) -> (u16, Seen) {
    let seen = Seen::default();
    let handler = move |State(seen): State<Seen>, request: Request<Body>| async move {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let asked = format!("{} {}", head.method, head.uri);
        seen.lock().unwrap().push((asked, head.headers, body));
        answer()
    };
    let router = Router::new()
        .fallback(any(handler))
        .with_state(seen.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    if tls {
        let listener = TlsListener(listener, acceptor());
        tokio::spawn(async move { axum::serve(listener, router).await });
    } else {
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    (port, seen)
}

/// A server that says this to whoever connects, whatever is asked, and goes.
async fn blurt(says: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            // Whoever asked may not listen to its end.
            let _is_said = io.write_all(says).await.is_ok();
        }
    });
    port
}

struct TlsListener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        loop {
            let (io, _) = self.0.accept().await.unwrap();
            if let Ok(io) = self.1.accept(io).await {
                return (io, ());
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn acceptor() -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates_of(&fixture("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn ask(url: &str, ca: Option<&str>) -> Result<Verdict, Undecided> {
    let ca = ca.map(fixture);
    let server = Server::new(url, ca.as_deref()).unwrap();
    server.ask("{\"q\":1}\n".to_owned()).await
}

async fn ask_port(port: u16) -> Result<Verdict, Undecided> {
    ask(&format!("http://127.0.0.1:{port}/decide"), None).await
}

#[tokio::test]
async fn a_server_is_sent_the_question_and_decides() {
    for (says, verdict) in [
        (YES, Verdict::Yes),
        (r#" { "decision" : "no" } "#, Verdict::No),
        (r#"{"decision":"later"}"#, Verdict::Later),
    ] {
        let (port, seen) = serve(false, move || says.into_response()).await;
        let url = format!("http://127.0.0.1:{port}/a/decide?token=t");
        assert_eq!(ask(&url, None).await, Ok(verdict));
        let seen = seen.lock().unwrap();
        let [(asked, headers, body)] = &seen[..] else {
            panic!("asked once");
        };
        assert_eq!(asked, "POST /a/decide?token=t");
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers[header::HOST], format!("127.0.0.1:{port}"));
        assert_eq!(body, "{\"q\":1}\n");
    }
}

#[tokio::test]
async fn an_odd_answer_is_none() {
    for says in [
        "",
        "yes",
        "\"yes\"",
        "{}",
        r#"{"decision":"YES"}"#,
        r#"{"decision":["yes"]}"#,
        r#"{"decision":"yes","until":5}"#,
        r#"{"decision":"yes"} {}"#,
        r#"{"decision":"no","decision":"yes"}"#,
    ] {
        let (port, _) = serve(false, move || says.into_response()).await;
        assert_eq!(ask_port(port).await, Err(Undecided::Odd), "{says}");
    }
}

#[tokio::test]
async fn another_status_than_200_is_no_answer() {
    for status in [201, 204, 404, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        let (port, _) = serve(false, move || (status, YES).into_response()).await;
        assert_eq!(ask_port(port).await, Err(Undecided::Status(status)));
    }
}

#[tokio::test]
async fn nobody_is_followed_elsewhere() {
    let (elsewhere, seen) = serve(false, || YES.into_response()).await;
    for status in [301, 302, 303, 307, 308] {
        let status = StatusCode::from_u16(status).unwrap();
        let to = format!("http://127.0.0.1:{elsewhere}/");
        let answer = move || (status, [(header::LOCATION, to.clone())], YES).into_response();
        let (port, _) = serve(false, answer).await;
        assert_eq!(ask_port(port).await, Err(Undecided::Status(status)));
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn no_more_is_read_than_an_answer_may_be_long() {
    let long = || format!("{YES}{}", " ".repeat(ANSWER_MAX)).into_response();
    let (port, _) = serve(false, long).await;
    assert_eq!(ask_port(port).await, Err(Undecided::NoAnswer));
    // It goes on for ever.
    let (port, _) = serve(false, || Body::from_stream(Endless).into_response()).await;
    assert_eq!(ask_port(port).await, Err(Undecided::NoAnswer));
    let head = b"HTTP/1.1 200 OK\r\nx: ".repeat(1 << 12).leak();
    let port = blurt(head).await;
    assert_eq!(ask_port(port).await, Err(Undecided::NoAnswer));
}

struct Endless;

impl futures_core::Stream for Endless {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Ok(Bytes::from_static(b" "))))
    }
}

#[tokio::test]
async fn whoever_speaks_no_http_or_is_not_there_has_not_decided() {
    for says in [
        &b""[..],
        b"yes\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"deci",
    ] {
        let port = blurt(says).await;
        assert_eq!(ask_port(port).await, Err(Undecided::NoAnswer), "{says:?}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    assert_eq!(ask_port(port).await, Err(Undecided::Unreachable));
}

#[tokio::test]
async fn a_server_behind_tls_is_known_by_its_name_and_its_authority() {
    let (port, seen) = serve(true, || YES.into_response()).await;
    let url = format!("https://localhost:{port}/decide");
    assert_eq!(ask(&url, Some("authority.pem")).await, Ok(Verdict::Yes));
    let other_name = format!("https://127.0.0.1:{port}/decide");
    for (url, ca) in [(&url, "another.pem"), (&other_name, "authority.pem")] {
        assert_eq!(ask(url, Some(ca)).await, Err(Undecided::NotTrusted), "{ca}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    // One that speaks no TLS does not get the question.
    let (port, seen) = serve(false, || YES.into_response()).await;
    let url = format!("https://localhost:{port}/");
    let said = ask(&url, Some("authority.pem")).await;
    assert_eq!(said, Err(Undecided::NotTrusted));
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let url = "https://localhost/";
    for name in ["missing.pem", "server.key"] {
        let refused = Server::new(url, Some(&fixture(name))).unwrap_err();
        assert!(refused.to_string().ends_with(name), "{refused}");
    }
    let shown = format!(
        "{:?}",
        Server::new("http://localhost/?token=secret", None).unwrap()
    );
    assert!(!shown.contains("secret"), "{shown}");
}
