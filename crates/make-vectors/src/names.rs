//! Ids and tickets (`spec/encoding.md`, section "Ids"; `spec/tickets.md`).

use sealcast_crypto::digest;

use super::case::Case;
use super::cast::{STREAM, anna};
use super::letters::{BECH32, BECH32M, base64url, bech32, groups};

pub(super) fn cases() -> Vec<Case> {
    [
        users(),
        hexadecimal(),
        tickets(),
        ticket_bodies(),
        ticket_faults(),
    ]
    .concat()
}

fn users() -> Vec<Case> {
    let anna = anna().user.0;
    let of = |bytes: &[u8]| bech32("sc", &groups(bytes, 5), BECH32M);
    let good = of(&anna);
    let mut swapped = good.clone().into_bytes();
    swapped.swap(10, 11);
    let swapped = String::from_utf8_lossy(&swapped).into_owned();
    #[rustfmt::skip]
    let accepted = [
        ("user", "the example of the page", good.clone(), anna),
        ("user-zeros", "32 zeros", of(&[0; 32]), [0; 32]),
        ("user-ones", "32 times ff", of(&[0xff; 32]), [0xff; 32]),
        ("user-in-capitals", "all letters are capitals", good.to_uppercase(), anna),
    ];
    #[rustfmt::skip]
    let refused = [
        ("user-mixed-case", "one letter is a capital", good.replacen('p', "P", 1)),
        ("user-letters-swapped", "two letters are swapped", swapped),
        ("user-letter-missing", "the last letter is missing", good[..good.len() - 1].to_owned()),
        ("user-of-bech32", "the checksum is one of bech32", bech32("sc", &groups(&anna, 5), BECH32)),
        ("user-another-prefix", "the prefix is another", bech32("sd", &groups(&anna, 5), BECH32M)),
        ("user-of-31-bytes", "one byte too few", of(&anna[..31])),
        ("user-of-33-bytes", "one byte too many", of(&[&anna[..], &[0]].concat())),
        ("user-without-prefix", "the letters behind the prefix alone", good[3..].to_owned()),
        ("user-nothing", "no letters", String::new()),
    ];
    let case = |name: &str, about, text| {
        Case::new("id", name, about)
            .with("kind", "user")
            .with("text", text)
    };
    let accepted =
        accepted.map(|(name, about, text, bytes)| case(name, about, text).ok().hex("bytes", bytes));
    let refused = refused.map(|(name, about, text)| case(name, about, text).fails("not an id"));
    [accepted.to_vec(), refused.to_vec()].concat()
}

fn hexadecimal() -> Vec<Case> {
    let device = anna().device.id.to_string();
    let case = |name: &str, about, text: &str| {
        Case::new("id", name, about)
            .with("kind", "device")
            .with("text", text)
    };
    vec![
        case("device", "16 bytes", &device)
            .ok()
            .hex("bytes", anna().device.id.0),
        case(
            "device-in-capitals",
            "capitals are read",
            &device.to_uppercase(),
        )
        .ok()
        .hex("bytes", anna().device.id.0),
        case("device-of-15-bytes", "one byte too few", &device[2..]).fails("not an id"),
        case(
            "device-of-17-bytes",
            "one byte too many",
            &format!("{device}00"),
        )
        .fails("not an id"),
        case(
            "device-of-half-a-byte",
            "a digit too many",
            &format!("{device}0"),
        )
        .fails("not an id"),
        case(
            "device-not-hexadecimal",
            "a letter that is no digit",
            &device.replacen('d', "g", 1),
        )
        .fails("not an id"),
        case(
            "device-with-a-sign",
            "a sign instead of a digit",
            &format!("+{}", &device[1..]),
        )
        .fails("not an id"),
    ]
}

const BUS: &str = "mqtt://broker.example";
const NAME: &str = "boiler room";

