//! What must hold of any bytes from outside: a body for each fuzz target.
//!
//! [`run`] hands bytes to a target, which panics where something does not hold. The programs of
//! `fuzz/` call it with what libFuzzer makes up; a test of this crate calls it with every file of
//! `fuzz/corpus/`. Besides that nothing panics, targets see to it that what was decoded encodes to the
//! same bytes, that versions which are not known are refused by name, and that no more memory is
//! taken than the bytes account for.
//!
//! Some targets read their input as it is. Others take it for a list of decisions, and build with it
//! what bytes alone would never be: signed entries, streams, requests. What they draw, keys and
//! nonces, is the same every time.

mod access_log;
mod ask;
mod audit;
mod bus_file;
mod control;
mod envelopes;
mod examples;
mod files;
mod heap;
mod kept;
mod keys;
mod lists;
mod nodes;
mod pairing;
mod seeded;
mod signed;
mod stage;
mod stream;
mod texts;

pub use examples::examples;

use heap::Heap;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its folder in `fuzz/corpus/`.
    pub name: &'static str,
    /// What it is handed, for people.
    pub reads: &'static str,
    run: fn(&[u8]),
    heap: Heap,
}

const fn target(name: &'static str, reads: &'static str, run: fn(&[u8]), heap: Heap) -> Target {
    Target {
        name,
        reads,
        run,
        heap,
    }
}

/// Every target.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    target("access_log", "entries of many authors, in several orders", access_log::orders, heap::OF_A_STAGE),
    target("agent_line", "a line of the agent's answer", files::agent_line, heap::OF_TEXT),
    target("ask_item", "an item of an `ask` topic", control::ask_item, heap::OF_BYTES),
    target("asking", "a requester's and a responder's day", ask::asking, heap::OF_A_STAGE),
    target("audit", "the audit of a key node, and what somebody does to one", audit::audit, heap::OF_A_STAGE),
    target("bundle", "a signed bundle", control::bundle, heap::OF_BYTES),
    target("bus_file", "the database of a `file:` bus with changed rows", bus_file::bus_file, heap::OF_A_STAGE),
    target("bus_url", "the address of a bus, or a topic", texts::bus_url, heap::OF_BYTES),
    target("config", "a config file", files::config, heap::OF_TEXT),
    target("device_list", "a device list with forged entries, in any order", lists::device_list, heap::OF_A_STAGE),
    target("envelope", "an envelope", envelopes::envelope, heap::OF_BYTES),
    target("export", "a file of keys or a backup, decrypted", files::export, heap::OF_BYTES),
    target("fallback_key", "a signed fallback key", control::fallback_key, heap::OF_BYTES),
    target("frame", "the plaintext of a frame", envelopes::frame, heap::OF_BYTES),
    target("ids", "an id, a name or a pairing code, as text", texts::ids, heap::OF_BYTES),
    target("inspect", "any file", files::inspect, heap::OF_FILES),
    target("kept", "a record of a home's store", kept::kept, heap::OF_A_STAGE),
    target("key_file", "the file of a store's key", files::key_file, heap::OF_FILES),
    target("keys", "keys, covers and what is wrapped", keys::keys, heap::OF_BYTES),
    target("list_entry", "a signed entry of a device list", control::list_entry, heap::OF_BYTES),
    target("log_entry", "a signed entry of an access log", control::log_entry, heap::OF_BYTES),
    target("mqtt_packet", "a packet of an MQTT broker", sealcast_bus_mqtt::fuzz::packet, heap::OF_BYTES),
    target("node_answer", "a key node's answer, a share, and what a publisher keeps of its lane", nodes::node_answer, heap::OF_A_STAGE),
    target("node_inbox", "an item of the inbox of a key node, and of whoever asks one", nodes::node_inbox, heap::OF_A_STAGE),
    target("node_item", "what travels to and from key nodes", control::node_item, heap::OF_BYTES),
    target("pairing_item", "an item of a pairing", pairing::pairing_item, heap::OF_BYTES),
    target("proxy_frames", "frames of a WebSocket client", sealcast_proxy::fuzz::frames, heap::OF_BYTES),
    target("proxy_packet", "packets of MQTT clients and brokers", sealcast_proxy::fuzz::packets, heap::OF_BYTES),
    target("sealing", "what is sealed, and a byte that is altered", envelopes::sealing, heap::OF_BYTES),
    target("session_record", "a signed session record", control::session_record, heap::OF_BYTES),
    target("stream", "all topics of a stream", stream::stream, heap::OF_A_STAGE),
    target("ticket", "a ticket, or its body under a good checksum", texts::ticket, heap::OF_BYTES),
    target("welcome", "a signed welcome to a new device", pairing::welcome, heap::OF_BYTES),
];

/// Hands bytes to the target of a name; whether there is one.
///
/// # Panics
///
/// Panics when something that must hold does not.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let target = TARGETS.iter().find(|of| of.name == name);
    if let Some(target) = target {
        target.heap.bounded(bytes.len(), || (target.run)(bytes));
    }
    target.is_some()
}
