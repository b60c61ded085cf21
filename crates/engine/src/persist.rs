//! What a store keeps for the engine, and under which keys, `spec/home.md`.

use alloc::vec::Vec;

use sealcast_crypto::SecretBytes;

/// One record to keep. It must be durable before anything that came out later is acted on.
#[derive(Debug)]
pub struct Put {
    /// The table.
    pub space: Space,
    /// The place in it; public identifiers only.
    pub id: Vec<u8>,
    /// The record; empty where it is needed no more, and may go.
    pub value: SecretBytes,
}

/// The tables of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// The home itself: its identity and settings.
    Home = 1,
    /// Contacts, by user id.
    Contact = 2,
    /// Streams, by stream id.
    Stream = 3,
    /// Entries of device lists: user, seq.
    ListEntry = 4,
    /// Entries of access logs: stream, hash.
    LogEntry = 5,
    /// Session records: stream, session, device.
    Record = 6,
    /// Roots: stream, session.
    Root = 7,
    /// Covers that were received: stream, session, hash of the cover.
    Cover = 8,
    /// What other devices were given: stream, session, device.
    Delivered = 9,
    /// How far each topic was read: stream, topic.
    Cursor = 10,
    /// The lane of this home: stream.
    Lane = 11,
    /// How far live reading came: stream, device.
    Track = 12,
    /// The newest access-log entry that this home wrote: stream.
    OwnEntry = 13,
    /// Records of sessions that this home drew, until they are on the bus: stream, session, device.
    Drawn = 14,
    /// The entry of the own device list that this home signed and that is not known to be on a bus.
    OwnListEntry = 15,
    /// What the user calls its devices, by device.
    DeviceName = 16,
    /// What waits for keys: stream, number; and a stamp: stream.
    Parked = 17,
    /// Envelopes that wait for keys: stream, number.
    ParkedEnvelope = 18,
    /// Labels of what a carrier keeps: owner, number.
    Shelf = 19,
    /// What a carrier keeps: owner, number.
    ShelfContent = 20,
    /// Deals to key nodes: stream, deal.
    Deal = 21,
    /// Segment records of sessions whose root is not here: stream, session, digest.
    SegmentRecords = 22,
    /// The secret of this device's lane that is dealt to key nodes: stream.
    LaneSecret = 23,
    /// What this device did as a key node: stream, number.
    Audit = 24,
    /// The segment records that this device made last, for a bus that loses them: stream, place in a ring.
    OwnSegments = 25,
    /// Topics of which the bus shows less than is known here: stream, topic.
    Lost = 26,
    /// Where the audit of this device as a key node ends: stream.
    AuditEnd = 27,
}

/// The id of a record: its parts joined; every part but the last has a fixed length.
pub fn persisted(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
