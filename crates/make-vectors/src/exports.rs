//! What files of keys and backups hold once they are decrypted (`spec/export.md`). The cases are
//! written by hand, so that what no honest writer makes can be made too.

use sealcast_crypto::{Cover, SecretBytes};
use sealcast_protocol::{
    Export, ExportedCover, ExportedRecord, ExportedSession, HomeExport, Interval, KeyExport,
    Position, SessionId, encode,
};

use super::case::{Case, hex};
use super::cast::{NOW, STREAM, anna, ben, session_root};

const ROOT: u8 = 8;
const INTERVAL: Interval = Interval {
    from: Position(65_536),
    until: Position(196_608),
};

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let cases = [good_keys()?, good_homes()?, encodings()?, ranges(), homes()];
    Ok(cases.concat())
}

fn given(name: &str, about: &str, plaintext: &[u8]) -> Case {
    Case::new("export", name, about).hex("plaintext", plaintext)
}

/// A cover of these positions of a session with the root of this byte.
fn cover(root: u8, interval: Interval) -> ExportedCover {
    let cover = Cover::from_root(&session_root(root), interval.from.0, interval.until.0);
    ExportedCover {
        interval,
        keys: cover.key_bytes(),
    }
}

fn session(root: u8, covers: Vec<ExportedCover>) -> ExportedSession {
    let (lane, commitment) = (anna().user, session_root(root).commitment());
    ExportedSession {
        session: SessionId::derive(&STREAM, &lane, &commitment),
        device: anna().device.id,
        lane,
        commitment,
        covers,
    }
}

fn keys(mut sessions: Vec<ExportedSession>) -> anyhow::Result<KeyExport> {
    sessions.sort_by_key(|of| (of.session, of.device));
    Ok(KeyExport {
        stream: STREAM,
        owner: anna().user,
        name: "boiler".parse()?,
        sessions,
    })
}

fn plain() -> anyhow::Result<KeyExport> {
    keys(vec![session(ROOT, vec![cover(ROOT, INTERVAL)])])
}

/// The plaintext of an export, whatever it says: version 1, then the content.
fn wire(content: &Export) -> Vec<u8> {
    [&[0x82, 1], &*encode(content)].concat()
}

fn good_keys() -> anyhow::Result<Vec<Case>> {
    let point = |from: u64| Interval {
        from: Position(from),
        until: Position(from + 1),
    };
    let several = vec![cover(ROOT, point(5)), cover(ROOT, point(7))];
    let twice = vec![cover(ROOT, INTERVAL), cover(9, INTERVAL)];
    #[rustfmt::skip]
    let rows = [
        ("keys", "the example of the page", plain()?),
        ("keys-whole-session", "a cover of all positions is the root", keys(vec![session(ROOT, vec![cover(ROOT, Interval::ALL)])])?),
        ("keys-several-covers", "two positions of one session", keys(vec![session(ROOT, several)])?),
        ("keys-two-sessions", "two sessions", keys(vec![session(ROOT, vec![cover(ROOT, INTERVAL)]), session(9, vec![cover(9, Interval::ALL)])])?),
        ("keys-candidates", "two covers of one interval", keys(vec![session(ROOT, twice)])?),
    ];
    let mut cases = Vec::new();
    for (name, about, keys) in rows {
        let export = Export::Keys(keys);
        let case = given(name, about, &wire(&export))
            .ok()
            .with("content", "keys");
        let Export::Keys(keys) = export else {
            continue;
        };
        let case = case
            .with("stream", keys.stream)
            .hex("owner", keys.owner.0)
            .with("name", &keys.name);
        cases.push(case.each(&keys.sessions, |case, of| {
            let (lane, commitment) = (hex(&of.lane.0), hex(&of.commitment));
            let text = format!("{} {} {lane} {commitment}", of.session, of.device);
            case.with("session", text).each(&of.covers, |case, cover| {
                let Interval { from, until } = cover.interval;
                let keys = hex(cover.keys.expose());
                case.with("cover", format!("{} {} {keys}", from.0, until.0))
            })
        }));
    }
    Ok(cases)
}

fn record(space: u8, id: &[u8], value: &[u8]) -> ExportedRecord {
    ExportedRecord {
        space,
        id: id.to_vec(),
        value: SecretBytes::from(value.to_vec()),
    }
}

fn home(records: Vec<ExportedRecord>) -> Export {
    Export::Home(HomeExport { time: NOW, records })
}

fn good_homes() -> anyhow::Result<Vec<Case>> {
    let records = || {
        vec![
            record(1, b"a", b"x"),
            record(1, b"b", b""),
            record(2, b"", b"y"),
        ]
    };
    let rows = [
        ("home", "three records in two spaces", records()),
        ("home-empty", "no record", Vec::new()),
    ];
    let case = |(name, about, records): (&str, &str, Vec<ExportedRecord>)| {
        let lines: Vec<_> = records
            .iter()
            .map(|of| format!("{} {} {}", of.space, hex(&of.id), hex(of.value.expose())))
            .collect();
        given(name, about, &wire(&home(records)))
            .ok()
            .with("content", "home")
            .with("time", NOW.0)
            .each(lines, |case, line| case.with("record", line))
    };
    Ok(rows.into_iter().map(case).collect())
}

