//! Every file of `vectors/` comes out as it says, through the APIs that readers use. How the files
//! are made is not known here.
#![cfg(test)]

mod control;
mod file;
mod formats;
mod keys;
mod logs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use file::{Given, Outcome, Vector};

type Read = fn(&mut Given) -> Outcome;

/// The folders, and what tries their files.
const AREAS: &[(&str, Read)] = &[
    ("access-log", control::access_log),
    ("bulk-digest", keys::bulk_digests),
    ("bundle", control::bundles),
    ("cover", keys::covers),
    ("device-list", control::device_list),
    ("digest", keys::digests),
    ("envelope", formats::envelopes),
    ("frame", formats::frames),
    ("id", formats::ids),
    ("key-file", formats::key_file),
    ("log-state", logs::state),
    ("message", keys::messages),
    ("revocation-proof", control::revocation_proof),
    ("session", control::sessions),
    ("signature", keys::signatures),
    ("store", formats::store),
    ("ticket", formats::tickets),
    ("tree", keys::tree),
    ("wrap", keys::wraps),
    ("wrap-key", keys::wrap_keys),
];

#[test]
fn every_vector_comes_out_as_it_says() {
    let mut tried = 0;
    for (area, read) in AREAS {
        for (path, text) in files(area) {
            if let Err(fault) = check(*read, &text) {
                panic!("{}: {fault}", path.display());
            }
            tried += 1;
        }
    }
    assert!(tried >= 500, "{tried} vectors");
}

#[test]
fn every_folder_is_tried_and_has_something_good_in_it() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let tried: BTreeSet<String> = AREAS.iter().map(|(area, _)| (*area).to_owned()).collect();
    assert_eq!(found, tried);
    for area in tried {
        let is_good = |(_, text): &(_, String)| text.contains("\nexpect: ok\n");
        assert!(files(&area).iter().any(is_good), "{area}");
    }
}

#[test]
fn every_failure_is_explained_in_the_readme() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for (area, _) in AREAS {
        for (path, text) in files(area) {
            let expect = Vector::parse(&text).unwrap().expect;
            let explained = readme.contains(&format!("| `{expect}` |"));
            assert!(explained, "{}: {expect}", path.display());
        }
    }
}

/// In a good file every line counts, save what it is about and the time that a list is read at; in
/// one that is refused, what is expected.
#[test]
fn a_vector_with_one_altered_line_does_not_come_out() {
    for (area, read) in AREAS {
        for (path, text) in files(area) {
            let is_good = text.contains("\nexpect: ok\n");
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let (key, _) = line.split_once(':').unwrap();
                let counts = is_good && !["about", "now"].contains(&key);
                if !counts && key != "expect" {
                    continue;
                }
                let mut altered: Vec<String> = lines.iter().map(ToString::to_string).collect();
                altered[at] = alter(line);
                let outcome = check(*read, &altered.join("\n"));
                assert!(outcome.is_err(), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn a_line_that_nobody_reads_is_a_fault() {
    let text = "label: a\nother: b\nexpect: ok\n";
    let fault = check(keys::digests, text).unwrap_err();
    assert!(fault.starts_with("nobody read"), "{fault}");
}

/// Alters the last character, or adds a byte where there is none.
fn alter(line: &str) -> String {
    let mut altered = line.to_owned();
    match altered.pop() {
        Some(':') => format!("{line} 00"),
        Some('0') => altered + "1",
        _ => altered + "0",
    }
}

/// Says how a file comes out otherwise than it expects.
fn check(read: Read, text: &str) -> Result<(), String> {
    let mut vector = Vector::parse(text)?;
    let outcome = read(&mut vector.given);
    if let [(key, _), ..] = vector.given.rest() {
        return Err(format!("nobody read `{key}` ({outcome:?})"));
    }
    match outcome {
        Ok(lines) if vector.expect == "ok" && lines == vector.comes_out => Ok(()),
        Err(failure) if failure == vector.expect && vector.comes_out.is_empty() => Ok(()),
        outcome => Err(format!(
            "expected {} {:?}, and there came {outcome:?}",
            vector.expect, vector.comes_out
        )),
    }
}

fn files(area: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder().join(area)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}
