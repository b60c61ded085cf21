use proptest::prelude::*;
use sealcast_protocol::{
    DecodeError, ENVELOPE_OVERHEAD, FRAME_RECORDS_MAX, Frame, OpenFrame, Position, PushError,
    Records,
};

use crate::support::NOW;

#[test]
fn without_the_flag_the_plaintext_is_one_record_at_the_position() {
    let records: Vec<_> = Records::decode(b"\x02x", NOW, false).unwrap().collect();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].time, records[0].payload), (NOW, &b"\x02x"[..]));
}

#[test]
fn sixty_four_short_records_of_a_few_milliseconds_cost_at_most_four_bytes_each_in_all() {
    for milliseconds in 1..=8 {
        let mut frame = Frame::with_capacity(64 * 1024);
        for i in 0..64 {
            let before = i * milliseconds / 64;
            frame.push(Position(NOW.0 - 20 + before), &[7; 99]).unwrap();
        }
        let overhead = ENVELOPE_OVERHEAD + frame.plaintext(NOW).len() - 64 * 99;
        let runs = usize::try_from(milliseconds).unwrap();
        assert_eq!(overhead, 176 + 64 + 2 * runs);
        assert!(overhead <= 64 * 4, "{overhead} bytes for 64 records");
    }
}

#[test]
fn a_full_frame_refuses_and_stays_as_it_was() {
    let mut frame = Frame::with_capacity(1_000);
    while frame.push(NOW, &[1; 90]).is_ok() {}
    assert_eq!(frame.len(), 10);
    assert_eq!(frame.push(NOW, &[1; 90]), Err(PushError::Full));
    assert_eq!(frame.len(), 10);
    let plaintext = frame.plaintext(Position::START);
    assert!(plaintext.len() <= 1_000);
    assert_eq!(
        Records::decode(plaintext.expose(), Position::START, true)
            .unwrap()
            .len(),
        10
    );
}

#[test]
fn a_cleared_frame_is_as_good_as_new() {
    let (mut frame, mut new) = (Frame::with_capacity(100), Frame::with_capacity(100));
    while frame.push(NOW, b"before").is_ok() {}
    frame.clear();
    assert!(frame.is_empty());
    assert!(frame.plaintext(NOW).is_empty());
    for frame in [&mut frame, &mut new] {
        for time in [NOW, NOW, Position(NOW.0 - 1)] {
            frame.push(time, b"after").unwrap();
        }
    }
    assert_eq!(frame.plaintext(NOW).expose(), new.plaintext(NOW).expose());
    assert_eq!(frame.len(), 3);
}

#[test]
fn a_record_longer_than_the_frame_is_refused() {
    let mut frame = Frame::with_capacity(64);
    assert_eq!(frame.push(NOW, &[0; 64]), Err(PushError::Full));
    assert!(frame.is_empty());
}

#[test]
fn a_frame_has_at_most_65_535_records() {
    let mut frame = Frame::with_capacity(1 << 20);
    for _ in 0..FRAME_RECORDS_MAX {
        frame.push(NOW, b"").unwrap();
    }
    assert_eq!(frame.push(NOW, b""), Err(PushError::Full));
    let plaintext = frame.plaintext(NOW);
    assert_eq!(
        Records::decode(plaintext.expose(), NOW, true)
            .unwrap()
            .count(),
        FRAME_RECORDS_MAX
    );

    let mut more = vec![0, 0x80, 0x80, 0x04];
    more.resize(4 + 65_536, 0);
    assert_eq!(refusal(&more), DecodeError::OutOfRange);
    let two_runs = [plaintext.expose(), &[1, 1, 0]].concat();
    assert_eq!(refusal(&two_runs), DecodeError::OutOfRange);
}

#[test]
fn a_time_that_is_no_position_is_refused_on_both_sides() {
    let mut frame = Frame::with_capacity(64);
    assert_eq!(
        frame.push(Position::END, b""),
        Err(PushError::TimeOutOfRange)
    );
    let before = Records::decode(&[1, 1, 0], Position(0), true).map(|_| ());
    assert_eq!(before, Err(DecodeError::OutOfRange));
    let last = Position(Position::END.0 - 1);
    let behind = Records::decode(&[2, 1, 0], last, true).map(|_| ());
    assert_eq!(behind, Err(DecodeError::OutOfRange));
}

