//! Envelopes, frames, ids, tickets, and values of a store.

use sealcast_crypto::{Cover, SigningKey, StoreKey, VerifyingKey, Walker, delimited};
use sealcast_protocol::{
    DataItem, DataTopic, DeviceId, EnvelopeView, Export, KeyExport, Position, Records, StreamId,
    Ticket, UserId, seal,
};

use crate::case::{Given, Lines, Outcome, hex, must, named};
use crate::keys::{Drawn, OPENS, SIGNED_AGAIN, held, root};

/// `spec/encoding.md` has one name for what is not the encoding of an object.
pub(crate) const DECODE: &[(&str, &str)] = &[
    ("TooLong", "too long"),
    ("Malformed", "malformed"),
    ("NotCanonical", "malformed"),
    ("OutOfRange", "out of range"),
    ("UnknownVersion", "unknown version"),
    ("UnknownSuite", "unknown suite"),
    ("UnknownFlags", "unknown flags"),
];
const TICKET: &[(&str, &str)] = &[
    ("NotATicket", "not a ticket"),
    ("Damaged", "damaged"),
    ("NewerVersion", "newer version"),
    ("BadBusUrl", "unusable address"),
    ("Credentials", "credential"),
];

pub(crate) fn envelopes(given: &mut Given) -> Outcome {
    let (stream, topic) = (StreamId(given.array("stream")?), given.bytes("topic")?);
    let key = VerifyingKey::from_bytes(given.array("public-key")?);
    let key = key.map_err(|_| "no key")?;
    let (envelope, seed) = (given.bytes("envelope")?, given.maybe_array("signing-seed")?);
    let cover = match root(given) {
        Ok(root) => Cover::whole(&root),
        Err(_) => held(given)??,
    };
    let view = EnvelopeView::parse(&envelope).map_err(|error| named(DECODE)(&error))?;
    let bound = view.bind(&stream, &topic);
    let verified = bound.verify(&key).map_err(|_| "signature")?;
    let header = *verified.header();
    let mut walker = Walker::new(cover);
    let leaf = walker.leaf(header.position.0).ok_or("no key")?;
    let plaintext = verified.open(&leaf).map_err(|_| "not authentic")?;
    let plaintext = plaintext.expose();
    if let Some(seed) = seed {
        let signing = SigningKey::from_seed(&seed);
        let sealed = seal(&leaf, &signing, &stream, &topic, &header, plaintext);
        must(
            sealed.is_ok_and(|sealed| sealed.bytes == envelope),
            SIGNED_AGAIN,
        )?;
    }
    let [frame, backfill, batch] = [
        header.flags.frame,
        header.flags.backfill,
        header.flags.batch,
    ]
    .map(u8::from);
    let flags = frame + 2 * backfill + 4 * batch;
    Lines::default()
        .text("flags", flags)
        .text("content", header.content)
        .text("session", header.session)
        .text("position", header.position.0)
        .text("device", header.device)
        .text("instance", header.instance)
        .text("seq", header.seq)
        .text("prev", header.prev)
        .text("hash", verified.hash())
        .hex("plaintext", plaintext)
        .done()
}

pub(crate) fn exports(given: &mut Given) -> Outcome {
    let plaintext = given.bytes("plaintext")?;
    let export = Export::decode(&plaintext).map_err(|error| named(DECODE)(&error))?;
    let again = export.encode().map_err(|error| named(DECODE)(&error))?;
    must(again.expose() == plaintext, "it is encoded otherwise")?;
    match export {
        Export::Keys(keys) => exported_keys(&keys),
        Export::Home(home) => Lines::default()
            .text("content", "home")
            .text("time", home.time.0)
            .each(&home.records, |lines, of| {
                let (id, value) = (hex(&of.id), hex(of.value.expose()));
                lines.text("record", format!("{} {id} {value}", of.space).trim_end())
            })
            .done(),
    }
}

