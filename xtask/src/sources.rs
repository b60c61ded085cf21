//! Formats and their specification change together.
//!
//! `spec/.sources` records a digest of each source file that makes or reads what rests or travels.
//! When a file differs, whoever changed it rereads `spec/` and says so with `tidy --bless`.

use std::fmt::Write as _;

use crate::finding::Finding;
use crate::tree::{Tree, without_tests};

/// Where the digests are recorded.
pub(crate) const RECORD: &str = "spec/.sources";

const WATCHED: &[&str] = &["crates/crypto/src/", "crates/protocol/src/"];

/// Compares the sources with the record.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let recorded = tree.text(RECORD).unwrap_or_default();
    let now = record(tree);
    let new = now
        .lines()
        .filter(|line| !recorded.lines().any(|old| old == *line));
    let gone = recorded.lines().filter(|old| !has_path(&now, path_of(old)));
    let changed: Vec<&str> = new.chain(gone).map(path_of).collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let says = format!(
        "changed: {}. Reread spec/, add a vector or a sentence if a format changed, then run \
         `cargo xtask tidy --bless`",
        changed.join(", ")
    );
    vec![Finding::new(RECORD, says)]
}

/// The record as it should be now: one line per file, digest and path.
pub(crate) fn record(tree: &Tree) -> String {
    let mut text = String::new();
    for (path, source) in tree.rust() {
        let is_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
        if !is_tests && WATCHED.iter().any(|folder| path.starts_with(folder)) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:016x} {path}", digest(without_tests(source)));
        }
    }
    text
}

fn path_of(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, path)| path)
}

fn has_path(record: &str, path: &str) -> bool {
    record.lines().any(|line| path_of(line) == path)
}

/// FNV-1a over the code, comments and layout left out. It notices changes; it resists nobody.
fn digest(source: &str) -> u64 {
    let code = source
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"));
    let bytes = code.flat_map(|line| line.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    const CODE: &str = "/// Docs.\nconst LABEL: &str = \"a\";\n";

    fn says(now: &[(&str, &str)]) -> Vec<String> {
        let blessed = Tree::of(&[("crates/crypto/src/tree.rs", CODE)]);
        let recorded = record(&blessed);
        let mut files = now.to_vec();
        files.push((RECORD, &recorded));
        lines(&check(&Tree::of(&files)))
    }

    #[test]
    fn a_changed_label_asks_for_the_spec_to_be_reread() {
        let said = says(&[("crates/crypto/src/tree.rs", &CODE.replace("\"a\"", "\"b\""))]);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("spec/.sources: changed: crates/crypto/src/tree.rs. Reread"));
    }

    #[test]
    fn a_new_or_lost_file_asks_too() {
        let new = ("crates/protocol/src/v1/grant.rs", CODE);
        assert_eq!(says(&[("crates/crypto/src/tree.rs", CODE), new]).len(), 1);
        assert_eq!(says(&[]).len(), 1);
    }

    #[test]
    fn comments_layout_tests_and_other_crates_do_not() {
        let same = "const LABEL: &str =\n    \"a\";\n#[cfg(test)]\nmod tests {}\n";
        let tests = ("crates/crypto/src/tree/tests.rs", "fn a() {}");
        let other = ("crates/bus/src/lib.rs", "fn a() {}");
        assert_eq!(
            says(&[("crates/crypto/src/tree.rs", same), tests, other]),
            [""; 0]
        );
    }
}