fn encodings() -> anyhow::Result<Vec<Case>> {
    let good = wire(&Export::Keys(plain()?));
    let rest = good.get(2..).unwrap_or_default();
    let content = rest.get(1..).unwrap_or_default();
    let shape = "malformed";
    #[rustfmt::skip]
    let rows = [
        ("version-0", "version 0", [&[0x82, 0], rest].concat(), "unknown version"),
        ("version-2", "version 2", [&[0x82, 2], rest].concat(), "unknown version"),
        ("version-2-and-nothing-known", "version 2 with one item", vec![0x81, 2], "unknown version"),
        ("version-in-two-bytes", "the version takes two bytes instead of one", [&[0x82, 0x18, 1], rest].concat(), shape),
        ("item-too-many", "the array has one more item", [&[0x83, 1], rest, &[0]].concat(), shape),
        ("indefinite-array", "the array has no stated length", [&[0x9f, 1], rest, &[0xff]].concat(), shape),
        ("cut", "the last byte is missing", good[..good.len() - 1].to_vec(), shape),
        ("byte-behind", "a byte stands behind the object", [&*good, &[0]].concat(), shape),
        ("nothing", "there are no bytes", Vec::new(), shape),
        ("content-unknown", "the content is of a third kind", [&[0x82, 1, 0x82, 2], content.get(1..).unwrap_or_default()].concat(), shape),
        ("content-of-nothing", "the content has no fields", vec![0x82, 1, 0x82, 0, 0x80], shape),
    ];
    let case = |(name, about, bytes, failure): (&str, &str, Vec<u8>, &str)| {
        given(name, about, &bytes).fails(failure)
    };
    Ok(rows.into_iter().map(case).collect())
}

/// A change of one session.
type Change = (
    &'static str,
    &'static str,
    fn(&mut ExportedSession),
    &'static str,
);

fn ranges() -> Vec<Case> {
    let range = "out of range";
    #[rustfmt::skip]
    let changes: [Change; 10] = [
        ("session-another", "the session id is another's", |of| of.session = SessionId([3; 16]), range),
        ("lane-another", "the lane is another's", |of| of.lane = ben().user, range),
        ("commitment-another", "the commitment is another root's", |of| of.commitment = session_root(9).commitment(), range),
        ("no-covers", "a session without a cover", |of| of.covers.clear(), range),
        ("covers-unsorted", "the covers are not ascending", |of| of.covers.insert(0, cover(ROOT, Interval { from: Position(65_537), ..INTERVAL })), range),
        ("interval-empty", "an interval is empty", |of| of.covers = vec![ExportedCover { interval: Interval { from: Position(5), until: Position(5) }, keys: SecretBytes::from(Vec::new()) }], range),
        ("interval-beyond-the-end", "an interval ends at 2^48 + 1", |of| of.covers = vec![ExportedCover { interval: Interval { from: Position(0), until: Position(Position::END.0 + 1) }, ..cover(ROOT, Interval::ALL) }], range),
        ("key-too-many", "a key more than the interval has nodes", |of| of.covers = vec![ExportedCover { interval: INTERVAL, keys: SecretBytes::from(vec![1; 96]) }], range),
        ("key-cut", "the last key has 31 bytes", |of| of.covers = vec![ExportedCover { interval: INTERVAL, keys: SecretBytes::from(vec![1; 63]) }], range),
        ("root-another", "the root is not the session's", |of| of.covers = vec![cover(9, Interval::ALL)], "another root"),
    ];
    let case = |(name, about, change, failure): Change| {
        let mut keys = plain().ok()?;
        change(keys.sessions.first_mut()?);
        Some(given(name, about, &wire(&Export::Keys(keys))).fails(failure))
    };
    let lists = |name: &str, about: &str, change: fn(&mut KeyExport)| {
        let other = session(9, vec![cover(9, INTERVAL)]);
        let mut keys = keys(vec![session(ROOT, vec![cover(ROOT, INTERVAL)]), other]).ok()?;
        change(&mut keys);
        Some(given(name, about, &wire(&Export::Keys(keys))).fails(range))
    };
    let of_lists = [
        lists("no-sessions", "no session", |keys| keys.sessions.clear()),
        lists(
            "sessions-unsorted",
            "the sessions are not ascending",
            |keys| keys.sessions.reverse(),
        ),
        lists("session-twice", "a session stands twice", |keys| {
            keys.sessions = vec![
                session(ROOT, vec![cover(ROOT, INTERVAL)]),
                session(ROOT, vec![cover(ROOT, INTERVAL)]),
            ];
        }),
    ];
    let of_sessions = changes.into_iter().filter_map(case);
    of_sessions.chain(of_lists.into_iter().flatten()).collect()
}

fn homes() -> Vec<Case> {
    let range = "out of range";
    let rows = [
        (
            "records-unsorted",
            "the records are not ascending",
            vec![record(2, b"a", b""), record(1, b"a", b"")],
        ),
        (
            "record-twice",
            "a record stands twice",
            vec![record(1, b"a", b"x"), record(1, b"a", b"y")],
        ),
    ];
    let case = |(name, about, records)| given(name, about, &wire(&home(records))).fails(range);
    rows.into_iter().map(case).collect()
}
