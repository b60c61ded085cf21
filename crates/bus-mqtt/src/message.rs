//! What one append looks like on the broker: spec/bus-mqtt.md, section 3.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sealcast_bus::{Arrival, ArrivalId, Topic, UsersTopics};

/// What every message begins with, whatever its version.
const MAGIC: [u8; 3] = *b"SCM";
/// The version that this program writes.
pub(crate) const VERSION: u8 = 1;
/// The most bytes of an append with the table of its lengths.
pub(crate) const PACKED_MAX: usize = 32 << 20;
/// The most bytes of a message, in one piece or in parts.
pub(crate) const WHOLE_MAX: usize = PACKED_MAX + 16;
/// The most bytes of a part, whatever the broker takes.
pub(crate) const PART_MAX: usize = 512 << 10;
/// The most parts of a message.
pub(crate) const PARTS_MAX: u32 = 4_096;
/// What a question how far the mirror is says of control logs alone.
pub(crate) const CONTROL: &[u8] = b"C";
/// Bytes before those of a part.
const PART_HEAD: usize = 4;

/// What a message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    /// Where its writer saw the topic end, by which late-comers order what they find.
    pub(crate) stamp: u64,
    pub(crate) payloads: Vec<Bytes>,
}

/// Why the bytes of a message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Odd;

impl Append {
    /// How many bytes it takes, with its lengths.
    pub(crate) fn packed_len(payloads: &[Bytes]) -> usize {
        let lens = payloads.iter().map(Bytes::len);
        lens.fold(4 * payloads.len(), usize::saturating_add)
    }

    /// Its bytes in one piece, or in parts of so many each where they are more.
    pub(crate) fn encode(&self, part_max: usize) -> Vec<Bytes> {
        let lens = self.payloads.iter().map(Bytes::len);
        let len = 12 + lens.fold(4 * self.payloads.len(), usize::saturating_add);
        let mut pieces = Pieces::new(len, part_max);
        pieces.put(&MAGIC);
        pieces.put(&[VERSION]);
        pieces.put(&self.stamp.to_be_bytes());
        for payload in &self.payloads {
            // Within the limit of an append.
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            pieces.put(&length.to_be_bytes());
            pieces.put(payload);
        }
        pieces.all
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Odd> {
        let mut rest = &bytes[..];
        take_head(&mut rest)?;
        let stamp = rest.try_get_u64().map_err(|_| Odd)?;
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let length = rest.try_get_u32().map_err(|_| Odd)?;
            let length = usize::try_from(length).map_err(|_| Odd)?;
            let (payload, behind) = rest.split_at_checked(length).ok_or(Odd)?;
            payloads.push(bytes.slice_ref(payload));
            rest = behind;
        }
        match payloads.is_empty() {
            true => Err(Odd),
            false => Ok(Self { stamp, payloads }),
        }
    }

    /// What it is to a mirror, when it comes from the broker; in so many parts, or 0.
    pub(crate) fn arrival(self, topic: Topic, id: MessageId, parts: u32) -> Arrival {
        Arrival {
            topic,
            id: id.into(),
            stamp: self.stamp,
            payloads: self.payloads,
            is_own: false,
            parts,
        }
    }
}

fn take_head(bytes: &mut &[u8]) -> Result<(), Odd> {
    let (magic, rest) = bytes.split_at_checked(MAGIC.len() + 1).ok_or(Odd)?;
    *bytes = rest;
    match magic.strip_prefix(&MAGIC) {
        Some([VERSION]) => Ok(()),
        Some(_) | None => Err(Odd),
    }
}

/// What is written in one piece, or in parts where it is too long: each with a head of its own.
struct Pieces {
    all: Vec<Bytes>,
    piece: BytesMut,
    /// How many bytes are to come, and how many of them a piece holds.
    left: usize,
    room: usize,
    is_cut: bool,
}

