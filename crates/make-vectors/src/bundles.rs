//! Bundles (`spec/bundles.md`).

use sealcast_crypto::{Cover, UnwrapKey, delimited, digest};
use sealcast_protocol::{
    Bundle, BundleContext, CoverSpec, DeviceId, Interval, KeyUse, LogHash, Position, SessionId,
    Signable, StreamId, UserId, encode, wrap_key_hash,
};

use super::case::{Case, hex};
use super::cast::{Given, SEEN, STREAM, anna, ben, session_root};
use super::raw;

const LABEL: &str = Bundle::LABEL;
const ROOT: u8 = 8;

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([good()?, encodings()?, ranges()?, context()?, contents()?].concat())
}

fn spec(session: u8, from: u64, until: u64) -> CoverSpec {
    let interval = Interval {
        from: Position(from),
        until: Position(until),
    };
    CoverSpec {
        session: SessionId([session; 16]),
        interval,
    }
}

/// From Anna to Ben's device: two nodes of one session.
fn plain_context() -> BundleContext {
    let (anna, ben) = (anna(), ben());
    BundleContext {
        stream: STREAM,
        lane: anna.user,
        giver_user: anna.user,
        giver_device: anna.device.id,
        user: ben.user,
        device: ben.device.id,
        key: KeyUse::LongLived,
        wrap_key_hash: wrap_key_hash(&ben.device.unwrap.wrap_key()),
        heads: vec![SEEN],
        request: [0; 16],
        covers: vec![spec(3, 65_536, 196_608)],
    }
}

/// The keys of a cover.
fn keys_of(spec: &CoverSpec) -> Vec<u8> {
    let Interval { from, until } = spec.interval;
    let cover = Cover::from_root(&session_root(ROOT), from.0, until.0);
    cover.key_bytes().expose().to_vec()
}

/// The keys of all covers of a context.
fn keys(context: &BundleContext) -> Vec<u8> {
    context.covers.iter().flat_map(keys_of).collect()
}

/// Wraps these bytes as the keys of a bundle, whatever they are.
fn seal(context: BundleContext, plaintext: &[u8], to: &UnwrapKey) -> anyhow::Result<Bundle> {
    let info = delimited("sealcast.v1 bundle", &[&encode(&context)]);
    let wrapped = to
        .wrap_key()
        .wrap(&mut Given(&[0x73; 64]), &info, plaintext)?;
    Ok(Bundle {
        version: 1,
        context,
        wrapped,
    })
}

/// A bundle as it should be.
fn bundle(context: BundleContext) -> anyhow::Result<Bundle> {
    let mut plaintext = keys(&context);
    plaintext.resize(plaintext.len().next_multiple_of(256), 0);
    seal(context, &plaintext, &ben().device.unwrap)
}

fn given(name: &str, about: &str, wire: &[u8], key: &UnwrapKey) -> Case {
    Case::new("bundle", name, about)
        .hex(
            "public-key",
            anna().device.signing.verifying_key().as_bytes(),
        )
        .hex("wire", wire)
        .hex("unwrap-seed", key.expose_seed())
}

fn given_bundle(name: &str, about: &str, bundle: &Bundle) -> Case {
    let wire = raw::signed(&anna().device.signing, LABEL, &encode(bundle));
    given(name, about, &wire, &ben().device.unwrap)
}

fn good() -> anyhow::Result<Vec<Case>> {
    let end = Position::END.0;
    let plain = plain_context();
    let two = vec![spec(3, 5, 7), spec(3, 9, 10), spec(4, 0, end)];
    #[rustfmt::skip]
    let rows = [
        ("good", "two nodes of one session", plain.clone()),
        ("whole-session", "a cover of all positions is the root", BundleContext { covers: vec![spec(3, 0, end)], ..plain.clone() }),
        ("several-covers", "two intervals of one session, and another session", BundleContext { covers: two, ..plain.clone() }),
        ("worst-case", "94 nodes", BundleContext { covers: vec![spec(3, 1, end - 1)], ..plain.clone() }),
        ("eight-nodes", "256 bytes of keys and no padding", BundleContext { covers: vec![spec(3, 1, 256)], ..plain.clone() }),
        ("without-heads", "the giver has seen nothing", BundleContext { heads: Vec::new(), ..plain.clone() }),
        ("answer", "to the one-use key of a request", BundleContext { key: KeyUse::OneUse, request: [9; 16], ..plain }),
    ];
    let mut cases = Vec::new();
    for (name, about, context) in rows {
        let bundle = bundle(context)?;
        let case = given_bundle(name, about, &bundle)
            .hex("signing-seed", anna().device.signing.expose_seed())
            .ok()
            .hex("digest", digest(LABEL, &[&encode(&bundle)]).as_bytes())
            .with("stream", bundle.context.stream)
            .hex("lane", bundle.context.lane.0)
            .hex("giver-user", bundle.context.giver_user.0)
            .with("giver-device", bundle.context.giver_device)
            .hex("user", bundle.context.user.0)
            .with("device", bundle.context.device);
        cases.push(case.each(&bundle.context.covers, |case, spec| {
            let Interval { from, until } = spec.interval;
            let keys = hex(&keys_of(spec));
            case.with(
                "cover",
                format!("{} {} {} {keys}", spec.session, from.0, until.0),
            )
        }));
    }
    Ok(cases)
}

fn encodings() -> anyhow::Result<Vec<Case>> {
    let (key, other) = (anna().device.signing, ben().device.signing);
    let body = encode(&bundle(plain_context())?);
    let faults = raw::faults(&key, &other, LABEL, "sealcast.v1 session record", &body);
    let case = |fault: raw::Fault| {
        let receiver = ben().device.unwrap;
        given(fault.name, fault.about, &fault.wire, &receiver).fails(fault.failure)
    };
    Ok(faults.into_iter().map(case).collect())
}

