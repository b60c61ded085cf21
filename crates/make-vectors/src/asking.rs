//! Solicitations, claims, refusals and receipts (`spec/asking.md`).

use sealcast_crypto::{SigningKey, digest};
use sealcast_protocol::{
    Claim, Interval, ListPin, LogHash, Position, REQUEST_LIFETIME_MS_MAX, Receipt, Refusal,
    RefusalReason, RequestId, SessionId, Signable, Solicitation, WANTS_MAX, Want, encode,
    wrap_key_hash,
};

use super::case::{Case, hex};
use super::cast::{NOW, Person, SEEN, STREAM, anna, ben};
use super::raw;

const REQUEST: RequestId = RequestId([9; 16]);

pub(super) fn cases() -> Vec<Case> {
    [solicitations(), claims(), refusals(), receipts()].concat()
}

fn want(session: u8, from: u64, until: u64) -> Want {
    let interval = Interval {
        from: Position(from),
        until: Position(until),
    };
    Want {
        lane: anna().user,
        session: SessionId([session; 16]),
        interval,
    }
}

/// Ben asks for two seconds of a session of Anna's lane.
fn solicitation() -> Solicitation {
    let ben = ben();
    Solicitation {
        version: 1,
        stream: STREAM,
        user: ben.user,
        device: ben.device.id,
        list: ListPin {
            seq: 0,
            half: [6; 16],
        },
        request: REQUEST,
        key: ben.device.fallback.wrap_key().as_bytes().to_vec(),
        wants: vec![want(3, NOW.0 - 2_000, NOW.0)],
        heads: vec![SEEN],
        time: NOW,
        expires: Position(NOW.0 + 30_000),
    }
}

fn claim() -> Claim {
    let anna = anna();
    Claim {
        version: 1,
        stream: STREAM,
        asker: ben().device.id,
        request: REQUEST,
        user: anna.user,
        device: anna.device.id,
        wants: vec![0],
    }
}

fn refusal() -> Refusal {
    let claim = claim();
    Refusal {
        version: 1,
        stream: claim.stream,
        asker: claim.asker,
        request: claim.request,
        user: claim.user,
        device: claim.device,
        wants: claim.wants,
        reason: RefusalReason::NotEntitled,
    }
}

fn receipt() -> Receipt {
    let ben = ben();
    Receipt {
        version: 1,
        stream: STREAM,
        user: ben.user,
        device: ben.device.id,
        request: REQUEST,
        wants: vec![0],
    }
}

fn given(area: &'static str, name: &str, about: &str, signer: &Person, wire: &[u8]) -> Case {
    let key = signer.device.signing.verifying_key();
    Case::new(area, name, about)
        .hex("public-key", key.as_bytes())
        .hex("wire", wire)
}

fn signed<T: Signable>(signer: &Person, body: &T) -> Vec<u8> {
    raw::signed(&signer.device.signing, T::LABEL, &encode(body))
}

/// A case of a good object, up to its digest.
fn good<T: Signable>(
    area: &'static str,
    name: &str,
    about: &str,
    signer: &Person,
    body: &T,
) -> Case {
    let wire = signed(signer, body);
    given(area, name, about, signer, &wire)
        .hex("signing-seed", signer.device.signing.expose_seed())
        .ok()
        .hex("digest", digest(T::LABEL, &[&encode(body)]).as_bytes())
}

/// One object with each fault that any signed object can have.
fn encodings<T: Signable>(area: &'static str, signer: &Person, other: &str, body: &T) -> Vec<Case> {
    let stranger = SigningKey::from_seed(&[0x77; 32]);
    let key = &signer.device.signing;
    let faults = raw::faults(key, &stranger, T::LABEL, other, &encode(body));
    let case = |of: raw::Fault| given(area, of.name, of.about, signer, &of.wire).fails(of.failure);
    faults.into_iter().map(case).collect()
}

type Change<T> = (&'static str, &'static str, fn(&mut T));

/// One object with each change, which puts it out of range.
fn ranges<T: Signable + Clone>(
    area: &'static str,
    signer: &Person,
    body: &T,
    changes: &[Change<T>],
) -> Vec<Case> {
    let case = |(name, about, change): &Change<T>| {
        let mut body = body.clone();
        change(&mut body);
        given(area, name, about, signer, &signed(signer, &body)).fails("out of range")
    };
    changes.iter().map(case).collect()
}

