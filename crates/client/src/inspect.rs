//! What bytes are, as far as it shows without keys.

use sealcast_protocol::{
    Bundle, DataItem, DecodeError, DeviceId, EnvelopeHash, EnvelopeView, InstanceId, ListEntry,
    LogEntry, Position, SessionId, SessionRecord, StreamId, Ticket, TicketError, Unverified,
    UserId,
};

use crate::sealed_file::{FileNeeds, SealedFile};
use crate::stream::Stream;

/// What bytes are. Nothing of it is more than the bytes say of themselves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Sight {
    /// An envelope: a sealed message.
    Envelope(EnvelopeFacts),
    /// A session record.
    SessionRecord {
        /// Its stream.
        stream: StreamId,
        /// The user whose lane it is of.
        lane: UserId,
        /// The session.
        session: SessionId,
    },
    /// A bundle of keys.
    Bundle {
        /// Its stream.
        stream: StreamId,
        /// Who gives.
        giver: UserId,
        /// Who receives.
        user: UserId,
    },
    /// An entry of an access log.
    LogEntry {
        /// Who wrote it.
        user: UserId,
        /// Its number.
        seq: u64,
        /// When it was written.
        time: Position,
    },
    /// An entry of a device list.
    ListEntry {
        /// Whose list it is.
        user: UserId,
        /// Its number.
        seq: u32,
    },
    /// A ticket, or what is wrong with one.
    Ticket(Result<Ticket, TicketError>),
    /// A file in the age format, as of keys or a backup.
    AgeFile {
        /// Whether it is text.
        is_armored: bool,
        /// What opens it; `None` where it is damaged or of a newer version.
        needs: Option<FileNeeds>,
    },
    /// The key of a store.
    KeyFile {
        /// The version of the file.
        version: u8,
        /// Whether it is under a passphrase.
        has_passphrase: bool,
    },
    /// The database of a home.
    Store,
    /// The database of a `file:` bus.
    FileBus,
    /// A SQLite database of something else.
    OtherDatabase,
    /// No bytes at all.
    Nothing,
    /// Nothing that is known, and why it is no envelope.
    Unknown(DecodeError),
}

/// What an envelope says of itself. Whether it is true shows with the stream and its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeFacts {
    /// The topic that stands before it in the stream's log.
    pub topic: Option<String>,
    /// Version of the format.
    pub version: u8,
    /// Number of the suite.
    pub suite: u8,
    /// Whether it carries several records.
    pub is_frame: bool,
    /// Whether it brings older data in.
    pub is_backfill: bool,
    /// Whether it shares its signature with others.
    pub is_of_batch: bool,
    /// What its content is, as far as the publisher says; 0 says nothing.
    pub content: u8,
    /// The session.
    pub session: SessionId,
    /// Where it is sealed: its time, by the publisher's clock.
    pub position: Position,
    /// The device that sealed it.
    pub device: DeviceId,
    /// The run of the publishing process.
    pub instance: InstanceId,
    /// Its number in that run.
    pub seq: u32,
    /// The envelope before it; `None` for none.
    pub prev: Option<EnvelopeHash>,
    /// The commitment to its key.
    pub commitment: Vec<u8>,
    /// Bytes in all.
    pub size: usize,
    /// Bytes of what is sealed, its own encoding included.
    pub content_size: usize,
}

/// What a stream says to an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeJudgement {
    /// Its hash in that stream.
    pub hash: EnvelopeHash,
    /// Whose device it names; `None` where the stream knows no such device.
    pub user: Option<UserId>,
    /// Whether that device signed it, in that stream.
    pub is_signed: bool,
    /// Whether the record of its session is known.
    pub is_announced: bool,
}

const SQLITE: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;
const KEY_FILE: &[u8] = b"sealcast-key";

/// Says what bytes are, without any key or home.
pub fn inspect(bytes: &[u8]) -> Sight {
    if bytes.is_empty() {
        return Sight::Nothing;
    }
    let item = DataItem::split(bytes).and_then(|(topic, envelope)| {
        let facts = facts(envelope, &EnvelopeView::parse(envelope)?);
        let topic = (!topic.is_empty()).then(|| topic.to_owned());
        Ok(EnvelopeFacts { topic, ..facts })
    });
    let unknown = match item {
        Ok(facts) => return Sight::Envelope(facts),
        Err(error) => error,
    };
    let seen = database(bytes)
        .or_else(|| key_file(bytes))
        .or_else(|| age_file(bytes))
        .or_else(|| ticket(bytes))
        .or_else(|| control_object(bytes));
    seen.unwrap_or(Sight::Unknown(unknown))
}