/// A change of a context.
type Change = (&'static str, &'static str, fn(&mut BundleContext));

/// Contexts that no bundle may have. The keys are wrapped for them all the same.
fn ranges() -> anyhow::Result<Vec<Case>> {
    #[rustfmt::skip]
    let changes: [Change; 9] = [
        ("no-covers", "no cover", |context| context.covers.clear()),
        ("covers-unsorted", "the covers are not ascending", |context| context.covers = vec![spec(4, 0, 1), spec(3, 0, 1)]),
        ("cover-twice", "a cover stands twice", |context| context.covers = vec![spec(3, 0, 1), spec(3, 0, 1)]),
        ("cover-of-nothing", "an interval is empty", |context| context.covers = vec![spec(3, 5, 5)]),
        ("cover-beyond-the-end", "an interval ends at 2^48 + 1", |context| context.covers = vec![spec(3, 5, Position::END.0 + 1)]),
        ("65-covers", "a cover too many", |context| context.covers = (0..65).map(|at| spec(3, at, at + 1)).collect()),
        ("heads-unsorted", "the heads are not ascending", |context| context.heads = vec![LogHash([2; 32]), LogHash([1; 32])]),
        ("head-twice", "a head stands twice", |context| context.heads = vec![SEEN, SEEN]),
        ("one-use-without-request", "a one-use key, and no request", |context| context.key = KeyUse::OneUse),
    ];
    let mut cases = Vec::new();
    for (name, about, change) in changes {
        let mut context = plain_context();
        change(&mut context);
        cases.push(given_bundle(name, about, &bundle(context)?).fails("out of range"));
    }
    let (context, receiver) = (plain_context(), ben().device.unwrap);
    let bare = keys(&context);
    let twice = [&*bare, &[0; 512 - 64]].concat();
    let unpadded = seal(context.clone(), &bare, &receiver)?;
    let too_padded = seal(context, &twice, &receiver)?;
    cases.push(given_bundle("unpadded", "64 bytes are wrapped", &unpadded).fails("out of range"));
    cases.push(
        given_bundle("padded-twice", "512 bytes are wrapped", &too_padded).fails("out of range"),
    );
    Ok(cases)
}

/// Contexts that another one was sealed with; the giver has signed each.
fn context() -> anyhow::Result<Vec<Case>> {
    #[rustfmt::skip]
    let changes: [Change; 11] = [
        ("context-stream", "the stream differs", |context| context.stream = StreamId([0x52; 32])),
        ("context-lane", "the lane differs", |context| context.lane = ben().user),
        ("context-giver-user", "the giver differs", |context| context.giver_user = UserId([7; 32])),
        ("context-giver-device", "the giving device differs", |context| context.giver_device = DeviceId([8; 16])),
        ("context-user", "the receiver differs", |context| context.user = UserId([7; 32])),
        ("context-device", "the receiving device differs", |context| context.device = DeviceId([8; 16])),
        ("context-key", "the use of the key differs", |context| context.key = KeyUse::Fallback { period: 2_959 }),
        ("context-heads", "the heads differ", |context| context.heads.clear()),
        ("context-request", "a request is named", |context| context.request = [9; 16]),
        ("context-session", "the session differs", |context| context.covers[0].session = SessionId([4; 16])),
        ("context-interval", "the interval differs and has as many nodes", |context| context.covers = vec![spec(3, 196_608, 327_680)]),
    ];
    let good = bundle(plain_context())?;
    let altered = |(name, about, change): Change| {
        let mut bundle = good.clone();
        change(&mut bundle.context);
        given_bundle(name, about, &bundle).fails("not authentic")
    };
    Ok(changes.into_iter().map(altered).collect())
}

/// Bundles that another key opens, or that hold something else.
fn contents() -> anyhow::Result<Vec<Case>> {
    let (context, receiver, fallback) =
        (plain_context(), ben().device.unwrap, ben().device.fallback);
    let good = bundle(context.clone())?;
    let wire = raw::signed(&anna().device.signing, LABEL, &encode(&good));
    let mut altered = good.clone();
    altered.wrapped[1_120] ^= 1;
    let mut own = keys(&context);
    own.resize(256, 0);
    let for_another = seal(context.clone(), &own, &fallback)?;
    let padded = |at: usize| {
        let mut plaintext = own.clone();
        plaintext[at] = 1;
        seal(context.clone(), &plaintext, &receiver)
    };
    let other_hash = BundleContext {
        wrap_key_hash: wrap_key_hash(&fallback.wrap_key()),
        ..context.clone()
    };
    Ok(vec![
        given(
            "another-key",
            "opened with the fallback key",
            &wire,
            &fallback,
        )
        .fails("another key"),
        given_bundle(
            "another-key-named",
            "wrapped for this key, and names another",
            &bundle(other_hash)?,
        )
        .fails("another key"),
        given_bundle(
            "another-key-behind-the-hash",
            "names this key, and is wrapped for another",
            &for_another,
        )
        .fails("not authentic"),
        given_bundle("altered", "a bit of the wrapped keys is flipped", &altered)
            .fails("not authentic"),
        given_bundle(
            "padding-first",
            "the first byte of the padding is 1",
            &padded(64)?,
        )
        .fails("padding"),
        given_bundle(
            "padding-last",
            "the last byte of the padding is 1",
            &padded(255)?,
        )
        .fails("padding"),
    ])
}
