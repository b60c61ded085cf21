//! `docs/reference/errors.md` says what [`sealcast::Error`] says: one line for each code.
//!
//! `SEALCAST_BLESS=1 cargo test -p sealcast --test errors_page` writes the page anew.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const SOURCE: &str = include_str!("../src/error.rs");
const HEAD: &str = "# Errors

Every error of the library has a code that stays the same. The command line prints it with `--json`;
which of them ends a command with which exit status is in [the command line](command-line.md).
Written from `crates/client/src/error.rs` by a test of that crate.

| code | what it means, and what to do |
|---|---|
";

#[test]
fn the_page_of_errors_is_that_of_the_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let page = page();
    if std::env::var_os("SEALCAST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page, "write it anew with SEALCAST_BLESS=1");
}

fn page() -> String {
    let (docs, codes) = (docs(), codes());
    assert_eq!(docs.len(), codes.len());
    let mut page = HEAD.to_owned();
    for (code, variant) in codes {
        writeln!(page, "| `{code}` | {} |", docs[variant]).unwrap();
    }
    page
}

/// What is said of each variant.
fn docs() -> BTreeMap<&'static str, String> {
    let (_, source) = SOURCE.split_once("pub enum Error {").unwrap();
    let (source, _) = source.split_once("\n}\n").unwrap();
    let (mut docs, mut said) = (BTreeMap::new(), String::new());
    let lines = source.lines().filter_map(|line| line.strip_prefix("    "));
    for line in lines.filter(|line| !line.starts_with([' ', '#', '}'])) {
        match line.strip_prefix("/// ") {
            Some(text) if said.is_empty() => said.push_str(text),
            Some(text) => said.extend([" ", text]),
            None => {
                let end = line.find(|c: char| !c.is_alphanumeric()).unwrap();
                docs.insert(&line[..end], std::mem::take(&mut said));
            }
        }
    }
    docs
}

/// The variant of each code.
fn codes() -> BTreeMap<&'static str, &'static str> {
    let (_, source) = SOURCE.split_once("pub fn code(").unwrap();
    let (source, _) = source.split_once("\n    }\n").unwrap();
    let arms = source.lines().filter_map(|line| line.split_once(" => \""));
    let arms = arms.map(|(variant, code)| {
        let variant = variant.trim().strip_prefix("Self::").unwrap();
        let end = variant.find(|c: char| !c.is_alphanumeric());
        let (code, _) = code.split_once('"').unwrap();
        (code, &variant[..end.unwrap_or(variant.len())])
    });
    arms.collect()
}
