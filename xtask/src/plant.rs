//! `cargo xtask plant`: takes one defence out at a time and sees a test fail.
//!
//! A fault is a file of `xtask/plants/`: what it is, which test catches it, and the lines of a source
//! that it replaces, or of several where a defence has several layers. `tidy` sees that each still fits the sources; this chore works in a copy
//! of the tree with a target folder of its own, so that no planted program is ever taken for a real
//! one.

mod page;
mod tree;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::finding::Finding;
use crate::tree::Tree;
use tree::{Copy, Outcome};

pub(crate) use page::{PAGE, rewritten};

const FOLDER: &str = "xtask/plants/";

/// A fault that can be planted.
#[derive(Debug)]
struct Plant<'a> {
    /// The file that describes it, without folder and ending.
    name: &'a str,
    /// The fault of `spec/faults.md` that it is, if it is one of those.
    fault: Option<u32>,
    /// What is wrong once it is planted.
    says: &'a str,
    /// The arguments of `cargo test` that run what catches it.
    caught: &'a str,
    parts: Vec<Part<'a>>,
}

/// Lines of a source, which stand there once, and what stands there instead.
#[derive(Debug)]
struct Part<'a> {
    path: &'a str,
    old: String,
    new: String,
}

impl<'a> Plant<'a> {
    fn parse(path: &'a str, text: &'a str) -> anyhow::Result<Self> {
        let name = path.strip_prefix(FOLDER).unwrap_or(path);
        let head = |key: &str| {
            let mut lines = text.lines().take_while(|line| !line.is_empty());
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        let need = |key: &str| head(key).with_context(|| format!("it has no line `{key}: `"));
        let fault = head("fault").map(str::parse).transpose();
        let parts = text.split("\nin: ").skip(1).map(Part::parse);
        let plant = Self {
            name: name.strip_suffix(".plant").unwrap_or(name),
            fault: fault.context("a fault is a number")?,
            says: need("says")?,
            caught: need("caught")?,
            parts: parts.collect::<anyhow::Result<_>>()?,
        };
        ensure!(!plant.parts.is_empty(), "it has no line `in: `");
        Ok(plant)
    }
}

impl<'a> Part<'a> {
    fn parse(text: &'a str) -> anyhow::Result<Self> {
        let side = |mark: char| -> String {
            let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
            lines.map(|line| format!("{line}\n")).collect()
        };
        let part = Self {
            path: text.lines().next().unwrap_or_default(),
            old: side('-'),
            new: side('+'),
        };
        ensure!(!part.old.is_empty(), "it replaces nothing");
        Ok(part)
    }

    /// The source with the fault in it.
    fn planted(&self, source: &str) -> anyhow::Result<String> {
        let count = source.matches(&self.old).count();
        ensure!(
            count == 1,
            "what it replaces stands {count} times in {}, not once",
            self.path
        );
        Ok(source.replacen(&self.old, &self.new, 1))
    }
}

/// All of them, in order of name; what cannot be read comes with its reason.
fn plants(tree: &Tree) -> impl Iterator<Item = (&str, anyhow::Result<Plant<'_>>)> {
    let files = tree.files().filter(|(path, _)| path.starts_with(FOLDER));
    files.map(|(path, text)| (path, Plant::parse(path, text)))
}

/// Reports what cannot be planted any more, and a page that does not list what can.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, plant) in plants(tree) {
        let fits = plant.and_then(|plant| {
            plant.parts.iter().try_for_each(|part| {
                let source = tree.text(part.path);
                let source = source.with_context(|| format!("there is no {}", part.path))?;
                part.planted(source).map(drop)
            })
        });
        if let Err(error) = fits {
            findings.push(Finding::new(path, error.to_string()));
        }
    }
    if tree.text(PAGE) != Some(rewritten(tree).as_str()) {
        let says = "does not list the faults of xtask/plants/; run `cargo xtask tidy --bless`";
        findings.push(Finding::new(PAGE, says));
    }
    findings
}

