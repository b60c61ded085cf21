//! What must not stand in the sources: unfinished work, silenced tests, rooms without a name.

use crate::finding::Finding;
use crate::tree::Tree;

/// Kept in halves, so that this file passes its own check.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];
const SILENCED: &[&str] = &[concat!("#[ig", "nore"), concat!("assert!", "(true)")];
const UNDOCUMENTED: &[&str] = &[
    concat!("expect(missing", "_docs"),
    concat!("allow(missing", "_docs"),
];
const NAMELESS: &[&str] = &["utils", "common", "helpers", "prelude"];
const READ: &[&str] = &[
    ".rs", ".md", ".toml", ".sh", ".sql", ".py", ".js", ".html", "justfile",
];

/// Reads every source and page for them.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        if !READ.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(says) = judge(line, path.ends_with(".rs")) {
                findings.push(Finding::at(path, number + 1, says));
            }
        }
        let module = path
            .strip_suffix("/mod.rs")
            .or_else(|| path.strip_suffix(".rs"));
        let module = module.and_then(|path| path.rsplit('/').next());
        if let Some(name) = module.filter(|name| NAMELESS.contains(name)) {
            findings.push(Finding::new(
                path,
                format!("name it for what it does, not `{name}`"),
            ));
        }
    }
    findings
}

fn judge(line: &str, is_rust: bool) -> Option<String> {
    let word = UNFINISHED.iter().find(|word| has_word(line, word));
    if let Some(word) = word {
        return Some(format!("finish it or take it out: {word}"));
    }
    if !is_rust {
        return None;
    }
    if let Some(found) = SILENCED.iter().find(|found| line.contains(**found)) {
        return Some(format!("a test must be able to fail: {found}"));
    }
    if UNDOCUMENTED.iter().any(|found| line.contains(found)) {
        return Some("document it instead".to_owned());
    }
    let module = line
        .trim_start()
        .split("mod ")
        .nth(1)?
        .trim_end_matches([';', '{', ' ']);
    let named = NAMELESS.contains(&module) && !line.trim_start().starts_with("//");
    named.then(|| format!("name it for what it does, not `{module}`"))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line
            .get(at + word.len()..)
            .and_then(|text| text.chars().next());
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joins(before) && !joins(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    fn says(path: &str, text: &str) -> Vec<String> {
        lines(&check(&Tree::of(&[(path, text)])))
    }

    #[test]
    fn unfinished_work_is_reported_in_code_and_pages() {
        for word in UNFINISHED {
            let text = format!("fine\n// {word}: later\n");
            assert_eq!(
                says("a.rs", &text),
                [format!("a.rs:2: finish it or take it out: {word}")]
            );
            assert_eq!(says("a.md", &text).len(), 1);
        }
        assert!(says("a.rs", concat!("let m", "XX", "X = 1;")).is_empty());
    }

    #[test]
    fn silenced_tests_are_reported() {
        for silenced in SILENCED {
            assert_eq!(says("a.rs", silenced).len(), 1, "{silenced}");
        }
    }

    #[test]
    fn undocumented_items_are_reported() {
        for way in UNDOCUMENTED {
            assert_eq!(
                says("a.rs", &format!("#[{way}, reason = \"\")]")).len(),
                1,
                "{way}"
            );
        }
    }

    #[test]
    fn rooms_without_a_name_are_reported() {
        assert_eq!(says("lib.rs", "mod utils;").len(), 1);
        assert_eq!(says("lib.rs", "pub(crate) mod helpers {").len(), 1);
        assert_eq!(says("src/common.rs", "").len(), 1);
        assert_eq!(says("tests/common/mod.rs", "").len(), 1);
        assert!(says("lib.rs", "mod commons;\n// mod utils;").is_empty());
    }
}