fn solicitations() -> Vec<Case> {
    const AREA: &str = "solicitation";
    let (ben, plain) = (ben(), solicitation());
    let end = Position::END.0;
    let many = (0..WANTS_MAX as u64).map(|at| want(3, at, at + 1));
    #[rustfmt::skip]
    let rows = [
        ("good", "an interval of one session", plain.clone()),
        ("every-session", "every session of a lane, without an end", Solicitation { wants: vec![want(0, NOW.0, end)], ..plain.clone() }),
        ("several-wants", "two sessions, and two intervals of one of them", Solicitation { wants: vec![want(3, 5, 7), want(3, 9, end), want(4, 5, 7)], ..plain.clone() }),
        ("128-wants", "as many as there may be", Solicitation { wants: many.collect(), ..plain.clone() }),
        ("without-heads", "the device has seen no entry of the log", Solicitation { heads: Vec::new(), ..plain.clone() }),
        ("longest-life", "it expires after five minutes", Solicitation { expires: NOW.after(REQUEST_LIFETIME_MS_MAX), ..plain.clone() }),
    ];
    let mut cases = Vec::new();
    for (name, about, body) in rows {
        let hash = wrap_key_hash(&ben.device.fallback.wrap_key());
        let case = good(AREA, name, about, &ben, &body)
            .with("stream", body.stream)
            .hex("user", body.user.0)
            .with("device", body.device)
            .with(
                "list",
                format!("{} {}", body.list.seq, hex(&body.list.half)),
            )
            .with("request", body.request)
            .hex("key-hash", hash)
            .each(&body.wants, |case, want| {
                let Interval { from, until } = want.interval;
                let lane = hex(&want.lane.0);
                let text = format!("{lane} {} {} {}", want.session, from.0, until.0);
                case.with("want", text)
            })
            .each(&body.heads, |case, head| case.with("head", head))
            .with("time", body.time.0)
            .with("expires", body.expires.0);
        cases.push(case);
    }
    cases.extend(encodings(AREA, &ben, Claim::LABEL, &plain));
    #[rustfmt::skip]
    let changes: [Change<Solicitation>; 17] = [
        ("no-wants", "nothing is asked for", |of| of.wants.clear()),
        ("129-wants", "a want too many", |of| of.wants = (0..129).map(|at| want(3, at, at + 1)).collect()),
        ("wants-unsorted", "the wants are not ascending", |of| of.wants = vec![want(4, 0, 1), want(3, 0, 1)]),
        ("want-twice", "a want stands twice", |of| of.wants = vec![want(3, 0, 1), want(3, 0, 1)]),
        ("want-of-nothing", "an interval is empty", |of| of.wants = vec![want(3, 5, 5)]),
        ("want-backwards", "an interval ends before it begins", |of| of.wants = vec![want(3, 5, 4)]),
        ("want-beyond-the-end", "an interval ends at 2^48 + 1", |of| of.wants = vec![want(3, 5, Position::END.0 + 1)]),
        ("request-of-zeros", "the request has no id", |of| of.request = RequestId::NONE),
        ("key-of-1215", "the one-use key lacks a byte", |of| { of.key.pop(); }),
        ("key-of-1217", "the one-use key has a byte too many", |of| of.key.push(0)),
        ("no-key", "there is no one-use key", |of| of.key.clear()),
        ("heads-unsorted", "the heads are not ascending", |of| of.heads = vec![LogHash([2; 32]), LogHash([1; 32])]),
        ("head-twice", "a head stands twice", |of| of.heads = vec![SEEN, SEEN]),
        ("expires-at-once", "it expires at its time", |of| of.expires = of.time),
        ("expires-before", "it expires before its time", |of| of.expires = Position(of.time.0 - 1)),
        ("expires-too-late", "it expires after five minutes and a millisecond", |of| of.expires = of.time.after(REQUEST_LIFETIME_MS_MAX + 1)),
        ("time-out-of-range", "it expires at 2^48", |of| { of.time = Position(Position::END.0 - 1); of.expires = Position::END; }),
    ];
    cases.extend(ranges(AREA, &ben, &plain, &changes));
    let mut small = plain.clone();
    if let Some(point) = small.key.last_chunk_mut::<32>() {
        point.fill(0);
    }
    let wire = signed(&ben, &small);
    let about = "the point of the one-use key has small order";
    cases.push(given(AREA, "key-of-small-order", about, &ben, &wire).fails("small order"));
    let about = "a claim where a solicitation is due";
    let wire = signed(&anna(), &claim());
    cases.push(given(AREA, "claim", about, &anna(), &wire).fails("malformed"));
    cases
}