impl Pieces {
    fn new(len: usize, part_max: usize) -> Self {
        let is_cut = len > part_max;
        let room = match is_cut {
            true => part_max.saturating_sub(PART_HEAD).max(1),
            false => len,
        };
        Self {
            all: Vec::new(),
            piece: BytesMut::new(),
            left: len,
            room,
            is_cut,
        }
    }

    fn put(&mut self, mut bytes: &[u8]) {
        let head = if self.is_cut { PART_HEAD } else { 0 };
        while !bytes.is_empty() {
            if self.piece.is_empty() {
                self.piece.reserve(head + self.room.min(self.left));
                if self.is_cut {
                    self.piece.put_slice(&MAGIC);
                    self.piece.put_u8(VERSION);
                }
            }
            let room = head + self.room - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.put_slice(now);
            self.left -= now.len();
            bytes = later;
            if self.left == 0 || self.piece.len() == head + self.room {
                self.all.push(std::mem::take(&mut self.piece).freeze());
            }
        }
    }
}

/// What a part holds.
pub(crate) fn uncut(mut bytes: &[u8]) -> Result<&[u8], Odd> {
    take_head(&mut bytes)?;
    Ok(bytes)
}

/// What tells one message from all others of a topic: who wrote it, and how many that one had written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MessageId {
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl From<MessageId> for ArrivalId {
    fn from(id: MessageId) -> Self {
        (u128::from(id.writer) << 64 | u128::from(id.number)).to_be_bytes()
    }
}

impl From<ArrivalId> for MessageId {
    fn from(bytes: ArrivalId) -> Self {
        let both = u128::from_be_bytes(bytes);
        let low = |of: u128| u64::try_from(of & u128::from(u64::MAX)).unwrap_or_default();
        Self {
            writer: low(both >> 64),
            number: low(both),
        }
    }
}

/// Which part of a message, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartOf {
    pub(crate) number: u32,
    pub(crate) count: u32,
}

/// The topics of the broker, in which a bus lies.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    /// The name of the home, by which its handles find each other.
    home: String,
    /// Where messages of streams travel under names that the broker's users have for them.
    pub(crate) users: Option<UsersTopics>,
}

