//! What a home keeps and reads back. Its store says when it was altered; a store of an older or newer
//! version, or a backup that somebody else made, does not.

use std::collections::BTreeMap;

use sealcast_crypto::SecretBytes;
use sealcast_engine::{
    Fallbacks, Identity, Lane, Newcomer, Parking, ParkingLimits, StreamView, Tracker,
};
use sealcast_protocol::{
    DeviceId, EnvelopeHash, Header, ListPin, Position, SessionId, StreamId, decode, encode,
};

use crate::seeded::Seeded;

const STREAM: StreamId = StreamId([1; 32]);
const SESSION: SessionId = SessionId([2; 16]);
const DEVICE: DeviceId = DeviceId([3; 16]);
/// A number, how much of the value is cut off, and the value.
const ROW_LEN: usize = 8 + 1 + 160;
const NOON: Position = Position(1_790_000_000_000);

/// The first byte says what the others are.
pub(crate) fn kept(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    match choice % 8 {
        0 => same(Identity::from_bytes(bytes).map(|of| of.to_bytes()), bytes),
        1 => same(Newcomer::from_bytes(bytes).map(|of| of.to_bytes()), bytes),
        2 => same(Fallbacks::from_bytes(bytes).map(|of| of.to_bytes()), bytes),
        3 => same(
            decode(bytes, 4096).ok().map(|of: Lane| encode(&of).into()),
            bytes,
        ),
        4 => same(
            decode(bytes, 4096)
                .ok()
                .map(|of: ListPin| encode(&of).into()),
            bytes,
        ),
        5 => tracker(bytes),
        6 => view(bytes),
        _ => parking(bytes),
    }
}

fn same(again: Option<SecretBytes>, bytes: &[u8]) {
    if let Some(again) = again {
        assert_eq!(again.expose(), bytes, "not canonical");
    }
}

/// How far live reading came, and headers that come next.
fn tracker(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
    let (kept, headers) = rest.split_at(len);
    let Some(mut tracker) = Tracker::from_bytes(kept) else {
        return;
    };
    let again = tracker.to_bytes();
    let back = Tracker::from_bytes(&again).map(|of| of.to_bytes());
    assert_eq!(back, Some(again), "what is kept once is kept as it is");
    for (number, header) in headers.as_chunks().0.iter().enumerate() {
        if let Ok(header) = Header::decode(header) {
            let hash = EnvelopeHash([number as u8; 16]);
            let notices = tracker.observe(&header, hash, header.position);
            assert!(!notices.is_empty(), "something is told of it");
            tracker.give_up(number % 2 == 0);
        }
    }
    assert!(Tracker::from_bytes(&tracker.to_bytes()).is_some());
}

/// Roots, covers and what others were given.
fn view(bytes: &[u8]) {
    let identity = Identity::generate(&mut Seeded::new(7));
    let mut view = StreamView::new(STREAM, identity.user(), &identity);
    let value = SecretBytes::from(bytes.to_vec());
    view.restore_cover(SESSION, &value);
    view.restore_root(SESSION, &value);
    view.restore_delivered(SESSION, DEVICE, bytes);
    view.restore_log_entry(bytes);
    view.settle();
    assert_eq!(view.root(&SESSION).is_some(), bytes.len() == 32);
    assert!(view.poll_output().is_none(), "nothing is learned from it");
}

/// The index of what waits: a stamp, and rows of one length each, no two with one number.
fn parking(bytes: &[u8]) {
    let (stamp, rows) = bytes.split_at(bytes.len().min(16));
    let rows = rows.chunks(ROW_LEN).filter_map(|row| {
        let (number, row) = row.split_at_checked(8)?;
        let (cut, value) = row.split_first()?;
        let value = value.get(..value.len().saturating_sub(usize::from(*cut)))?;
        Some((number, value))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    let limits = ParkingLimits {
        bytes_max: 20_000,
        publisher_bytes_max: 10_000,
        age_ms_max: 1_000,
    };
    let mut parking = Parking::new(STREAM, limits);
    parking.restore(Some(stamp), rows);
    let count = parking.used().0;
    assert!(count as usize >= parking.numbers().len());
    parking.expire(NOON);
    parking.hand_out(0..4);
    parking.record_handed_out();
    let changes = parking.take_changes().len();
    parking.kept();
    let (left, told) = (parking.used().0, parking.take_told().len());
    assert!(left <= count && told as u64 <= count - left);
    assert!(changes as u64 >= 2 * (count - left));
    assert_eq!(parking.is_empty(), left == 0);
    assert!(!parking.has(&SESSION, &DEVICE) || left > 0);
}
