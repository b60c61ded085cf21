//! Tickets: one line that tells where a stream is and whose it is, `spec/tickets.md`.
//!
//! A ticket gives no right to read anything.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::{CborLen, Decode, Decoder, Encode, Encoder};
use sealcast_crypto::digest;

use crate::encoding::{decode, encode};
use crate::ids::{StreamId, UserId};

/// Longest name, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 64;
/// Longest address of a bus, in bytes.
pub const BUS_URL_LEN_MAX: usize = 1024;

const SCHEME: &str = "sealcast";
const VERSION: u8 = 1;
const CHECKSUM_LABEL: &str = "sealcast.v1 ticket checksum";
const CHECKSUM_LEN: usize = 4;
/// Longest body: address, name, two ids and their frames.
const BODY_LEN_MAX: usize = BUS_URL_LEN_MAX + NAME_LEN_MAX + 2 * 34 + 8;
/// Keys of a query that hold a credential in the address of a bus that we know.
const SECRET_KEYS: [&str; 6] = [
    "password",
    "passwd",
    "pass",
    "token",
    "secret",
    "sslpassword",
];

/// Where a stream is, whose it is, and what its owner calls it.
///
/// ```
/// use sealcast_protocol::{Name, StreamId, Ticket, UserId};
///
/// let name: Name = "boiler room".parse()?;
/// let ticket = Ticket::new("mqtt://broker.example", StreamId([1; 32]), UserId([2; 32]), name)?;
/// assert_eq!(Ticket::parse(&ticket.to_string()), Ok(ticket));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    bus: String,
    stream: StreamId,
    owner: UserId,
    name: Name,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Body {
    #[n(0)]
    version: u8,
    #[n(1)]
    bus: String,
    #[n(2)]
    stream: StreamId,
    #[n(3)]
    owner: UserId,
    #[n(4)]
    name: Name,
}

impl Ticket {
    /// Makes a ticket.
    ///
    /// # Errors
    ///
    /// Fails when `bus` is no address, is longer than 1,024 bytes, or holds a credential, which
    /// must not travel in a ticket.
    pub fn new(
        bus: &str,
        stream: StreamId,
        owner: UserId,
        name: Name,
    ) -> Result<Self, TicketError> {
        check_bus_url(bus)?;
        Ok(Self {
            bus: bus.into(),
            stream,
            owner,
            name,
        })
    }

    /// Reads a ticket; white space around it is passed over.
    ///
    /// # Errors
    ///
    /// Fails with what is wrong, in words for the person who pasted it.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let (scheme, data) = text.split_once(':').ok_or(TicketError::NotATicket)?;
        let version = scheme.strip_prefix(SCHEME).ok_or(TicketError::NotATicket)?;
        match version.parse::<u32>() {
            Ok(1) if version == "1" => {}
            Ok(found) if found > 1 => return Err(TicketError::NewerVersion),
            Ok(_) | Err(_) => return Err(TicketError::NotATicket),
        }
        if data.len() > (BODY_LEN_MAX + CHECKSUM_LEN).div_ceil(3) * 4 {
            return Err(TicketError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(data)
            .map_err(|_| TicketError::Damaged)?;
        let (body, sum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(TicketError::Damaged)?;
        if *sum != checksum(body) {
            return Err(TicketError::Damaged);
        }
        Self::from_body(body)
    }

    /// Reads what the checksum has found whole.
    fn from_body(bytes: &[u8]) -> Result<Self, TicketError> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.array().and_then(|_| decoder.u8());
        if version.is_ok_and(|version| version > VERSION) {
            return Err(TicketError::NewerVersion);
        }
        let body: Body = decode(bytes, BODY_LEN_MAX).map_err(|_| TicketError::NotATicket)?;
        if body.version != VERSION {
            return Err(TicketError::NotATicket);
        }
        Self::new(&body.bus, body.stream, body.owner, body.name)
    }

    /// The address of the bus, without credentials.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Who must have started the stream.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// What the stream's owner calls it. Anyone can write any name into a ticket.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes: Vec<u8> = encode(&Body {
            version: VERSION,
            bus: self.bus.clone(),
            stream: self.stream,
            owner: self.owner,
            name: self.name.clone(),
        });
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{SCHEME}{VERSION}:{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        Self::parse(text)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = *digest(CHECKSUM_LABEL, &[body]).as_bytes();
    [a, b, c, d]
}

/// Refuses what is no address of a bus, and what would give a credential away.
fn check_bus_url(url: &str) -> Result<(), TicketError> {
    let (scheme, rest) = url.split_once(':').ok_or(TicketError::BadBusUrl)?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let is_plain = url.len() <= BUS_URL_LEN_MAX && !url.chars().any(is_unseen);
    if !is_scheme || !is_plain || rest.is_empty() {
        return Err(TicketError::BadBusUrl);
    }
    if scheme == "file" {
        return Ok(());
    }
    let authority = rest.trim_start_matches('/');
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let mut keys = query
        .split(['&', ';', '#'])
        .filter_map(|pair| pair.split('=').next());
    let names_secret = keys.any(|key| SECRET_KEYS.iter().any(|s| key.eq_ignore_ascii_case(s)));
    match authority.contains('@') || names_secret {
        true => Err(TicketError::Credentials),
        false => Ok(()),
    }
}

/// Characters that are not seen, or that change how their neighbours are seen.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why text was not taken for a ticket, or a ticket not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text does not start as a ticket does, or is no ticket within.
    #[error("this is not a ticket: a ticket is one line that starts with `sealcast1:`")]
    NotATicket,
    /// Letters were lost or changed.
    #[error("the ticket is damaged: copy it again, whole")]
    Damaged,
    /// The ticket was made by a newer version of the program.
    #[error("the ticket was made by a newer version: update this program")]
    NewerVersion,
    /// The address of the bus cannot be used.
    #[error("the ticket's bus address is not usable")]
    BadBusUrl,
    /// The address of the bus holds a user name, password or token.
    #[error("the bus address holds a credential, which must not travel in a ticket")]
    Credentials,
}

/// What people call a stream or a contact: 1 to 64 bytes of UTF-8 without control characters,
/// and without white space at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong);
        }
        if text.chars().any(is_unseen) {
            return Err(NameError::Unseen);
        }
        match text.trim().len() == text.len() {
            true => Ok(Self(text.into())),
            false => Err(NameError::Space),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<C> CborLen<C> for Name {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        self.0.cbor_len(ctx)
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let text = d.str()?;
        text.parse()
            .map_err(|_| minicbor::decode::Error::message("not a name"))
    }
}

/// Why text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text.
    #[error("a name has at least one character")]
    Empty,
    /// More than 64 bytes.
    #[error("a name has at most 64 bytes of UTF-8")]
    TooLong,
    /// A character that is not seen, or that changes how its neighbours are seen.
    #[error("a name has no control characters")]
    Unseen,
    /// White space at an end.
    #[error("a name neither starts nor ends with a space")]
    Space,
}
