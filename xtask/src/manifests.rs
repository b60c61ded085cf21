//! Every crate takes its lints, its package fields and its dependencies from the workspace.

use crate::finding::Finding;
use crate::tree::Tree;

/// Lines that each crate's manifest must have, by section.
const INHERITED: &[(&str, &[&str])] = &[
    (
        "[package]",
        &[
            "version.workspace = true",
            "edition.workspace = true",
            "rust-version.workspace = true",
            "license.workspace = true",
            "publish.workspace = true",
        ],
    ),
    ("[lints]", &["workspace = true"]),
];

/// Lints of the root manifest that other checks and promises lean on.
const LINTS: &[&str] = &[
    "unsafe_code = \"forbid\"",
    "missing_docs = \"deny\"",
    "unwrap_used = \"deny\"",
    "expect_used = \"deny\"",
    "panic = \"deny\"",
    "allow_attributes = \"deny\"",
    "too_many_lines = \"deny\"",
];

/// Crates that the compiler itself keeps from clocks, files and sockets.
const WITHOUT_STD: &[&str] = &["protocol", "engine"];

/// The crates that may hold unsafe code, since neither a file system of SQLite, which is for tests, nor a
/// call of the C library can be written without. They have every lint of the workspace, and deny what the
/// others forbid, so that the code that needs it has to say so.
const WITH_UNSAFE: &[&str] = &["crates/crash/Cargo.toml", "crates/heap/Cargo.toml"];
const UNSAFE_DENIED: &str = "unsafe_code = \"deny\"";

/// Reads the root manifest and those of the crates.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let root_text = tree.text("Cargo.toml").unwrap_or_default();
    let mut findings = root(root_text);
    for (path, text) in tree.files() {
        let below = path.starts_with("crates/") || path.starts_with("xtask/");
        if below && path.ends_with("/Cargo.toml") {
            let lints = WITH_UNSAFE.contains(&path).then(|| own_lints(root_text));
            findings.extend(member(path, text, lints));
        }
    }
    for name in WITHOUT_STD {
        let path = format!("crates/{name}/src/lib.rs");
        let text = tree.text(&path).unwrap_or_default();
        let named_back = text.replace("#[cfg(test)]\nextern crate std;", "");
        let has_std = named_back.contains("extern crate std");
        if has_std || !text.lines().any(|line| line == "#![no_std]") {
            findings.push(Finding::new(
                path,
                "say `#![no_std]`: it must be repeatable",
            ));
        }
    }
    findings
}

fn root(text: &str) -> Vec<Finding> {
    let missing = LINTS
        .iter()
        .filter(|lint| !text.lines().any(|line| line == **lint));
    let mut findings: Vec<Finding> = missing
        .map(|lint| Finding::new("Cargo.toml", format!("say `{lint}`")))
        .collect();
    let mut has_reason = false;
    for (number, section, line) in sectioned(text) {
        if line.starts_with('#') || line.is_empty() {
            has_reason = !line.is_empty();
        } else if section == "[workspace.dependencies]" && !has_reason && names_outside(line) {
            let says = "say above it, in a comment, what it is for";
            findings.push(Finding::at("Cargo.toml", number, says));
        }
    }
    findings
}

fn names_outside(line: &str) -> bool {
    let begins_entry = line.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins_entry && !line.contains("path = ")
}

/// The lints of the workspace, as a crate states them that inherits none.
fn own_lints(root: &str) -> Vec<(String, String)> {
    let lints = sectioned(root).filter_map(|(_, section, line)| {
        let section = section.strip_prefix("[workspace.lints.")?;
        let line = match line {
            "unsafe_code = \"forbid\"" => UNSAFE_DENIED,
            line => line,
        };
        (!line.is_empty() && !line.starts_with('#'))
            .then(|| (format!("[lints.{section}"), line.to_owned()))
    });
    lints.collect()
}

