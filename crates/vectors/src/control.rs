//! Signed objects: device lists, access-log entries, session records, bundles.

use sealcast_crypto::{SigningKey, UnwrapKey, VerifyingKey};
use sealcast_protocol::{
    Bundle, CardList, CardRevocation, Demand, DeviceId, DeviceState, FallbackKey, ListPin, LogBody,
    LogEntry, Position, SessionKind, SessionRecord, Signable, Targets, Unverified, UserId,
    Verified, open_bundle, sign, wrap_key_hash,
};

use crate::case::{Given, Lines, Outcome, array, hex, must, named, unhex};
use crate::formats::DECODE;
use crate::keys::SIGNED_AGAIN;

const LIST: &[(&str, &str)] = &[
    ("Malformed(TooLong", "too long"),
    ("Malformed(Malformed)", "malformed"),
    ("Malformed(NotCanonical)", "malformed"),
    ("Malformed(OutOfRange)", "out of range"),
    ("Malformed(UnknownVersion", "unknown version"),
    ("OtherUser", "another user"),
    ("BadSignature", "signature"),
    ("Gap", "gap"),
    ("Forked", "fork"),
    ("Shortened", "shortened"),
    ("Card(DeviceId)", "card id"),
    ("Card(InvalidKey)", "card key"),
    ("Card(Possession)", "possession"),
    ("Contradicted", "contradicted"),
    ("NoSuchDevice", "no such device"),
];
const UNWRAP: &[(&str, &str)] = &[
    ("NoWrap", "no wrap"),
    ("NotAuthentic", "not authentic"),
    ("OtherRoot", "another root"),
];
const BUNDLE: &[(&str, &str)] = &[
    ("OtherKey", "another key"),
    ("NotAuthentic", "not authentic"),
    ("Padding", "padding"),
];

pub(crate) fn device_list(given: &mut Given) -> Outcome {
    let mut list = CardList::new(UserId(given.array("user")?));
    let (entries, now) = (given.each("entry")?, given.maybe_number("now")?);
    let pin = given.maybe_text("pin").map(|pin| parse_pin(&pin));
    let pin = pin.transpose()?;
    for (at, entry) in entries.iter().enumerate() {
        if let Err(fault) = list.apply(entry) {
            let name = named(LIST)(&fault);
            let is_last = at + 1 == entries.len();
            return Err(if is_last {
                name
            } else {
                format!("entry {at}: {name}")
            });
        }
    }
    if let Some(pin) = pin {
        list.check_pin(&pin).map_err(|fault| named(LIST)(&fault))?;
    }
    let now = Position(now.ok_or("no `now`")?);
    let state = |state: &DeviceState| match (state.revoked, state.is_live(now)) {
        (Some(_), _) => "revoked",
        (None, true) => "live",
        (None, false) => "expired",
    };
    let head = list.head().0;
    Lines::default()
        .hex("head", head)
        .each(list.devices(), |lines, (id, of)| {
            let key = hex(of.sign_key.as_bytes());
            lines.text("device", format!("{id} {} {key}", state(of)))
        })
        .done()
}

fn parse_pin(text: &str) -> Result<ListPin, String> {
    let (seq, half) = text.split_once(' ').ok_or("no pin")?;
    let half = array(&unhex(half)?)?;
    let seq = seq.parse().map_err(|_| "no seq")?;
    Ok(ListPin { seq, half })
}

pub(crate) fn revocation_proof(given: &mut Given) -> Outcome {
    let (user, proof) = (UserId(given.array("user")?), given.bytes("proof")?);
    let revocation = CardRevocation::from_proof(&user, &proof);
    let revocation = revocation.map_err(|fault| named(LIST)(&fault))?;
    Lines::default()
        .text("device", revocation.device)
        .text("time", revocation.time.0)
        .done()
}

pub(crate) fn fallback_key(given: &mut Given) -> Outcome {
    let signed = Signed::take(given)?;
    let (user, now) = (UserId(given.array("user")?), Position(given.number("now")?));
    let digest = signed.verify::<FallbackKey>()?.digest();
    let key = VerifyingKey::from_bytes(signed.key).map_err(|_| "no key")?;
    let items = [b"anything".as_slice(), &signed.wire];
    let newest = FallbackKey::newest(&user, &key, items, now);
    let (period, key) = newest.ok_or("no fallback key")?;
    Lines::default()
        .hex("digest", digest.as_bytes())
        .text("period", period)
        .hex("wrap-key-hash", wrap_key_hash(&key))
        .done()
}

/// What every signed object comes with.
pub(crate) struct Signed {
    key: [u8; 32],
    wire: Vec<u8>,
    seed: Option<[u8; 32]>,
}

impl Signed {
    pub(crate) fn take(given: &mut Given) -> Result<Self, String> {
        Ok(Self {
            key: given.array("public-key")?,
            wire: given.bytes("wire")?,
            seed: given.maybe_array("signing-seed")?,
        })
    }

    pub(crate) fn verify<T: Signable + Clone>(&self) -> Result<Verified<T>, String> {
        let unverified = Unverified::<T>::decode(&self.wire);
        let unverified = unverified.map_err(|error| named(DECODE)(&error))?;
        let key = VerifyingKey::from_bytes(self.key).map_err(|_| "no key")?;
        let verified = unverified.verify(&key).map_err(|_| "signature")?;
        if let Some(seed) = self.seed {
            let again = sign(&SigningKey::from_seed(&seed), verified.body().clone());
            must(
                again.is_ok_and(|again| again.wire() == self.wire),
                SIGNED_AGAIN,
            )?;
        }
        Ok(verified)
    }
}