/// Places of wants, in the words of a case.
fn places(case: Case, wants: &[u8]) -> Case {
    case.each(wants, |case, at| case.with("want", at))
}

/// What is wrong with the places of wants, or the request.
macro_rules! reply_changes {
    ($body:ty) => {{
        #[rustfmt::skip]
        let changes: [Change<$body>; 5] = [
            ("no-wants", "it names no want", |of| of.wants.clear()),
            ("wants-unsorted", "the places are not ascending", |of| of.wants = vec![1, 0]),
            ("want-twice", "a place stands twice", |of| of.wants = vec![1, 1]),
            ("want-128", "there is no such place", |of| of.wants = vec![128]),
            ("request-of-zeros", "it names no request", |of| of.request = RequestId::NONE),
                                                                                                ];
        changes
    }};
}

fn claims() -> Vec<Case> {
    const AREA: &str = "claim";
    let (anna, plain) = (anna(), claim());
    let all: Vec<u8> = (0..128).collect();
    let mut cases = Vec::new();
    for (name, about, wants) in [
        ("good", "the first want", vec![0]),
        ("several-wants", "three wants", vec![0, 2, 127]),
        ("128-wants", "as many as there may be", all),
    ] {
        let body = Claim {
            wants,
            ..plain.clone()
        };
        let case = good(AREA, name, about, &anna, &body)
            .with("stream", body.stream)
            .with("asker", body.asker)
            .with("request", body.request)
            .hex("user", body.user.0)
            .with("device", body.device);
        cases.push(places(case, &body.wants));
    }
    cases.extend(encodings(AREA, &anna, Refusal::LABEL, &plain));
    cases.extend(ranges(AREA, &anna, &plain, &reply_changes!(Claim)));
    let wire = signed(&ben(), &receipt());
    let about = "a receipt where a claim is due";
    cases.push(given(AREA, "receipt", about, &ben(), &wire).fails("malformed"));
    cases
}

fn refusals() -> Vec<Case> {
    const AREA: &str = "refusal";
    let (anna, plain) = (anna(), refusal());
    let mut cases = Vec::new();
    for (name, reason) in [
        ("not-entitled", RefusalReason::NotEntitled),
        ("unknown-session", RefusalReason::UnknownSession),
        ("pending-approval", RefusalReason::PendingApproval),
    ] {
        let body = Refusal {
            reason,
            ..plain.clone()
        };
        let case = good(AREA, name, name, &anna, &body)
            .with("stream", body.stream)
            .with("asker", body.asker)
            .with("request", body.request)
            .hex("user", body.user.0)
            .with("device", body.device);
        cases.push(places(case, &body.wants).with("reason", reason as u8));
    }
    cases.extend(encodings(AREA, &anna, Claim::LABEL, &plain));
    cases.extend(ranges(AREA, &anna, &plain, &reply_changes!(Refusal)));
    let mut body = encode(&plain);
    if let Some(reason) = body.last_mut() {
        *reason = 3;
    }
    let wire = raw::signed(&anna.device.signing, Refusal::LABEL, &body);
    let about = "there is no such reason";
    cases.push(given(AREA, "reason-3", about, &anna, &wire).fails("malformed"));
    cases
}

fn receipts() -> Vec<Case> {
    const AREA: &str = "receipt";
    let (ben, plain) = (ben(), receipt());
    let mut cases = Vec::new();
    for (name, about, wants) in [
        ("good", "the first want", vec![0]),
        ("several-wants", "three wants", vec![0, 2, 127]),
    ] {
        let body = Receipt {
            wants,
            ..plain.clone()
        };
        let case = good(AREA, name, about, &ben, &body)
            .with("stream", body.stream)
            .hex("user", body.user.0)
            .with("device", body.device)
            .with("request", body.request);
        cases.push(places(case, &body.wants));
    }
    cases.extend(encodings(AREA, &ben, Claim::LABEL, &plain));
    cases.extend(ranges(AREA, &ben, &plain, &reply_changes!(Receipt)));
    cases
}
