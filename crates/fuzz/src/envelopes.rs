//! Envelopes and frames.

use sealcast_bus::TopicItem;
use sealcast_crypto::{Cover, SessionRoot, Walker};
use sealcast_protocol::{
    DataItem, DataTopic, DecodeError, DeviceId, ENVELOPE_OVERHEAD, EnvelopeHash, EnvelopeView,
    Flags, Frame, Header, InstanceId, OpenFrame, Position, Records, SessionId, StreamId, Suite,
    seal,
};

use crate::signed::own_key;

const STREAM: StreamId = StreamId([1; 32]);
/// Where the position begins in a header.
const POSITION_AT: usize = 20;

/// What lies in a data log. A bus and a reader find the same topic in it, or none.
fn item(bytes: &[u8]) {
    let split = DataItem::split(bytes);
    let found = split.ok().filter(|(topic, _)| !topic.is_empty());
    let on_bus = TopicItem::parse(bytes).map(|of| (of.topic, of.payload));
    assert_eq!(found, on_bus);
    if let Some((topic, payload)) = found {
        let topic: Option<DataTopic> = topic.parse().ok();
        let again = topic.map(|topic| topic.item(payload));
        assert_eq!(again.as_deref(), Some(bytes), "an item has one spelling");
    }
}

/// An envelope as it lies on a bus.
pub(crate) fn envelope(bytes: &[u8]) {
    item(bytes);
    let view = match EnvelopeView::parse(bytes) {
        Ok(view) => view,
        Err(error) => return named(error, bytes),
    };
    assert!(
        bytes.len() >= ENVELOPE_OVERHEAD,
        "there is room for all parts"
    );
    assert_eq!(view.header().encode(), *view.header_bytes(), "the header");
    let signature = view.signature();
    let parts: [&[u8]; 5] = [
        view.header_bytes(),
        view.commitment(),
        view.ciphertext(),
        view.proof(),
        signature.as_bytes(),
    ];
    assert_eq!(parts.concat(), bytes, "the parts are the whole");
    let bound = view.bind(&STREAM, b"kitchen");
    assert_eq!(bound.hash(), view.hash(&STREAM, b"kitchen"));
    assert_ne!(bound.hash(), view.hash(&STREAM, b""));
    assert!(bound.verify(&own_key().verifying_key()).is_err());
}

/// What is not known is refused by its name, and only what is not known.
fn named(error: DecodeError, bytes: &[u8]) {
    use DecodeError::{Malformed, OutOfRange, TooLong, UnknownFlags, UnknownSuite, UnknownVersion};
    let says = |at: usize, found: u8| bytes.get(at) == Some(&found);
    let says_batch = bytes.get(2).is_some_and(|flags| flags & 4 != 0);
    let is_so = matches!(error, UnknownVersion { found } if says(0, found) && found != 1)
        || matches!(error, UnknownSuite { found } if says(1, found) && found != 1)
        || matches!(error, UnknownFlags { found } if says(2, found) && found > 7)
        || matches!(error, TooLong { len, len_max } if len < bytes.len() && len > len_max)
        || (error == Malformed && (bytes.len() < ENVELOPE_OVERHEAD || says_batch))
        || (error == OutOfRange && bytes.get(POSITION_AT..POSITION_AT + 2) != Some(&[0, 0]));
    assert!(is_so, "{error}");
}

/// The position of an envelope, and the plaintext of a frame in it.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((position, plaintext)) = bytes.split_first_chunk::<6>() else {
        return;
    };
    let position = position_of(position);
    let opened = OpenFrame::decode(plaintext.to_vec().into(), position);
    let records = match Records::decode(plaintext, position, true) {
        Ok(records) => records,
        Err(error) => return assert_eq!(opened.err(), Some(error)),
    };
    let Ok(mut opened) = opened else {
        return assert!(opened.is_ok(), "one reader takes it and one does not");
    };
    let stated = records.len();
    let mut again = Frame::with_capacity(64 + 12 * plaintext.len());
    for record in records {
        assert_eq!(opened.next_record(), Some(record));
        let pushed = again.push(record.time, record.payload);
        assert_eq!(pushed, Ok(()), "what is read can be written");
    }
    assert!(opened.is_empty() && opened.next_record().is_none());
    assert_eq!(again.len(), stated);
    assert_eq!(again.plaintext(position).expose(), plaintext, "canonical");
}

fn position_of(bytes: &[u8; 6]) -> Position {
    let [a, b, c, d, e, f] = *bytes;
    Position(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

/// A plaintext, and which byte of its envelope is altered and how: the one opens, the other does
/// not. Of a header any part may be altered, and then it is for another key.
pub(crate) fn sealing(bytes: &[u8]) {
    let Some((choice, plaintext)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let [
        content,
        flags,
        high,
        low,
        flip,
        topic,
        position @ ..,
        _,
        _,
        _,
        _,
    ] = *choice;
    let header = Header {
        suite: Suite::TreeV1,
        flags: Flags {
            frame: flags & 1 != 0,
            backfill: flags & 2 != 0,
            batch: flags & 4 != 0,
        },
        content,
        session: SessionId([2; 16]),
        position: position_of(&position),
        device: DeviceId([3; 16]),
        instance: InstanceId([4; 8]),
        seq: 5,
        prev: EnvelopeHash::NONE,
    };
    let topic = vec![b'a'; usize::from(topic)];
    let root = SessionRoot::init_with(|root| root.fill(6));
    let mut walker = Walker::new(Cover::whole(&root));
    let Some(leaf) = walker.leaf(header.position.0) else {
        return assert!(header.position >= Position::END);
    };
    let sealed = seal(&leaf, &own_key(), &STREAM, &topic, &header, plaintext);
    let Ok(sealed) = sealed else {
        return assert!(sealed.is_ok(), "it is short enough");
    };
    let open = |envelope: &[u8]| {
        let view = EnvelopeView::parse(envelope).ok()?;
        let key = own_key().verifying_key();
        let verified = view.verify(&STREAM, &topic, &key).ok()?;
        let opened = verified.open(&leaf).ok()?;
        Some((*view.header(), opened.expose().to_vec()))
    };
    let whole = Some((header, plaintext.to_vec()));
    assert_eq!(open(&sealed.bytes), whole, "it opens");
    let mut altered = sealed.bytes;
    let at = usize::from(u16::from_be_bytes([high, low])) % altered.len();
    if let Some(byte) = altered.get_mut(at) {
        *byte ^= flip.max(1);
    }
    assert_eq!(open(&altered), None, "byte {at} is not the sealed one");
}
