//! Writes what fuzzing starts from into `fuzz/corpus/`: what the cases of `vectors/` are given, and
//! where they have none, something small that is good. `cargo xtask fuzz --seeds` runs it.

use std::error::Error;
use std::fs;
use std::path::Path;

use sealcast_fuzz::{TARGETS, examples};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of the cases of one area, so many good ones and so many refused ones, the shortest of each.
const GOOD_MAX: usize = 6;
const REFUSED_MAX: usize = 4;
const LEN_MAX: usize = 3_000;

/// An area of `vectors/`, the key whose value is given, its target, and what stands before it there.
const GIVEN: &[(&str, &str, &str, &[u8])] = &[
    ("access-log", "wire", "log_entry", &[]),
    ("bundle", "wire", "bundle", &[]),
    ("claim", "wire", "ask_item", &[]),
    ("cover", "keys", "keys", &[3]),
    ("device-list", "entry", "list_entry", &[]),
    ("envelope", "envelope", "envelope", &[]),
    ("export", "plaintext", "export", &[]),
    ("fallback-key", "wire", "fallback_key", &[]),
    ("frame", "plaintext", "frame", &[]),
    ("id", "text", "ids", &[]),
    ("key-file", "file", "key_file", &[]),
    ("log-state", "entry", "log_entry", &[]),
    ("audit-entry", "audited", "audit", &[]),
    ("audit-entry", "wire", "node_item", &[]),
    ("deal", "wire", "node_item", &[]),
    ("node-refusal", "wire", "node_item", &[]),
    ("node-refusal", "wire", "node_inbox", &[]),
    ("node-request", "wire", "node_inbox", &[]),
    ("node-request", "wire", "node_item", &[]),
    ("sealed-answer", "wire", "node_inbox", &[]),
    ("sealed-answer", "wire", "node_item", &[]),
    ("segment-records", "wire", "node_item", &[]),
    ("pairing-code", "text", "ids", &[]),
    ("quorum", "answer", "node_answer", &[1]),
    ("receipt", "wire", "ask_item", &[]),
    ("refusal", "wire", "ask_item", &[]),
    ("revocation-proof", "proof", "list_entry", &[]),
    ("session", "wire", "session_record", &[]),
    ("share", "share", "node_answer", &[0]),
    ("signature", "signature", "keys", &[2]),
    ("solicitation", "wire", "ask_item", &[]),
    ("ticket", "text", "ticket", &[]),
    ("wrap", "wrapped", "keys", &[1]),
    ("wrap-key", "wrap-key", "keys", &[0]),
];

fn main() -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let corpus = root.join("fuzz/corpus");
    for target in TARGETS {
        fs::create_dir_all(corpus.join(target.name))?;
    }
    for (area, key, target, before) in GIVEN {
        for (name, bytes) in cases(&root.join("vectors").join(area), key)? {
            let path = corpus.join(target).join(format!("{area}-{name}"));
            fs::write(path, [*before, &bytes].concat())?;
        }
    }
    for (target, name, bytes) in examples() {
        fs::write(corpus.join(target).join(name), bytes)?;
    }
    Ok(())
}

/// The shortest cases of an area, with their names.
fn cases(folder: &Path, key: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let (given, _) = text.split_once("expect: ").unwrap_or((&text, ""));
        if let Some(bytes) = value(given, key)
            && bytes.len() <= LEN_MAX
        {
            let is_good = text.contains("expect: ok");
            found.push((bytes.len(), name.into_owned(), is_good, bytes));
        }
    }
    found.sort();
    let (mut good, mut refused) = (0, 0);
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    for (_, name, is_good, bytes) in found {
        let (count, max) = match is_good {
            true => (&mut good, GOOD_MAX),
            false => (&mut refused, REFUSED_MAX),
        };
        if *count < max && kept.iter().all(|(_, of)| *of != bytes) {
            *count += 1;
            kept.push((name, bytes));
        }
    }
    Ok(kept)
}

/// What stands behind a key the last time, in the form in which its target takes it.
fn value(given: &str, key: &str) -> Option<Vec<u8>> {
    let of = |key: &str| {
        let mut lines = given.lines().rev();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    let number = |key: &str| of(key)?.parse::<u64>().ok().map(u64::to_be_bytes);
    let text = of(if key == "audited" { "wire" } else { key })?;
    Some(match key {
        // Behind where a chain ends, and what is done to one; twice.
        "audited" => {
            let wire = unhex(text)?;
            let entry = [&(wire.len() as u16).to_be_bytes()[..], &wire].concat();
            [&[0; 50][..], &entry, &entry].concat()
        }
        "text" => text.as_bytes().to_vec(),
        "answer" | "entry" => unhex(text.split(' ').next_back()?)?,
        "plaintext" if of("position").is_some() => {
            [&number("position")?[2..], &unhex(text)?].concat()
        }
        "keys" => [&number("from")?[..], &number("until")?, &unhex(text)?].concat(),
        "signature" => {
            let (key, part) = (unhex(of("public-key")?)?, unhex(of("part")?)?);
            [key, unhex(text)?, part].concat()
        }
        _ => unhex(text)?,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks() else {
        return None;
    };
    let digit = |of: u8| char::from(of).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}