/// Reads the manifest of a crate, which states `own_lints` or else inherits those of the workspace.
fn member(path: &str, text: &str, own_lints: Option<Vec<(String, String)>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let inherited = INHERITED
        .iter()
        .filter(|(section, _)| own_lints.is_none() || *section != "[lints]");
    for (section, wanted) in own_lints.iter().flatten() {
        if !sectioned(text).any(|(_, s, line)| s == section && line == wanted) {
            findings.push(Finding::new(path, format!("say `{wanted}` in {section}")));
        }
    }
    for (section, lines) in inherited {
        for wanted in *lines {
            if !sectioned(text).any(|(_, s, line)| s == *section && line == *wanted) {
                findings.push(Finding::new(path, format!("say `{wanted}` in {section}")));
            }
        }
    }
    for (number, section, line) in sectioned(text) {
        let outside = section.ends_with("dependencies]") && names_outside(line);
        if outside && !line.contains("workspace = true") {
            let says = "name it in the root's [workspace.dependencies] and inherit it";
            findings.push(Finding::at(path, number, says));
        }
    }
    findings
}

/// Each line that is not a section's head, with its number and its section.
fn sectioned(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(number, line)| {
        if line.starts_with('[') {
            section = line.trim_end();
            return None;
        }
        Some((number + 1, section, line.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    const MEMBER: &str = "[package]\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\n\
        [lints]\nworkspace = true\n\n[dependencies]\nblake3.workspace = true\n";

    #[test]
    fn a_manifest_that_inherits_everything_is_fine() {
        assert!(member("a", MEMBER, None).is_empty());
    }

    #[test]
    fn each_field_not_inherited_is_reported() {
        for (_, wanted) in INHERITED {
            for line in *wanted {
                let planted = MEMBER.replace(&format!("\n{line}\n"), "\n");
                assert_eq!(member("a", &planted, None).len(), 1, "{line}");
            }
        }
    }

    #[test]
    fn a_crate_with_lints_of_its_own_lacks_none_and_forbids_or_denies_unsafe_code() {
        let root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"deny\"\n";
        let says = |lints: &str| {
            let text = MEMBER.replace("[lints]\nworkspace = true\n", lints);
            lines(&member("a", &text, Some(own_lints(root))))
        };
        let whole = format!("[lints.rust]\n{UNSAFE_DENIED}\nmissing_docs = \"deny\"\n");
        assert_eq!(says(&whole), [""; 0]);
        for line in [UNSAFE_DENIED, "missing_docs = \"deny\""] {
            let said = [format!("a: say `{line}` in [lints.rust]")];
            assert_eq!(says(&whole.replace(&format!("{line}\n"), "")), said);
        }
    }

    #[test]
    fn a_version_in_a_crate_is_reported() {
        let planted = format!("{MEMBER}\n[dev-dependencies]\nrand = \"1\"\n");
        assert!(lines(&member("a", &planted, None))[0].contains("inherit it"));
    }

    #[test]
    fn a_dependency_without_a_reason_is_reported() {
        let lints = LINTS.join("\n");
        let text = "[workspace.dependencies]\nours = { path = \"crates/ours\" }\n\n\
            # Digests.\nblake3 = \"1\"\nsha2 = \"1\"\n\nbech32 = \"1\"\n";
        assert_eq!(
            lines(&root(&format!("{text}\n[lints]\n{lints}\n"))),
            ["Cargo.toml:8: say above it, in a comment, what it is for"]
        );
    }

    #[test]
    fn a_lint_turned_off_is_reported() {
        let lints = LINTS
            .join("\n")
            .replace("missing_docs = \"deny\"", "missing_docs = \"warn\"");
        assert_eq!(
            lines(&root(&lints)),
            ["Cargo.toml: say `missing_docs = \"deny\"`"]
        );
    }

    #[test]
    fn an_engine_with_std_is_reported() {
        let says = |engine: &str| {
            lines(&check(&Tree::of(&[
                ("Cargo.toml", &LINTS.join("\n")),
                ("crates/engine/src/lib.rs", engine),
                ("crates/protocol/src/lib.rs", "#![no_std]\n"),
            ])))
        };
        let said = ["crates/engine/src/lib.rs: say `#![no_std]`: it must be repeatable"];
        assert_eq!(says("//! Machines.\n"), said);
        assert_eq!(says("#![no_std]\nextern crate std;\n"), said);
        assert_eq!(
            says("#![no_std]\n#[cfg(test)]\nextern crate std;\n"),
            [""; 0]
        );
    }
}
