//! Every file of `vectors/` comes out as it says.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealcast_vectors::{Case, areas, check, check_folder};

#[test]
fn every_vector_comes_out_as_it_says() {
    let counted = check_folder(&folder()).unwrap();
    let tried: usize = counted.values().sum();
    assert_eq!(tried, cases().count());
    assert!(tried >= 500, "{tried} vectors");
}

#[test]
fn every_area_has_something_good_in_it() {
    for area in areas() {
        let mut good = cases().filter(|case| case.area == area && case.is_good());
        assert!(good.next().is_some(), "{area}");
    }
}

#[test]
fn at_least_150_cases_have_one_fault_each() {
    let refused = cases().filter(|case| !case.is_good()).count();
    assert!(refused >= 150, "{refused}");
}

/// The table of failures, read both ways.
#[test]
fn every_outcome_is_explained_in_the_readme_and_occurs() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let (_, table) = readme.split_once("| expect | because |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| !line.is_empty());
    let explained: BTreeSet<&str> = rows
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(outcome, _)| outcome)
        .collect();
    assert!(explained.len() > 30, "{explained:?}");
    let all: Vec<Found> = cases().collect();
    let occurring: BTreeSet<&str> = all.iter().map(|case| case.expect.as_str()).collect();
    assert_eq!(explained, occurring);
}

/// In a good file every line counts, save what it is about and the time that a list is read at; in
/// one that is refused, what is expected.
#[test]
fn a_vector_with_one_altered_line_does_not_come_out() {
    for case in cases() {
        let lines: Vec<&str> = case.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let (key, _) = line.split_once(':').unwrap();
            // A moment sooner or later may be all the same.
            let counts = case.is_good() && !["about", "now", "segments-over"].contains(&key);
            if !counts && key != "expect" {
                continue;
            }
            let mut altered: Vec<String> = lines.iter().map(ToString::to_string).collect();
            altered[at] = alter(line);
            let outcome = check(&case.area, &altered.join("\n"));
            assert!(outcome.is_err(), "{}: {line}", case.path.display());
        }
    }
}

#[test]
fn a_line_that_nobody_reads_is_a_fault() {
    let text = "label: a\nother: b\nexpect: ok\n";
    let fault = check("digest", text).unwrap_err();
    assert!(fault.starts_with("nobody read"), "{fault}");
}

#[test]
fn nothing_unknown_missing_or_wrong_goes_unnoticed_in_a_folder() {
    let home = tempfile::tempdir().unwrap();
    for case in cases() {
        let to = home.path().join(&case.area);
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join(case.path.file_name().unwrap()), &case.text).unwrap();
    }
    assert!(check_folder(home.path()).is_ok());

    let noticed = |path: &str, text: &str| {
        let path = home.path().join(path);
        let before = fs::read_to_string(&path).ok();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let fault = check_folder(home.path()).unwrap_err();
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        fault
    };
    assert!(noticed("stray.txt", "").contains("stray.txt: what is this?"));
    assert!(noticed("digest/case.json", "").contains("case.json: what is this?"));
    let good = "label: a\nexpect: ok\n";
    assert!(noticed("digest/two-parts.txt", good).contains("two-parts.txt: expected ok"));
    assert!(noticed("new/case.txt", good).contains("case.txt: no such area: new"));
    fs::remove_dir(home.path().join("new")).unwrap();
    assert!(check_folder(home.path()).is_ok());
    fs::remove_dir_all(home.path().join("tree")).unwrap();
    assert_eq!(check_folder(home.path()), Err("tree: no cases".to_owned()));
}

/// A file, and what it expects.
struct Found {
    area: String,
    path: PathBuf,
    text: String,
    expect: String,
}

impl Found {
    fn is_good(&self) -> bool {
        self.expect == "ok"
    }
}

/// Every file of every folder, known or not.
fn cases() -> impl Iterator<Item = Found> {
    let areas = fs::read_dir(folder()).unwrap();
    let areas = areas.map(|entry| entry.unwrap().path());
    areas.filter(|path| path.is_dir()).flat_map(|area| {
        let files = fs::read_dir(&area).unwrap();
        files.map(move |file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            Found {
                area: area.file_name().unwrap().to_str().unwrap().to_owned(),
                expect: Case::parse(&text).unwrap().expect,
                path,
                text,
            }
        })
    })
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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")
}