#[test]
fn a_number_longer_than_it_need_be_is_refused() {
    assert!(Records::decode(&[0, 1, 0], NOW, true).is_ok());
    assert_eq!(refusal(&[0x80, 0, 1, 0]), DecodeError::NotCanonical);
    assert_eq!(refusal(&[0, 0x81, 0, 0]), DecodeError::NotCanonical);
    assert_eq!(refusal(&[0, 1, 0x80, 0]), DecodeError::NotCanonical);
}

#[test]
fn neighbouring_runs_of_one_time_are_refused_and_a_time_may_come_again() {
    assert_eq!(
        refusal(&[0, 1, 1, 7, 0, 1, 1, 8]),
        DecodeError::NotCanonical
    );
    let again = [0, 1, 1, 7, 1, 1, 1, 8, 0, 1, 1, 9];
    let records = Records::decode(&again, NOW, true).unwrap();
    let times: Vec<_> = records.map(|record| record.time.0).collect();
    assert_eq!(times, [NOW.0, NOW.0 - 1, NOW.0]);
}

#[test]
fn a_frame_that_is_empty_short_or_followed_by_more_is_refused() {
    assert_eq!(refusal(&[]), DecodeError::Malformed);
    assert_eq!(refusal(&[0]), DecodeError::Malformed);
    assert_eq!(refusal(&[0, 0]), DecodeError::OutOfRange);
    assert_eq!(refusal(&[0, 2, 1, 7]), DecodeError::Malformed);
    assert_eq!(refusal(&[0, 1, 2, 7]), DecodeError::Malformed);
    assert_eq!(refusal(&[0, 1, 1, 7, 7]), DecodeError::Malformed);
    assert_eq!(refusal(&[0xff; 12]), DecodeError::Malformed);
    // 64 bits are full after nine bytes and one bit; the rest must not be dropped unseen.
    let overlong = [
        0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02,
    ];
    assert_eq!(refusal(&overlong), DecodeError::Malformed);
}

/// fault 18
#[test]
fn debug_shows_no_payload() {
    let mut frame = Frame::with_capacity(64);
    frame.push(Position(5), b"secret").unwrap();
    assert_eq!(format!("{frame:?}"), "Frame(1 records)");
    let plaintext = frame.plaintext(Position(5));
    let mut records = Records::decode(plaintext.expose(), Position(5), true).unwrap();
    assert_eq!(format!("{records:?}"), "Records(1 left)");
    assert_eq!(
        format!("{:?}", records.next().unwrap()),
        "Record(5, 6 bytes)"
    );
}

proptest! {
    #[test]
    fn records_read_back(
        position in 0..Position::END.0,
        records in prop::collection::vec((any_time(), prop::collection::vec(0_u8.., 0..200)), 1..40),
    ) {
        let mut frame = Frame::with_capacity(1 << 16);
        for (time, payload) in &records {
            frame.push(Position(*time), payload).unwrap();
        }
        let plaintext = frame.plaintext(Position(position));
        let read: Vec<_> = Records::decode(plaintext.expose(), Position(position), true)
            .unwrap()
            .map(|record| (record.time.0, record.payload.to_vec()))
            .collect();
        prop_assert_eq!(&read, &records);
        let mut open = OpenFrame::decode(plaintext, Position(position)).unwrap();
        let next = || open.next_record().map(|record| (record.time.0, record.payload.to_vec()));
        prop_assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), records);
        prop_assert!(open.is_empty());
    }

    #[test]
    fn bytes_that_decode_are_what_a_frame_makes(
        bytes in prop::collection::vec(prop_oneof![0_u8..4, 0_u8..], 0..60),
        position in 0_u64..1_000_000,
    ) {
        let position = Position(position);
        if let Ok(records) = Records::decode(&bytes, position, true) {
            let mut frame = Frame::with_capacity(1 << 10);
            for record in records {
                frame.push(record.time, record.payload).unwrap();
            }
            let plaintext = frame.plaintext(position);
            prop_assert_eq!(plaintext.expose(), &bytes);
        }
    }
}

/// Few times, so that runs come about, or any.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![NOW.0..NOW.0 + 2, 0..Position::END.0]
}

fn refusal(plaintext: &[u8]) -> DecodeError {
    Records::decode(plaintext, NOW, true)
        .map(|_| ())
        .unwrap_err()
}
