//! The faults that must never be ours, and the tests that hold them off.
//!
//! A test cites a fault in its name (`fault_7_...`) or its doc comment (`fault 7`, `faults 7 and
//! 9`); a test file in its module docs, for all of its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::finding::Finding;
use crate::tree::Tree;

/// The page that numbers them.
pub(crate) const PAGE: &str = "spec/faults.md";

/// How many there are.
const COUNT: u32 = 24;

/// Those that must have a test.
#[rustfmt::skip]
const HELD_OFF: &[u32] = &[1, 2, 4, 5, 6, 7, 11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];

/// Fault to `path:line name` of the tests that cite it.
type Cited = BTreeMap<u32, BTreeSet<(String, usize, String)>>;

/// Prints every fault with its tests.
pub(crate) fn print(root: &Path) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    let cited = scan(&tree);
    for (number, title, _) in rows(tree.text(PAGE).unwrap_or_default()) {
        let tests = cited.get(&number);
        let mark = match tests {
            Some(_) => "held off",
            None if HELD_OFF.contains(&number) => "NO TEST",
            None => "no test yet",
        };
        println!("{number:>2} {mark:<11} {title}");
        for (path, line, name) in tests.into_iter().flatten() {
            println!("               {path}:{line} {name}");
        }
    }
    Ok(())
}

/// Reports a page that does not number the faults, or whose last column is not what the tests say.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let page = tree.text(PAGE).unwrap_or_default();
    let numbers: Vec<u32> = rows(page).map(|(number, ..)| number).collect();
    if numbers != (1..=COUNT).collect::<Vec<_>>() {
        let says = format!("must have one row for each of the {COUNT} faults, in order");
        findings.push(Finding::new(PAGE, says));
    }
    let cited = scan(tree);
    for (number, tests) in cited
        .iter()
        .filter(|(number, _)| !(1..=COUNT).contains(*number))
    {
        for (path, line, _) in tests {
            findings.push(Finding::at(
                path,
                *line,
                format!("there is no fault {number}"),
            ));
        }
    }
    let bare = HELD_OFF.iter().filter(|number| !cited.contains_key(number));
    findings.extend(bare.map(|number| {
        Finding::new(
            PAGE,
            format!("no test cites fault {number}; write one that can fail"),
        )
    }));
    if page != rewritten(tree) {
        let says = "its column of tests is out of date; run `cargo xtask tidy --bless`";
        findings.push(Finding::new(PAGE, says));
    }
    findings
}

