//! How a client asks for a WebSocket, in HTTP, and what it is answered.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use httparse::{EMPTY_HEADER, Header, Request, Status};
use sealcast_serving::is_address;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::websocket::WebSocket;
use crate::wire::Wire;

/// The most bytes of a request, and headers in it.
const REQUEST_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// What MQTT is called there.
const PROTOCOL: &str = "mqtt";
/// Stands for any, in the list of origins.
pub(crate) const ANY: &str = "*";
/// What the answer to a key is made with.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client is told that gets no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    BadRequest,
    /// A page of an origin that is not listed.
    Forbidden,
    /// It did not ask for a WebSocket, or for one of another version.
    UpgradeRequired,
}

impl Refusal {
    fn answer(self) -> &'static str {
        match self {
            Self::BadRequest => {
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Forbidden => {
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::UpgradeRequired => {
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                 Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            }
        }
    }
}

/// Lets a client have a WebSocket; fails where it asks for none, after it was told.
pub(crate) async fn upgrade(
    mut wire: Box<dyn Wire>,
    origins: &[String],
    is_tls: bool,
) -> io::Result<WebSocket> {
    let mut bytes = BytesMut::new();
    let judged = loop {
        match judge(&bytes, origins, is_tls) {
            Ok(None) if bytes.len() >= REQUEST_MAX => break Err(Refusal::BadRequest),
            Ok(None) => {}
            Ok(Some(judged)) => break Ok(judged),
            Err(refusal) => break Err(refusal),
        }
        if wire.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    match judged {
        Ok((len, accept)) => {
            bytes.advance(len);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
            );
            wire.write_all(answer.as_bytes()).await?;
            wire.flush().await?;
            Ok(WebSocket::new(wire, bytes))
        }
        Err(refusal) => {
            wire.write_all(refusal.answer().as_bytes()).await?;
            wire.shutdown().await?;
            // A connection that is closed before takes with it what was said.
            let mut thrown_away = [0; 4096];
            while wire.read(&mut thrown_away).await? > 0 {}
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// The length of a request, and what its key is answered; nothing while it is not all there.
fn judge(
    bytes: &[u8],
    origins: &[String],
    is_tls: bool,
) -> Result<Option<(usize, String)>, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let parsed = request.parse(bytes);
    let Status::Complete(len) = parsed.map_err(|_| Refusal::BadRequest)? else {
        return Ok(None);
    };
    let headers = Headers(request.headers);
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::BadRequest);
    }
    let is_asked = headers.lists("upgrade", "websocket") && headers.lists("connection", "upgrade");
    if !is_asked || headers.one("sec-websocket-version")? != Some("13") {
        return Err(Refusal::UpgradeRequired);
    }
    if let Some(origin) = headers.one("origin")? {
        let is_listed = |of: &String| of == ANY || of.eq_ignore_ascii_case(origin);
        if !origins.iter().any(is_listed) && !is_own(origin, headers.one("host")?, is_tls) {
            return Err(Refusal::Forbidden);
        }
    }
    if !headers.lists("sec-websocket-protocol", PROTOCOL) {
        return Err(Refusal::BadRequest);
    }
    let key = headers.one("sec-websocket-key")?.unwrap_or_default();
    match STANDARD.decode(key).map(|key| key.len()) {
        Ok(16) => Ok(Some((len, answer_to(key)))),
        _ => Err(Refusal::BadRequest),
    }
}

/// Whether an origin is the proxy itself, which has no pages: programs say so that are no browser. Without TLS the name
/// may be anybody's who has it lead here, so it has to be an address.
fn is_own(origin: &str, host: Option<&str>, is_tls: bool) -> bool {
    let scheme = if is_tls { "https://" } else { "http://" };
    let usual = if is_tls { ":443" } else { ":80" };
    let (Some(of), Some(host)) = (origin.strip_prefix(scheme), host) else {
        return false;
    };
    let bare = |text: &str| {
        text.strip_suffix(usual)
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    bare(of) == bare(host) && (is_tls || is_address(host))
}

fn answer_to(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self
            .0
            .iter()
            .filter(move |of| of.name.eq_ignore_ascii_case(name));
        named.map(|of| std::str::from_utf8(of.value).unwrap_or_default().trim())
    }

    /// The value of one that may be there once.
    fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (first, None) => Ok(first),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// Whether a word is among those that one lists.
    fn lists(&self, name: &str, word: &str) -> bool {
        let mut words = self.all(name).flat_map(|value| value.split(','));
        words.any(|of| of.trim().eq_ignore_ascii_case(word))
    }
}
