//! Every package that cargo could build, on any platform, has a licence we accept.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::finding::Finding;
use crate::tree::Tree;

/// The licences we accept. `deny.toml` holds the same list.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "BlueOak-1.0.0", "CC0-1.0",
    "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
];

/// Compares the licences of all packages, and the list in `deny.toml`, with [`ALLOWED`].
pub(crate) fn check(metadata: &Value, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let says = match package["license"]
            .as_str()
            .map(|text| (text, accepts(text)))
        {
            Some((_, Some(true))) => continue,
            Some((text, Some(false))) => format!("we do not accept its licence: {text}"),
            Some((text, None)) => format!("cannot read its licence: {text}"),
            None => "states no licence".to_owned(),
        };
        findings.push(Finding::new(name, says));
    }
    let listed: BTreeSet<&str> = allow_list(tree.text("deny.toml").unwrap_or_default());
    if listed != ALLOWED.iter().copied().collect() {
        let says = "its licences differ from those of xtask/src/licences.rs";
        findings.push(Finding::new("deny.toml", says));
    }
    findings
}

fn allow_list(deny: &str) -> BTreeSet<&str> {
    let after = deny
        .split_once("\nallow = [")
        .map_or("", |(_, after)| after);
    let list = after.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression can be met with [`ALLOWED`]; `None` if it cannot be read.
fn accepts(expression: &str) -> Option<bool> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words };
    let accepted = reader.any()?;
    reader.words.is_empty().then_some(accepted)
}

struct Reader<'a> {
    words: &'a [&'a str],
}

impl Reader<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut accepted = self.all()?;
        while self.next_is("OR") {
            accepted |= self.all()?;
        }
        Some(accepted)
    }

    fn all(&mut self) -> Option<bool> {
        let mut accepted = self.one()?;
        while self.next_is("AND") {
            accepted &= self.one()?;
        }
        Some(accepted)
    }

    fn one(&mut self) -> Option<bool> {
        if self.next_is("(") {
            let accepted = self.any()?;
            return self.next_is(")").then_some(accepted);
        }
        let (licence, rest) = self.words.split_first()?;
        if matches!(*licence, "OR" | "AND" | "WITH" | ")") {
            return None;
        }
        self.words = rest;
        // An exception only ever permits more than the licence alone.
        if self.next_is("WITH") {
            let (_, rest) = self.words.split_first()?;
            self.words = rest;
        }
        Some(ALLOWED.contains(licence))
    }

    fn next_is(&mut self, word: &str) -> bool {
        let Some((_, rest)) = self.words.split_first().filter(|(next, _)| **next == word) else {
            return false;
        };
        self.words = rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::lines;

    fn deny(list: &[&str]) -> Tree {
        let quoted: Vec<String> = list.iter().map(|name| format!("    \"{name}\",")).collect();
        let text = format!("[licenses]\nallow = [\n{}\n]\n", quoted.join("\n"));
        Tree::of(&[("deny.toml", &text)])
    }

    #[test]
    fn expressions_are_read_as_spdx_says() {
        assert_eq!(accepts("MIT/Apache-2.0"), Some(true));
        assert_eq!(accepts("GPL-3.0-only OR MIT"), Some(true));
        assert_eq!(accepts("GPL-3.0-only AND MIT"), Some(false));
        assert_eq!(accepts("MIT OR GPL-3.0-only AND LGPL-2.1"), Some(true));
        assert_eq!(accepts("(MIT OR GPL-3.0-only) AND LGPL-2.1"), Some(false));
        assert_eq!(
            accepts("Apache-2.0 WITH LLVM-exception AND (ISC)"),
            Some(true)
        );
        for unreadable in [
            "",
            "MIT OR",
            "(MIT",
            "MIT Apache-2.0",
            "MIT)",
            "AND",
            "MIT WITH",
        ] {
            assert_eq!(accepts(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn a_package_under_the_wrong_licence_or_none_is_reported() {
        let metadata = json!({ "packages": [
            { "name": "good", "license": "MIT" },
            { "name": "copyleft", "license": "AGPL-3.0-only" },
            { "name": "silent", "license": null },
            { "name": "odd", "license": "MIT AND" },
        ]});
        let said = lines(&check(&metadata, &deny(ALLOWED)));
        assert_eq!(
            said,
            [
                "copyleft: we do not accept its licence: AGPL-3.0-only",
                "silent: states no licence",
                "odd: cannot read its licence: MIT AND",
            ]
        );
    }

    #[test]
    fn two_lists_that_differ_are_reported() {
        let metadata = json!({ "packages": [] });
        assert!(check(&metadata, &deny(ALLOWED)).is_empty());
        assert_eq!(check(&metadata, &deny(&ALLOWED[1..])).len(), 1);
        assert_eq!(check(&metadata, &Tree::default()).len(), 1);
    }
}