pub(crate) fn access_log(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<LogEntry>()?;
    let entry = verified.body();
    let lines = Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", entry.stream)
        .hex("user", entry.user.0)
        .text("device", entry.device)
        .text("seq", entry.seq)
        .text("prev", entry.prev)
        .each(&entry.heads, |lines, head| lines.text("head", head))
        .text("time", entry.time.0);
    says(lines, &entry.body).done()
}

fn says(lines: Lines, body: &LogBody) -> Lines {
    match body {
        LogBody::Genesis(genesis) => lines
            .text("says", "genesis")
            .hex("nonce", genesis.nonce)
            .hex("owner", genesis.owner.0)
            .text("sharing", genesis.sharing as u8)
            .text("public", genesis.public),
        LogBody::Grant(grant) => lines
            .text("says", "grant")
            .hex("to", grant.user.0)
            .each(&grant.devices, |lines, id| lines.text("to-device", id))
            .text("roles", grant.roles.0)
            .each(&grant.lanes, |lines, lane| lines.hex("lane", lane.0))
            .text("from", grant.interval.from.0)
            .text("until", grant.interval.until.0)
            .text("reshare", grant.reshare),
        LogBody::Revoke(revoke) => {
            let lines = lines.text("says", "revoke");
            let lines = match &revoke.targets {
                Targets::Grants(grants) => {
                    lines.each(grants, |lines, grant| lines.text("grant", grant))
                }
                Targets::Users(users) => lines.each(users, |lines, user| lines.hex("out", user.0)),
                Targets::Devices(devices) => lines.each(devices, |lines, target| {
                    let proven = if target.is_proven() {
                        "proven"
                    } else {
                        "unproven"
                    };
                    lines.text("out-device", format!("{} {proven}", target.device))
                }),
            };
            lines.each(&revoke.last, |lines, of| {
                let tips: String = of.tips.iter().map(|tip| format!(" {tip}")).collect();
                lines.text("last", format!("{}{tips}", of.device))
            })
        }
        LogBody::Settings(settings) => lines
            .text("says", "settings")
            .text("rekey-every-ms", settings.rekey_every_ms),
        LogBody::KeyNodes(nodes) => lines
            .text("says", "key nodes")
            .text("threshold", nodes.threshold)
            .text("generation", nodes.generation)
            .each(&nodes.nodes, |lines, node| {
                lines
                    .hex("node", node.user.0)
                    .text("node-device", node.device)
            })
            .each(&nodes.condition.0, |lines, all| {
                let all: Vec<String> = all.iter().map(demand).collect();
                lines.text("if", all.join(" and "))
            }),
        LogBody::Close => lines.text("says", "close"),
        LogBody::Approve(approval) => lines
            .text("says", "approve")
            .hex("to", approval.user.0)
            .text("until", approval.until.0),
    }
}

fn demand(demand: &Demand) -> String {
    match demand {
        Demand::After(time) => format!("after {}", time.0),
        Demand::Before(time) => format!("before {}", time.0),
        Demand::Approved(approvers) => {
            let of = approvers.of.iter().map(|of| format!(" {}", hex(&of.0)));
            let of: String = of.collect();
            format!("approved by {} of{of}", approvers.needed)
        }
    }
}

pub(crate) fn sessions(given: &mut Given) -> Outcome {
    let signed = Signed::take(given)?;
    let (user, seed) = (
        given.maybe_array("user")?,
        given.maybe_array("unwrap-seed")?,
    );
    let device = given
        .maybe_bytes("device")?
        .map(|id| array(&id))
        .transpose()?;
    let verified = signed.verify::<SessionRecord>()?;
    let record = verified.body();
    let root = match (user, device, seed) {
        (Some(user), Some(device), Some(seed)) => {
            let (user, device) = (UserId(user), DeviceId(device));
            let root = record.unwrap_root(&user, &device, &UnwrapKey::from_seed(&seed));
            Some(root.map_err(|error| named(UNWRAP)(&error))?)
        }
        (_, _, _) => record.public_root(),
    };
    let kind = match &record.kind {
        SessionKind::Live => "live".to_owned(),
        SessionKind::Backfill { interval } => {
            format!("backfill {} {}", interval.from.0, interval.until.0)
        }
    };
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", record.stream)
        .hex("lane", record.lane.0)
        .text("giver", record.device)
        .text("session", record.session)
        .hex("commitment", record.commitment)
        .text("start", record.start.0)
        .text("kind", kind)
        .each(&record.heads, |lines, head| lines.text("head", head))
        .each(root, |lines, root| lines.hex("root", root.expose()))
        .done()
}

pub(crate) fn bundles(given: &mut Given) -> Outcome {
    let signed = Signed::take(given)?;
    let key = UnwrapKey::from_seed(&given.array("unwrap-seed")?);
    let verified = signed.verify::<Bundle>()?;
    let context = &verified.body().context;
    let covers = open_bundle(verified.body(), &key).map_err(|error| named(BUNDLE)(&error))?;
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", context.stream)
        .hex("lane", context.lane.0)
        .hex("giver-user", context.giver_user.0)
        .text("giver-device", context.giver_device)
        .hex("user", context.user.0)
        .text("device", context.device)
        .each(covers, |lines, (session, cover)| {
            let keys = hex(cover.key_bytes().expose());
            let (from, until) = (cover.from(), cover.until());
            lines.text("cover", format!("{session} {from} {until} {keys}"))
        })
        .done()
}