fn facts(bytes: &[u8], envelope: &EnvelopeView<'_>) -> EnvelopeFacts {
    const TAG_LEN: usize = 16;
    let header = envelope.header();
    let [version, suite, ..] = *envelope.header_bytes();
    EnvelopeFacts {
        topic: None,
        version,
        suite,
        is_frame: header.flags.frame,
        is_backfill: header.flags.backfill,
        is_of_batch: header.flags.batch,
        content: header.content,
        session: header.session,
        position: header.position,
        device: header.device,
        instance: header.instance,
        seq: header.seq,
        prev: (header.prev != EnvelopeHash::NONE).then_some(header.prev),
        commitment: envelope.commitment().to_vec(),
        size: bytes.len(),
        content_size: envelope.ciphertext().len().saturating_sub(TAG_LEN),
    }
}

fn database(bytes: &[u8]) -> Option<Sight> {
    let behind = bytes.starts_with(SQLITE).then_some(bytes)?;
    let id = behind.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
    Some(match id {
        Some(b"scst") => Sight::Store,
        Some(b"SCBS") => Sight::FileBus,
        Some(_) | None => Sight::OtherDatabase,
    })
}

fn key_file(bytes: &[u8]) -> Option<Sight> {
    let [version, kind, ..] = *bytes.strip_prefix(KEY_FILE)? else {
        return None;
    };
    Some(Sight::KeyFile {
        version,
        has_passphrase: kind == 2,
    })
}

fn age_file(bytes: &[u8]) -> Option<Sight> {
    if !SealedFile::looks_like_one(bytes) {
        return None;
    }
    let file = SealedFile::new(bytes.to_vec()).ok();
    Some(Sight::AgeFile {
        is_armored: file.as_ref().is_some_and(SealedFile::is_armored),
        needs: file.and_then(|file| file.needs().ok()),
    })
}

fn ticket(bytes: &[u8]) -> Option<Sight> {
    let text = std::str::from_utf8(bytes).ok()?;
    match Ticket::parse(text) {
        Err(TicketError::NotATicket) => None,
        parsed => Some(Sight::Ticket(parsed)),
    }
}

fn control_object(bytes: &[u8]) -> Option<Sight> {
    if let Ok(record) = Unverified::<SessionRecord>::decode(bytes) {
        let of = record.claims();
        return Some(Sight::SessionRecord {
            stream: of.stream,
            lane: of.lane,
            session: of.session,
        });
    }
    if let Ok(bundle) = Unverified::<Bundle>::decode(bytes) {
        let of = &bundle.claims().context;
        return Some(Sight::Bundle {
            stream: of.stream,
            giver: of.giver_user,
            user: of.user,
        });
    }
    if let Ok(entry) = Unverified::<LogEntry>::decode(bytes) {
        let of = entry.claims();
        return Some(Sight::LogEntry {
            user: of.user,
            seq: u64::from(of.seq),
            time: of.time,
        });
    }
    let entry = Unverified::<ListEntry>::decode(bytes).ok()?;
    let of = entry.claims();
    Some(Sight::ListEntry {
        user: of.user,
        seq: of.seq,
    })
}

impl Stream {
    /// What this stream says to an envelope, by what is known of it here; `None` where the bytes are
    /// none. Whether it would be delivered is more than that: read the stream for it.
    pub fn judge_envelope(&self, bytes: &[u8]) -> Option<EnvelopeJudgement> {
        let envelope = DataItem::parse(bytes).ok()?;
        let (header, stream) = (*envelope.header(), self.id());
        let view = self.core.view();
        let user = view.user_of(&header.device);
        let key = user.and_then(|user| view.sign_key(&user, &header.device));
        let bound = envelope.bind(&stream);
        Some(EnvelopeJudgement {
            hash: bound.hash(),
            user,
            is_announced: view.record(&header.session, &header.device).is_some(),
            is_signed: key.is_some_and(|key| bound.verify(&key).is_ok()),
        })
    }
}
