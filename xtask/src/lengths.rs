//! Files and functions stay short. Clippy counts functions; this counts files and guards clippy.

use crate::finding::Finding;
use crate::tree::{Tree, without_tests};

/// Lines of a Rust file, its test module not counted.
const FILE_LINES_MAX: usize = 600;

const THRESHOLD: &str = "too-many-lines-threshold = 70";

/// Reports long files, and every way around clippy's count of function lines.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let lines = without_tests(text).lines().count();
        if lines > FILE_LINES_MAX {
            let says = format!("{lines} lines without tests; split it at {FILE_LINES_MAX}");
            findings.push(Finding::new(path, says));
        }
        for (number, line) in text.lines().enumerate() {
            if line.contains(concat!("(clippy::too_many", "_lines")) {
                findings.push(Finding::at(path, number + 1, "split the function instead"));
            }
        }
    }
    if tree.text("clippy.toml").is_none() {
        findings.push(Finding::new("clippy.toml", "missing"));
    }
    // A crate's own clippy.toml replaces the one above it whole.
    for (path, text) in tree
        .files()
        .filter(|(path, _)| path.ends_with("clippy.toml"))
    {
        if !text.lines().any(|line| line == THRESHOLD) {
            findings.push(Finding::new(path, format!("say `{THRESHOLD}`")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    fn tree(rust: &str) -> Tree {
        Tree::of(&[("clippy.toml", THRESHOLD), ("crates/bus/src/lib.rs", rust)])
    }

    #[test]
    fn a_file_of_601_lines_is_reported_and_one_of_600_is_not() {
        assert!(check(&tree(&"//\n".repeat(600))).is_empty());
        let said = lines(&check(&tree(&"//\n".repeat(601))));
        assert_eq!(
            said,
            ["crates/bus/src/lib.rs: 601 lines without tests; split it at 600"]
        );
    }

    #[test]
    fn tests_at_the_foot_are_not_counted() {
        let foot = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "//\n".repeat(900));
        assert!(check(&tree(&foot)).is_empty());
    }

    #[test]
    fn a_function_let_off_is_reported() {
        let rust = concat!(
            "fn a() {}\n#[expect(clippy::too_many",
            "_lines, reason = \"\")]\n"
        );
        assert_eq!(
            lines(&check(&tree(rust))),
            ["crates/bus/src/lib.rs:2: split the function instead"]
        );
    }

    #[test]
    fn a_missing_or_raised_threshold_is_reported() {
        assert_eq!(check(&Tree::of(&[])).len(), 1);
        let raised = [
            ("clippy.toml", THRESHOLD),
            ("crates/sim/clippy.toml", "msrv = \"1\""),
        ];
        assert_eq!(
            lines(&check(&Tree::of(&raised))),
            [format!("crates/sim/clippy.toml: say `{THRESHOLD}`")]
        );
    }
}