impl Names {
    pub(crate) fn new(prefix: &str, home: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            home: home.to_owned(),
            users: None,
        }
    }

    pub(crate) fn with_users(self, users: Option<UsersTopics>) -> Self {
        Self { users, ..self }
    }

    pub(crate) fn log(&self, topic: &Topic, id: MessageId) -> String {
        let MessageId { writer, number } = id;
        format!("{}/log/{topic}/@{writer:016x}.{number:x}", self.prefix)
    }

    pub(crate) fn part(&self, topic: &Topic, id: MessageId, part: PartOf) -> String {
        let PartOf { number, count } = part;
        format!("{}.{number:x}.{count:x}", self.log(topic, id))
    }

    /// The names of all messages in which one travels: so many parts, or it alone where that is 0.
    pub(crate) fn all(
        &self,
        topic: &Topic,
        id: MessageId,
        count: u32,
    ) -> impl Iterator<Item = String> {
        let whole = (count == 0).then(|| self.log(topic, id));
        // As many as a mirror joins.
        let numbers = 0..count.min(PARTS_MAX);
        let parts = numbers.map(move |number| self.part(topic, id, PartOf { number, count }));
        whole.into_iter().chain(parts)
    }

    /// What of a bus a message is, by the topic that it came on.
    pub(crate) fn parse_log(&self, name: &str) -> Option<(Topic, MessageId, Option<PartOf>)> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix("/log/")?;
        let (topic, id) = rest.rsplit_once("/@")?;
        let topic = Topic::new(topic).ok()?;
        let mut fields = id.split('.');
        let writer = hex(fields.next()?).filter(|_| id.find('.') == Some(16))?;
        let number = hex(fields.next()?)?;
        let id = MessageId { writer, number };
        let part = match (fields.next(), fields.next(), fields.next()) {
            (None, _, _) => None,
            (Some(number), Some(count), None) => Some(PartOf {
                number: u32::try_from(hex(number)?).ok()?,
                count: u32::try_from(hex(count)?).ok()?,
            }),
            _ => return None,
        };
        let in_range = |part: PartOf| part.number < part.count && part.count <= PARTS_MAX;
        part.is_none_or(in_range).then_some((topic, id, part))
    }

    /// The filter for what lies in a scope.
    pub(crate) fn scope(&self, scope: &str) -> String {
        format!("{}/log/{scope}", self.prefix)
    }

    /// The filters for the control logs of a scope.
    pub(crate) fn control(&self, scope: &str) -> Vec<String> {
        match has_live(scope) {
            true => CONTROL_OF_STREAMS
                .map(|kind| format!("{}/{kind}/#", self.scope(stem(scope))))
                .into(),
            false => Vec::from([self.scope(scope)]),
        }
    }

    /// Where archives are asked for what has passed in a scope.
    pub(crate) fn ask(&self, scope: &str) -> String {
        format!("{}/past/ask/{}", self.prefix, stem(scope))
    }

    /// Where all are asked for what they wrote there lately.
    pub(crate) fn again(&self, scope: &str) -> String {
        format!("{}/past/again/{}", self.prefix, stem(scope))
    }

    /// For which scope something is asked on a topic, and whether of archives alone.
    pub(crate) fn parse_question(&self, name: &str) -> Option<(String, bool)> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix("/past/")?;
        let (kind, stem) = rest.split_once('/')?;
        match kind {
            "ask" => Some((format!("{stem}/#"), true)),
            "again" => Some((format!("{stem}/#"), false)),
            _ => None,
        }
    }

    /// Where this home is answered.
    pub(crate) fn past(&self) -> String {
        self.past_of(&self.home)
    }

    /// Where a home is answered.
    pub(crate) fn past_of(&self, home: &str) -> String {
        format!("{}/past/for/{home}", self.prefix)
    }

    /// An ephemeral topic.
    pub(crate) fn now(&self, topic: &Topic) -> String {
        format!("{}/now/{topic}", self.prefix)
    }

    /// Where handles of this home ask how far the mirror is.
    pub(crate) fn fence(&self) -> String {
        format!("{}/home/{}/fence", self.prefix, self.home)
    }

    /// Where one of them is told.
    pub(crate) fn fenced(&self, writer: u64) -> String {
        format!("{}/home/{}/fenced/{writer:016x}", self.prefix, self.home)
    }

    /// What this home leaves there, to tell later whether the broker went back.
    pub(crate) fn mark(&self) -> String {
        format!("{}/home/{}/mark", self.prefix, self.home)
    }

    /// Where one of them writes to itself.
    pub(crate) fn echo(&self, writer: u64) -> String {
        format!("{}/home/{}/echo/{writer:016x}", self.prefix, self.home)
    }
}

/// A number as it stands in names, and in no other way.
fn hex(digits: &str) -> Option<u64> {
    let is_plain = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(digits, 16).ok();
    number.filter(|_| is_plain)
}

/// What a home follows for the sake of a topic: all logs of a stream, a user or a device at once, and
/// else the topic alone.
pub(crate) fn scope(topic: &Topic) -> String {
    let mut segments = topic.as_ref().split('/');
    match (segments.next(), segments.next(), segments.next()) {
        (Some(kind), Some(whose), Some(_)) => format!("{kind}/{whose}/#"),
        _ => format!("{topic}/+"),
    }
}

/// How the names of all topics of a scope begin.
pub(crate) fn topics_start(scope: &str) -> &str {
    match scope.strip_suffix("/+") {
        Some(topic) => topic,
        None => scope.trim_end_matches('#'),
    }
}

/// A scope of several topics without its wildcard.
fn stem(scope: &str) -> &str {
    scope.trim_end_matches(['#', '/'])
}

/// Whether a scope may have logs with messages that are not retained.
pub(crate) fn has_live(scope: &str) -> bool {
    scope.starts_with("s/") && scope.ends_with("/#")
}