/// The CBOR of a ticket's body.
fn body(bus: &str, name: &str) -> Vec<u8> {
    [
        &[0x85, 1],
        &*text(bus),
        &bytes(&STREAM.0),
        &bytes(&anna().user.0),
        &text(name),
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    let [high, low] = (text.len() as u16).to_be_bytes();
    let head: &[u8] = match text.len() {
        0..24 => &[0x60 | low],
        24..0x100 => &[0x78, low],
        _ => &[0x79, high, low],
    };
    [head, text.as_bytes()].concat()
}

fn bytes(id: &[u8; 32]) -> Vec<u8> {
    [&[0x58, 32], &id[..]].concat()
}

/// A body with its checksum, as letters.
fn letters(body: &[u8]) -> String {
    let sum = digest("sealcast.v1 ticket checksum", &[body]);
    base64url(&[body, &sum.as_bytes()[..4]].concat())
}

fn ticket(body: &[u8]) -> String {
    format!("sealcast1:{}", letters(body))
}

fn tickets() -> Vec<Case> {
    let longest = format!("nats://{}", "a".repeat(1_017));
    let name = "ü".repeat(32);
    #[rustfmt::skip]
    let rows: [(_, _, &str, &str); 8] = [
        ("good", "the example of the page", BUS, NAME),
        ("longest", "an address of 1,024 bytes and a name of 64", &longest, &name),
        ("file", "a folder", "file:/var/lib/bus", "x"),
        ("file-with-an-at", "an @ is no credential in the path of a file", "file:/home/a@b/bus?token=1", "x"),
        ("at-in-the-path", "an @ behind the authority is no credential", "mqtt://broker.example/a@b", "x"),
        ("query", "a query without a credential", "postgres://db.example/bus?sslmode=require", "x"),
        ("query-of-a-like-key", "a key that only begins like a credential's", "amqp://broker.example?tokens=2", "x"),
        ("scheme-of-all-kinds", "letters, digits and signs", "a9+-.:x", "x"),
    ];
    rows.map(|(case, about, bus, name)| {
        Case::new("ticket", case, about)
            .with("text", ticket(&body(bus, name)))
            .ok()
            .with("bus", bus)
            .with("stream", STREAM)
            .with("owner", anna().user)
            .with("name", name)
    })
    .to_vec()
}

/// Bodies that the checksum fits and that are refused all the same.
fn ticket_bodies() -> Vec<Case> {
    let good = body(BUS, NAME);
    let changed = |at: usize, to: &[u8]| [&good[..at], to, &good[at + 1..]].concat();
    let (not, newer) = ("not a ticket", "newer version");
    let (unusable, credential) = ("unusable address", "credential");
    let of_bus = |bus: &str| body(bus, NAME);
    let of_name = |name: &str| body(BUS, name);
    #[rustfmt::skip]
    let rows = [
        ("body-version-2", "the body's version is 2", changed(1, &[2]), newer),
        ("body-version-255", "the body's version is 255", changed(1, &[0x18, 0xff]), newer),
        ("body-version-0", "the body's version is 0", changed(1, &[0]), not),
        ("body-version-in-two-bytes", "the version takes two bytes instead of one", changed(1, &[0x18, 1]), not),
        ("body-of-four-items", "the name is missing", [&[0x84], &good[1..good.len() - 12]].concat(), not),
        ("body-of-six-items", "an item too many", [&[0x86], &good[1..], &[0]].concat(), not),
        ("body-byte-behind", "a byte stands behind the body", [&*good, &[0]].concat(), not),
        ("body-empty", "no bytes before the checksum", Vec::new(), not),
        ("name-empty", "a name of no bytes", of_name(""), not),
        ("name-of-65-bytes", "a byte too many", of_name(&"a".repeat(65)), not),
        ("name-with-a-space-before", "white space at the start", of_name(" a"), not),
        ("name-with-a-space-behind", "white space at the end", of_name("a "), not),
        ("name-with-a-control", "a control character", of_name("a\u{7}b"), not),
        ("name-turned-around", "U+202E turns what follows around", of_name("a\u{202e}b"), not),
        ("address-without-scheme", "no colon", of_bus("broker.example"), unusable),
        ("address-without-rest", "nothing behind the colon", of_bus("mqtt:"), unusable),
        ("address-scheme-in-capitals", "a capital in the scheme", of_bus("MQTT://broker.example"), unusable),
        ("address-scheme-of-digits", "the scheme begins with a digit", of_bus("1a://broker.example"), unusable),
        ("address-with-a-control", "a control character", of_bus("mqtt://broker\u{a}.example"), unusable),
        ("address-of-1025-bytes", "a byte too many", of_bus(&format!("nats://{}", "a".repeat(1_018))), unusable),
        ("credential-user", "a user in the authority", of_bus("mqtt://anna@broker.example"), credential),
        ("credential-user-and-password", "both", of_bus("amqp://anna:word@broker.example/x"), credential),
        ("credential-password", "in the query", of_bus("postgres://db.example/bus?password=word"), credential),
        ("credential-second-key", "behind another key of the query", of_bus("nats://n.example?a=b&Token=word"), credential),
    ];
    rows.map(|(name, about, body, failure)| {
        Case::new("ticket", name, about)
            .with("text", ticket(&body))
            .fails(failure)
    })
    .to_vec()
}

/// Texts that are refused before their body is read.
fn ticket_faults() -> Vec<Case> {
    let good = body(BUS, NAME);
    let letters = letters(&good);
    let (not, newer, damaged) = ("not a ticket", "newer version", "damaged");
    let slip = letters.replacen('h', "i", 1);
    let cut = &letters[..letters.len() - 1];
    let mut wrong_sum = good.clone();
    wrong_sum.extend_from_slice(&[0; 4]);
    let too_long = "A".repeat(1_560);
    #[rustfmt::skip]
    let rows = [
        ("no-colon", "no colon", "sealcast1".to_owned(), not),
        ("another-word", "another word before the colon", format!("sealcost1:{letters}"), not),
        ("capital", "the word has a capital", format!("Sealcast1:{letters}"), not),
        ("no-version", "no number", format!("sealcast:{letters}"), not),
        ("version-0", "version 0", format!("sealcast0:{letters}"), not),
        ("version-01", "a zero before the number", format!("sealcast01:{letters}"), not),
        ("version-2", "a newer version", format!("sealcast2:{letters}"), newer),
        ("version-10", "a newer version of two digits, with a body of its own", "sealcast10:x".to_owned(), newer),
        ("slip", "one letter differs", format!("sealcast1:{slip}"), damaged),
        ("cut", "the last letter is missing", format!("sealcast1:{cut}"), damaged),
        ("padded", "padding at the end", format!("sealcast1:{letters}=="), damaged),
        ("letter-of-base64", "a letter of base64 that is none of base64url", format!("sealcast1:{}", letters.replacen('X', "/", 1)), damaged),
        ("space-inside", "a space inside", format!("sealcast1:{} {}", &letters[..9], &letters[9..]), damaged),
        ("wrong-checksum", "the checksum is zero", format!("sealcast1:{}", base64url(&wrong_sum)), damaged),
        ("shorter-than-a-checksum", "three bytes", "sealcast1:AAAA".to_owned(), damaged),
        ("too-long", "longer than any body is", format!("sealcast1:{too_long}"), damaged),
    ];
    rows.map(|(name, about, text, failure)| {
        Case::new("ticket", name, about)
            .with("text", text)
            .fails(failure)
    })
    .to_vec()
}