/// Plants those whose names begin with one of these words, all where there is none, and fails
/// unless each is caught.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    let mut picked = Vec::new();
    for (path, plant) in plants(&tree) {
        let plant = plant.with_context(|| path.to_owned())?;
        if words.is_empty() || words.iter().any(|word| plant.name.starts_with(word)) {
            picked.push(plant);
        }
    }
    ensure!(!picked.is_empty(), "no fault is named so in {FOLDER}");
    let copy = Copy::make(root, &root.join("target/plants"))?;
    let mut tests: Vec<&str> = picked.iter().map(|plant| plant.caught).collect();
    tests.sort_unstable();
    tests.dedup();
    for test in tests {
        let outcome = copy.test(test)?;
        let passes = matches!(outcome, Outcome::Passed);
        ensure!(passes, "it must pass without any fault: {test}");
        println!("passes without any fault: {test}");
    }
    let mut missed = Vec::new();
    for plant in &picked {
        let outcome = plant_in(&copy, plant)?;
        println!("{:<44} {}", plant.name, outcome.says());
        if !outcome.is_caught() {
            missed.push(plant.name);
        }
    }
    println!("{} of {} caught", picked.len() - missed.len(), picked.len());
    ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    Ok(())
}

/// The sources are put back whatever happens: the copy serves the next fault too.
fn plant_in(copy: &Copy, plant: &Plant<'_>) -> anyhow::Result<Outcome> {
    let mut whole = Vec::new();
    for part in &plant.parts {
        let path = copy.path(part.path);
        let source = fs::read_to_string(&path).with_context(|| part.path.to_owned())?;
        fs::write(&path, part.planted(&source)?)?;
        whole.push((path, source));
    }
    let outcome = copy.test(plant.caught);
    for (path, source) in whole.into_iter().rev() {
        fs::write(&path, source)?;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    const PLANT: &str = "\
fault: 6
says: Twice two is five.
caught: -p sums --lib
in: crates/sums/src/lib.rs

-    2 * 2
+    5
";

    fn tree(source: &str, plant: &str) -> Tree {
        let files = [
            ("crates/sums/src/lib.rs", source),
            ("xtask/plants/twice-two.plant", plant),
        ];
        let page = rewritten(&Tree::of(&files));
        Tree::of(&[files[0], files[1], (PAGE, &page)])
    }

    #[test]
    fn what_a_fault_replaces_must_stand_there_once() {
        let once = tree("fn four() {\n    2 * 2\n}\n", PLANT);
        assert!(check(&once).is_empty());
        let plants: Vec<_> = plants(&once).map(|(_, plant)| plant.unwrap()).collect();
        assert_eq!(plants[0].name, "twice-two");
        assert_eq!(
            plants[0].parts[0]
                .planted("fn four() {\n    2 * 2\n}\n")
                .unwrap(),
            "fn four() {\n    5\n}\n"
        );
        for (source, count) in [("", 0), ("    2 * 2\n    2 * 2\n", 2)] {
            let said = lines(&check(&tree(source, PLANT)));
            let expected = format!(
                "xtask/plants/twice-two.plant: what it replaces stands {count} times in \
                 crates/sums/src/lib.rs, not once"
            );
            assert_eq!(said, [expected]);
        }
    }

    #[test]
    fn a_fault_that_does_not_say_what_catches_it_is_reported() {
        let said = lines(&check(&tree("", "says: x\nin: y\n\n-z\n")));
        assert_eq!(
            said,
            ["xtask/plants/twice-two.plant: it has no line `caught: `"]
        );
    }

    #[test]
    fn the_page_lists_every_fault() {
        let mut files = vec![("xtask/plants/twice-two.plant", PLANT)];
        let tree = Tree::of(&files);
        assert_eq!(check(&tree).len(), 2, "no source and no page");
        let page = rewritten(&tree);
        assert!(
            page.contains("| twice-two | 6 | Twice two is five. |"),
            "{page}"
        );
        files.push((PAGE, "an older page"));
        assert_eq!(check(&Tree::of(&files)).len(), 2);
    }
}