/// Whether a log has messages that are not retained: the data of a stream.
pub(crate) fn is_live(topic: &Topic) -> bool {
    let mut segments = topic.as_ref().split('/');
    (segments.next(), segments.nth(1)) == (Some("s"), Some("data"))
}

/// What says who may read, and with which keys, below the name of a stream.
const CONTROL_OF_STREAMS: [&str; 2] = ["access", "keys"];

/// Whether a log has nothing to do with data: of streams these are the ones with a name that a bus knows.
pub(crate) fn is_control(topic: &Topic) -> bool {
    let kind = topic.as_ref().split('/').nth(2);
    !has_live(&scope(topic)) || kind.is_some_and(|kind| CONTROL_OF_STREAMS.contains(&kind))
}

/// Whether a log is for a device alone, which trims what it has taken.
pub(crate) fn is_inbox(topic: &Topic) -> bool {
    topic.as_ref().starts_with("d/")
}

/// What is sent on an ephemeral topic: who sent it, how many that one had sent, and the payload.
pub(crate) fn put_sent(id: MessageId, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16 + payload.len());
    bytes.put_u64(id.writer);
    bytes.put_u64(id.number);
    bytes.put_slice(payload);
    bytes.freeze()
}

pub(crate) fn take_sent(mut bytes: &[u8]) -> Option<(MessageId, &[u8])> {
    let writer = bytes.try_get_u64().ok()?;
    let number = bytes.try_get_u64().ok()?;
    Some((MessageId { writer, number }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn append() -> Append {
        Append {
            stamp: 5,
            payloads: vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")],
        }
    }

    const ID: MessageId = MessageId {
        writer: 0xabcd,
        number: 26,
    };

    #[test]
    fn of_a_stream_the_logs_with_a_name_are_control_logs_and_of_others_all() {
        let names = Names::new("p", "h");
        for (name, filter) in [
            ("s/1f/keys", "p/log/s/1f/keys/#"),
            ("s/1f/access/7", "p/log/s/1f/access/#"),
            ("u/2e/devices", "p/log/u/2e/#"),
            ("d/3d/inbox", "p/log/d/3d/#"),
            ("a/data", "p/log/a/data/+"),
            ("a", "p/log/a/+"),
        ] {
            assert!(is_control(&topic(name)), "{name}");
            let filters = names.control(&scope(&topic(name)));
            assert!(filters.iter().any(|of| of == filter), "{filters:?}");
        }
        for name in ["s/1f/data", "s/1f/data/keys", "s/1f/other", "s/1f/keyring"] {
            assert!(!is_control(&topic(name)), "{name}");
        }
    }

    /// The worked example of the specification.
    #[test]
    fn an_append_is_what_the_specification_shows() {
        let mut expected = b"SCM\x01".to_vec();
        expected.extend(b"\0\0\0\0\0\0\0\x05");
        expected.extend(b"\0\0\0\x01a\0\0\0\x02bc");
        let encoded = append().encode(PART_MAX);
        assert_eq!(encoded, [expected]);
        assert_eq!(Append::decode(&encoded[0]), Ok(append()));
        let names = Names::new("p", "h");
        let name = "p/log/s/1f/keys/@000000000000abcd.1a";
        assert_eq!(names.log(&topic("s/1f/keys"), ID), name);
        assert_eq!(names.parse_log(name), Some((topic("s/1f/keys"), ID, None)));
        assert_eq!(MessageId::from(ArrivalId::from(ID)), ID);
    }

    #[test]
    fn what_is_not_an_append_is_refused() {
        let whole = append().encode(PART_MAX).remove(0);
        for end in 0..whole.len() {
            let is_shorter = Append::decode(&whole.slice(..end));
            // Only where a payload ends it is one, with fewer payloads.
            assert_eq!(is_shorter.is_ok(), end == 17, "{end}");
        }
        for (at, byte) in [(0, b'X'), (3, 2), (12, 0xff)] {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            assert_eq!(Append::decode(&bytes.into()), Err(Odd));
        }
    }

    #[test]
    fn parts_hold_the_whole() {
        let payloads = vec![vec![7; 1_000].into(), vec![8; 24].into()];
        let append = Append { stamp: 0, payloads };
        let whole = append.encode(1_044);
        assert_eq!((whole.len(), whole[0].len()), (1, 1_044));
        assert_eq!(Append::decode(&whole[0]).as_ref(), Ok(&append));
        // The last part is short, full, nearly empty, one of many and a byte.
        for (part_max, count) in [(1_043, 2), (526, 2), (525, 3), (100, 11), (5, 1_044)] {
            let parts = append.encode(part_max);
            assert_eq!(parts.len(), count, "{part_max}");
            assert!(parts.iter().all(|part| part.len() <= part_max));
            let pieces: Vec<_> = parts.iter().map(|part| uncut(part).unwrap()).collect();
            assert_eq!(pieces.concat(), whole[0]);
        }
        assert_eq!(uncut(b"SC"), Err(Odd));
    }

    #[test]
    fn names_are_read_as_they_are_written_and_in_no_other_way() {
        let names = Names::new("p", "h");
        let part = PartOf {
            number: 2,
            count: 17,
        };
        for name in ["a", ".", "s/1f/data/kitchen", "a/~/b"] {
            let on = names.part(&topic(name), ID, part);
            assert_eq!(names.parse_log(&on), Some((topic(name), ID, Some(part))));
            let all: Vec<_> = names.all(&topic(name), ID, 17).collect();
            assert_eq!((all.len(), &all[2]), (17, &on));
            let alone: Vec<_> = names.all(&topic(name), ID, 0).collect();
            assert_eq!(alone, [names.log(&topic(name), ID)]);
        }
        for odd in [
            "p/log/a",
            "p/log/a/@",
            "p/log/a/@000000000000abcd",
            "p/log/a/@abcd.1a",
            "p/log/a/@000000000000abcd.",
            "p/log/a/@000000000000ABCD.1a",
            "p/log/a/@000000000000abcd.+1",
            "p/log/a/@000000000000abcd.1.2",
            "p/log/a/@000000000000abcd.1.2.2",
            "p/log/a/@000000000000abcd.1.2.1001",
            "p/log/a/@000000000000abcd.1.2.3.4",
            "p/log//@000000000000abcd.1",
            "p/log/é/@000000000000abcd.1",
            "q/log/a/@000000000000abcd.1",
            "p/now/a/@000000000000abcd.1",
        ] {
            assert_eq!(names.parse_log(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_home_follows_streams_users_and_devices_as_a_whole() {
        for (name, expected, live) in [
            ("a", "a/+", false),
            ("a/b", "a/b/+", false),
            ("s/1f/keys", "s/1f/#", false),
            ("s/1f/access/d", "s/1f/#", false),
            ("s/1f/data", "s/1f/#", true),
            ("s/1f/data/kitchen/temp", "s/1f/#", true),
            ("s/1f/database", "s/1f/#", false),
            ("u/2e/devices", "u/2e/#", false),
            ("u/2e/data", "u/2e/#", false),
        ] {
            assert_eq!(scope(&topic(name)), expected);
            assert_eq!(is_live(&topic(name)), live, "{name}");
        }
        let names = Names::new("p", "h");
        let scope = "s/1f/#".to_owned();
        for (question, is_to_archives) in [(names.ask(&scope), true), (names.again(&scope), false)]
        {
            let found = names.parse_question(&question);
            assert_eq!(found, Some((scope.clone(), is_to_archives)));
        }
        assert_eq!(names.parse_question(&names.past()), None);
        assert!(has_live(&scope) && !has_live("u/2e/#") && !has_live("s/+"));
        assert_eq!(topics_start("s/1f/#"), "s/1f/");
        assert_eq!(topics_start("a/+"), "a");
    }
}