/// The page with its last column made anew from the tests.
pub(crate) fn rewritten(tree: &Tree) -> String {
    let cited = scan(tree);
    let mut text = String::new();
    for line in tree.text(PAGE).unwrap_or_default().lines() {
        match row(line).and_then(|(number, _, rest)| Some((number, line.strip_suffix(rest)?))) {
            Some((number, kept)) => {
                text.push_str(&format!("{kept} {} |", column(cited.get(&number))));
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn column(tests: Option<&BTreeSet<(String, usize, String)>>) -> String {
    let paths: BTreeSet<&str> = tests
        .into_iter()
        .flatten()
        .map(|(path, ..)| path.as_str())
        .collect();
    if paths.is_empty() {
        return "none yet".to_owned();
    }
    let links = paths.iter().map(|path| {
        let short = path.strip_prefix("crates/").unwrap_or(path);
        format!(
            "[{}](../{path})",
            short.replace("/src/", "/").replace("/tests/", "/")
        )
    });
    links.collect::<Vec<_>>().join(", ")
}

/// Number, title and last cell of each row `| 7 | title | defence | tests |`.
fn rows(page: &str) -> impl Iterator<Item = (u32, &str, &str)> {
    page.lines().filter_map(row)
}

fn row(line: &str) -> Option<(u32, &str, &str)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let number = cells.next()?.trim().parse().ok()?;
    let title = cells.next()?.trim();
    let tests = line.strip_suffix(" |")?.rfind(" | ")?;
    Some((number, title, line.get(tests + 2..)?))
}

/// Reads every source file for tests that cite a fault.
fn scan(tree: &Tree) -> Cited {
    let mut cited = Cited::new();
    for (path, text) in tree.rust().filter(|(path, _)| path.starts_with("crates/")) {
        scan_file(path, text, &mut cited);
    }
    // Command-line cases are tests too; what they hold off stands in their comments.
    let cases = tree.files().filter(|(path, _)| path.contains("/tests/"));
    for (path, text) in cases.filter(|(path, _)| !path.ends_with(".rs")) {
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.starts_with('#'))
        {
            for fault in numbers_in(line) {
                let place = (path.to_owned(), number + 1, String::new());
                cited.entry(fault).or_default().insert(place);
            }
        }
    }
    cited
}

fn scan_file(path: &str, text: &str, cited: &mut Cited) {
    let in_suite = path.contains("/tests/") || path.contains("conformance");
    let mut docs = String::new();
    let mut is_test = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let mut cite = |text: &str, name: &str| {
            for fault in numbers_in(text) {
                let place = (path.to_owned(), number + 1, name.to_owned());
                cited.entry(fault).or_default().insert(place);
            }
        };
        if line.starts_with("//!") && in_suite {
            cite(line, "");
        } else if line.starts_with("///") {
            docs.push_str(line.trim_start_matches('/'));
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.contains("::test");
        } else if !line.starts_with("//") {
            if let Some(name) = function_name(line).filter(|_| is_test || in_suite) {
                cite(&format!("{docs} {name}"), name);
            }
            docs.clear();
            is_test = false;
        }
    }
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualified = [
        "",
        "async ",
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "pub async ",
    ];
    qualified
        .contains(&before)
        .then(|| after.split(['(', '<']).next())?
}

/// The numbers after each `fault` or `faults` of a text: `fault_7`, `faults 7, 9 and 12`.
fn numbers_in(text: &str) -> Vec<u32> {
    let text = text.to_lowercase();
    let mut numbers = Vec::new();
    for (at, _) in text.match_indices("fault") {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        if before.is_some_and(char::is_alphabetic) {
            continue;
        }
        let rest = text.get(at + "fault".len()..).unwrap_or_default();
        let words = rest
            .strip_prefix('s')
            .unwrap_or(rest)
            .split([' ', '_', ',', '-', '/']);
        for word in words.filter(|word| !matches!(*word, "" | "and")) {
            let number = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            let Ok(found) = number.parse() else {
                break;
            };
            numbers.push(found);
            if number != word {
                break;
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    fn page(column: &str) -> String {
        let rows = (1..=COUNT).map(|n| format!("| {n} | Bad. | Good. | {column} |\n"));
        format!(
            "# Faults\n\n| # | fault | defence | tests |\n|---|---|---|---|\n{}",
            rows.collect::<String>()
        )
    }

    fn cited(rust: &str) -> Vec<u32> {
        scan(&Tree::of(&[("crates/a/src/lib.rs", rust)]))
            .into_keys()
            .collect()
    }

    #[test]
    fn numbers_follow_the_word_and_end_with_the_list() {
        assert_eq!(numbers_in("fault_7_is_held_off"), [7]);
        assert_eq!(
            numbers_in("/// Faults 7, 9 and 12: none of 30 opens."),
            [7, 9, 12]
        );
        assert_eq!(numbers_in("the default 4, a fault of 5"), [0; 0]);
        assert_eq!(numbers_in("(fault 3) 4"), [3]);
    }

    #[test]
    fn only_a_test_counts() {
        assert_eq!(cited("/// Keeps fault 7 off.\nfn open() {}\n"), [0; 0]);
        assert_eq!(cited("    /// Fault 7.\n    #[test]\n    fn a() {}\n"), [7]);
        assert_eq!(
            cited("/// Faults 7\n/// and 9.\n#[test]\nfn a() {}\n"),
            [7, 9]
        );
        assert_eq!(cited("#[tokio::test]\nasync fn fault_9_b() {}\n"), [9]);
        assert_eq!(
            cited("/// Fault 7.\nstruct A;\n#[test]\nfn b() {}\n"),
            [0; 0]
        );
    }

    #[test]
    fn a_suite_and_a_command_line_case_count() {
        let tree = Tree::of(&[
            ("crates/a/tests/replay.rs", "//! Fault 20.\n"),
            (
                "crates/a/src/conformance.rs",
                "/// Fault 16.\nfn keeps_all() {}\n",
            ),
            ("crates/cli/tests/cmd/refuses.toml", "# fault 7\n"),
        ]);
        assert_eq!(scan(&tree).into_keys().collect::<Vec<_>>(), [7, 16, 20]);
    }

    #[test]
    fn a_missing_row_and_an_unknown_number_are_reported() {
        let page = page("none yet").replace("| 3 | Bad. | Good. | none yet |\n", "");
        let test = "#[test]\nfn fault_25_x() {}\n";
        let tree = Tree::of(&[(PAGE, &page), ("crates/a/src/lib.rs", test)]);
        let said = lines(&check(&tree));
        assert!(said[0].contains("one row for each"), "{said:?}");
        assert_eq!(said[1], "crates/a/src/lib.rs:2: there is no fault 25");
    }

    #[test]
    fn a_fault_without_a_test_is_reported() {
        let text = page("none yet");
        let mut files = vec![(PAGE, text.as_str())];
        assert_eq!(check(&Tree::of(&files)).len(), HELD_OFF.len());
        files.push(("crates/a/src/lib.rs", "#[test]\nfn fault_7_x() {}\n"));
        let said = lines(&check(&Tree::of(&files)));
        assert!(
            !said.iter().any(|line| line.contains("fault 7;")),
            "{said:?}"
        );
        assert!(
            said.iter().any(|line| line.contains("out of date")),
            "{said:?}"
        );
    }

    #[test]
    fn the_column_is_made_from_the_tests_and_then_stays() {
        let test = ("crates/a/tests/b.rs", "#[test]\nfn fault_7_x() {}\n");
        let once = rewritten(&Tree::of(&[(PAGE, &page("stale")), test]));
        assert!(once.contains("| 7 | Bad. | Good. | [a/b.rs](../crates/a/tests/b.rs) |\n"));
        assert!(once.contains("| 8 | Bad. | Good. | none yet |\n"));
        assert_eq!(rewritten(&Tree::of(&[(PAGE, &once), test])), once);
    }
}
