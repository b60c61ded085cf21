//! Session records and the roots wrapped in them (`spec/sessions.md`).

use sealcast_crypto::{UnwrapKey, digest};
use sealcast_protocol::{
    Interval, LogHash, Position, RootWrap, SessionId, SessionKind, SessionRecord, Signable,
    StreamId, encode, wrap_root,
};

use super::case::Case;
use super::cast::{Given, NOW, Person, SEEN, STREAM, anna, ben, session_root};
use super::raw;

const LABEL: &str = SessionRecord::LABEL;
const ROOT: u8 = 8;

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([good()?, encodings(), ranges()?, unwrapping()?].concat())
}

/// A record of Anna's that wraps the root for nobody.
fn bare() -> SessionRecord {
    let (anna, commitment) = (anna(), session_root(ROOT).commitment());
    SessionRecord {
        version: 1,
        stream: STREAM,
        lane: anna.user,
        device: anna.device.id,
        session: SessionId::derive(&STREAM, &anna.user, &commitment),
        commitment,
        start: NOW,
        kind: SessionKind::Live,
        heads: vec![SEEN],
        open_root: Vec::new(),
        wraps: Vec::new(),
    }
}

/// The root of this byte for a person's device, as `record` would wrap it.
fn wrap(record: &SessionRecord, root: u8, to: &Person) -> anyhow::Result<RootWrap> {
    let context = record.wrap_context(&to.user, &to.device.id);
    let key = to.device.unwrap.wrap_key();
    Ok(wrap_root(
        &mut Given(&[0x71; 64]),
        &session_root(root),
        &context,
        &key,
    )?)
}

/// A record that wraps the root for Anna and Ben.
fn record() -> anyhow::Result<SessionRecord> {
    let mut record = bare();
    record.wraps = vec![wrap(&bare(), ROOT, &anna())?, wrap(&bare(), ROOT, &ben())?];
    record.wraps.sort();
    Ok(record)
}

fn given(name: &str, about: &str, wire: &[u8]) -> Case {
    Case::new("session", name, about)
        .hex(
            "public-key",
            anna().device.signing.verifying_key().as_bytes(),
        )
        .hex("wire", wire)
}

fn given_record(name: &str, about: &str, record: &SessionRecord) -> Case {
    given(
        name,
        about,
        &raw::signed(&anna().device.signing, LABEL, &encode(record)),
    )
}

/// Adds who unwraps.
fn unwrapped_by(case: Case, person: &Person, key: &UnwrapKey) -> Case {
    case.hex("user", person.user.0)
        .with("device", person.device.id)
        .hex("unwrap-seed", key.expose_seed())
}

/// Adds what a good record says.
fn read(case: Case, record: &SessionRecord) -> Case {
    let digest = digest(LABEL, &[&encode(record)]);
    let kind = match &record.kind {
        SessionKind::Live => "live".to_owned(),
        SessionKind::Backfill { interval } => {
            format!("backfill {} {}", interval.from.0, interval.until.0)
        }
    };
    case.hex("signing-seed", anna().device.signing.expose_seed())
        .ok()
        .hex("digest", digest.as_bytes())
        .with("stream", record.stream)
        .hex("lane", record.lane.0)
        .with("giver", record.device)
        .with("session", record.session)
        .hex("commitment", record.commitment)
        .with("start", record.start.0)
        .with("kind", kind)
        .each(&record.heads, |case, head| case.with("head", head))
}

fn good() -> anyhow::Result<Vec<Case>> {
    let (record, bare) = (record()?, bare());
    let public = SessionRecord {
        open_root: session_root(ROOT).expose().to_vec(),
        ..bare.clone()
    };
    let interval = Interval {
        from: Position(1),
        until: Position(500),
    };
    let backfill = SessionRecord {
        kind: SessionKind::Backfill { interval },
        ..bare.clone()
    };
    let early = SessionRecord {
        heads: Vec::new(),
        start: Position(0),
        ..bare.clone()
    };
    let root = session_root(ROOT);
    let mut cases = vec![
        read(
            given_record(
                "public",
                "the example of the page: the root stands open",
                &public,
            ),
            &public,
        )
        .hex("root", root.expose()),
        read(given_record("backfill", "older data", &backfill), &backfill),
        read(
            given_record(
                "without-wraps",
                "nobody holds the root but its device",
                &bare,
            ),
            &bare,
        ),
        read(
            given_record("without-heads", "nothing seen, at position 0", &early),
            &early,
        ),
    ];
    for (name, about, person) in [
        (
            "wrapped-for-its-device",
            "the device itself unwraps",
            anna(),
        ),
        ("wrapped-for-another", "another keyholder unwraps", ben()),
    ] {
        let case = unwrapped_by(
            given_record(name, about, &record),
            &person,
            &person.device.unwrap,
        );
        cases.push(read(case, &record).hex("root", root.expose()));
    }
    Ok(cases)
}