fn exported_keys(keys: &KeyExport) -> Outcome {
    for of in &keys.sessions {
        of.keys().map_err(|_| "another root")?;
    }
    Lines::default()
        .text("content", "keys")
        .text("stream", keys.stream)
        .hex("owner", keys.owner.0)
        .text("name", &keys.name)
        .each(&keys.sessions, |lines, of| {
            let (lane, commitment) = (hex(&of.lane.0), hex(&of.commitment));
            let text = format!("{} {} {lane} {commitment}", of.session, of.device);
            lines
                .text("session", text)
                .each(&of.covers, |lines, cover| {
                    let (from, until) = (cover.interval.from.0, cover.interval.until.0);
                    lines.text(
                        "cover",
                        format!("{from} {until} {}", hex(cover.keys.expose())),
                    )
                })
        })
        .done()
}

pub(crate) fn frames(given: &mut Given) -> Outcome {
    let position = Position(given.number("position")?);
    let plaintext = given.bytes("plaintext")?;
    let records = Records::decode(&plaintext, position, true);
    let records = records.map_err(|error| named(DECODE)(&error))?;
    Lines::default()
        .each(records, |lines, record| {
            let payload = hex(record.payload);
            lines.text("record", format!("{} {payload}", record.time.0).trim_end())
        })
        .done()
}

pub(crate) fn items(given: &mut Given) -> Outcome {
    let item = given.bytes("item")?;
    let (topic, envelope) = DataItem::split(&item).map_err(|error| named(DECODE)(&error))?;
    if let Ok(topic) = topic.parse::<DataTopic>() {
        must(topic.item(envelope) == item, "an item has one spelling")?;
    }
    Lines::default()
        .text("topic", hex(topic.as_bytes()))
        .text("envelope", hex(envelope))
        .done()
}

pub(crate) fn ids(given: &mut Given) -> Outcome {
    let (kind, text) = (given.text("kind")?, given.text("text")?);
    let bytes = match kind.as_str() {
        "user" => text.parse::<UserId>().map(|id| hex(&id.0)),
        "device" => text.parse::<DeviceId>().map(|id| hex(&id.0)),
        _ => return Err(format!("no such kind: {kind}")),
    };
    let bytes = bytes.map_err(|_| "not an id")?;
    Lines::default().text("bytes", bytes).done()
}

pub(crate) fn tickets(given: &mut Given) -> Outcome {
    let text = given.text("text")?;
    let ticket = Ticket::parse(&text).map_err(|error| named(TICKET)(&error))?;
    must(ticket.to_string() == text, "a ticket has one spelling")?;
    let pasted = Ticket::parse(&format!(" {text}\r\n"));
    must(
        pasted.as_ref() == Ok(&ticket),
        "space around a ticket says nothing",
    )?;
    Lines::default()
        .text("bus", ticket.bus())
        .text("stream", ticket.stream())
        .text("owner", ticket.owner())
        .text("name", ticket.name())
        .done()
}

pub(crate) fn store(given: &mut Given) -> Outcome {
    let key: [u8; 32] = given.array("store-key")?;
    let key = StoreKey::init_with(|bytes| *bytes = key);
    let (space, id) = (given.number::<u16>("space")?, given.bytes("id")?);
    let context = delimited("sealcast.v1 store record", &[&space.to_be_bytes(), &id]);
    let Some(nonce) = given.maybe_bytes("nonce")? else {
        let opened = key.open(&context, &given.bytes("sealed")?);
        let opened = opened.map_err(|_| "not authentic")?;
        return Lines::default().hex("value", opened.expose()).done();
    };
    let value = given.bytes("value")?;
    let sealed = key.seal(&mut Drawn(nonce), &context, &value);
    let opened = key.open(&context, &sealed).map_err(|_| "not authentic")?;
    must(opened.expose() == value, OPENS)?;
    Lines::default().hex("sealed", sealed).done()
}