fn encodings() -> Vec<Case> {
    let (key, other) = (anna().device.signing, ben().device.signing);
    raw::faults(&key, &other, LABEL, "sealcast.v1 bundle", &encode(&bare()))
        .into_iter()
        .map(|fault| given(fault.name, fault.about, &fault.wire).fails(fault.failure))
        .collect()
}

fn ranges() -> anyhow::Result<Vec<Case>> {
    let (bare, good) = (bare(), record()?);
    let backfill = |from, until| {
        let interval = Interval {
            from: Position(from),
            until: Position(until),
        };
        SessionRecord {
            kind: SessionKind::Backfill { interval },
            ..bare.clone()
        }
    };
    let wraps = |wraps: Vec<RootWrap>| SessionRecord {
        wraps,
        ..bare.clone()
    };
    let (first, second) = (good.wraps[0].clone(), good.wraps[1].clone());
    let mut short = first.clone();
    short.wrapped.truncate(1_167);
    let heads = |seeds: [u8; 2]| seeds.map(|seed| LogHash([seed; 32])).to_vec();
    #[rustfmt::skip]
    let rows = [
        ("session-id", "the session id does not follow", SessionRecord { session: SessionId([3; 16]), ..bare.clone() }),
        ("session-id-of-another-stream", "the session id is that of another stream", SessionRecord { stream: StreamId([0x52; 32]), ..bare.clone() }),
        ("session-id-of-another-lane", "the session id is that of another lane", SessionRecord { lane: ben().user, ..bare.clone() }),
        ("session-id-of-another-root", "the session id is that of another commitment", SessionRecord { commitment: session_root(9).commitment(), ..bare.clone() }),
        ("start-out-of-range", "started at 2^48", SessionRecord { start: Position::END, ..bare.clone() }),
        ("backfill-of-nothing", "the interval is empty", backfill(5, 5)),
        ("backfill-backwards", "the interval ends before it begins", backfill(6, 5)),
        ("backfill-beyond-the-end", "the interval ends at 2^48 + 1", backfill(5, Position::END.0 + 1)),
        ("heads-unsorted", "the heads are not ascending", SessionRecord { heads: heads([2, 1]), ..bare.clone() }),
        ("head-twice", "a head stands twice", SessionRecord { heads: heads([1, 1]), ..bare.clone() }),
        ("open-root-of-another", "the open root does not have the commitment", SessionRecord { open_root: vec![9; 32], ..bare.clone() }),
        ("open-root-cut", "the open root has 31 bytes", SessionRecord { open_root: vec![ROOT; 31], ..bare.clone() }),
        ("wraps-unsorted", "the wraps are not ascending", wraps(vec![second, first.clone()])),
        ("wrap-twice", "a device has two wraps", wraps(vec![first.clone(), first])),
        ("wrap-cut", "a wrap has 1,167 bytes", wraps(vec![short])),
    ];
    let rows = rows.into_iter();
    Ok(rows
        .map(|(name, about, record)| given_record(name, about, &record).fails("out of range"))
        .collect())
}

/// Good records whose wraps give nothing.
fn unwrapping() -> anyhow::Result<Vec<Case>> {
    let (anna, ben, good) = (anna(), ben(), record()?);
    let with = |wrapped: Vec<u8>| {
        let wrap = RootWrap {
            user: ben.user,
            device: ben.device.id,
            wrapped,
        };
        SessionRecord {
            wraps: vec![wrap],
            ..bare()
        }
    };
    let wrapped = wrap(&bare(), ROOT, &ben)?.wrapped;
    let mut altered = wrapped.clone();
    altered[1_167] ^= 1;
    let mut elsewhere = bare();
    elsewhere.stream = StreamId([0x52; 32]);
    let mut by_another = bare();
    by_another.device = ben.device.id;
    let for_anna = wrap(&bare(), ROOT, &anna)?.wrapped;
    let (own, not) = (&ben.device.unwrap, "not authentic");
    #[rustfmt::skip]
    let rows = [
        ("unwrap-with-another-key", "the device's fallback key", good.clone(), &ben.device.fallback, not),
        ("unwrap-with-a-strangers-key", "another device's key", good, &anna.device.unwrap, not),
        ("unwrap-altered", "a bit of the wrap is flipped", with(altered), own, not),
        ("unwrap-anothers", "the wrap was made for another device", with(for_anna), own, not),
        ("unwrap-of-another-stream", "the wrap was made in another stream", with(wrap(&elsewhere, ROOT, &ben)?.wrapped), own, not),
        ("unwrap-of-another-giver", "the wrap was made by another device", with(wrap(&by_another, ROOT, &ben)?.wrapped), own, not),
        ("unwrap-of-another-root", "the wrap holds another root", with(wrap(&bare(), 9, &ben)?.wrapped), own, "another root"),
        ("no-wrap", "the record wraps the root for others only", bare(), own, "no wrap"),
    ];
    let case = |(name, about, record, key, failure): (&str, _, _, _, _)| {
        unwrapped_by(given_record(name, about, &record), &ben, key).fails(failure)
    };
    Ok(rows.into_iter().map(case).collect())
}
