use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use sealcast_store::{Key, Space, Store, conformance};

use crate::{folder, get, open};

const PATH_VARIABLE: &str = "SEALCAST_TEST_STORE";
const PROCESSES: u64 = 4;
const COUNTS_PER_PROCESS: u64 = 250;
const RECORDS: u8 = 20;

#[test]
fn several_processes_make_one_store_and_lose_no_count() {
    if let Some(path) = path_from_parent() {
        return count(&path);
    }
    let folder = folder();
    let path = folder.path().join("store.db");
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| start("several_processes_make_one_store_and_lose_no_count", &path).0)
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let counted = get(&open(&path).unwrap(), 1, b"counter").unwrap().unwrap();
    assert_eq!(counted, (PROCESSES * COUNTS_PER_PROCESS).to_be_bytes());
}

/// Runs in processes of its own.
fn count(path: &Path) {
    let store = open(path).unwrap();
    let key = Key::new(Space(1), *b"counter");
    for _ in 0..COUNTS_PER_PROCESS {
        store
            .transact(&mut |txn| conformance::count(txn, &key))
            .unwrap();
    }
}

#[test]
fn a_process_killed_in_the_middle_leaves_whole_transactions() {
    if let Some(path) = path_from_parent() {
        return overwrite(&path);
    }
    let folder = folder();
    let path = folder.path().join("store.db");
    for round in 0..12 {
        let (mut child, mut reports) = start(
            "a_process_killed_in_the_middle_leaves_whole_transactions",
            &path,
        );
        let mut told = last_number(&mut reports, 1 + 3 * round);
        child.kill().unwrap();
        child.wait().unwrap();
        told = told.max(last_number(&mut reports, usize::MAX));

        let store = open(&path).unwrap();
        let first = get(&store, 1, &[0]).unwrap().unwrap();
        for id in 1..RECORDS {
            assert!(
                get(&store, 1, &[id]).unwrap().unwrap() == first,
                "half a transaction"
            );
        }
        let found = first
            .first_chunk()
            .map(|number| u64::from_be_bytes(*number));
        assert!(
            found >= told,
            "{found:?} is kept, {told:?} was reported as durable"
        );
    }
}

/// Runs in a process of its own, until that is killed.
fn overwrite(path: &Path) {
    let store = open(path).unwrap();
    let last = get(&store, 1, &[0]).unwrap();
    let last = last
        .and_then(|last| last.first_chunk().copied())
        .map_or(0, u64::from_be_bytes);
    for number in last + 1.. {
        let value = number.to_be_bytes().repeat(300);
        store
            .transact(&mut |txn| {
                (0..RECORDS).try_for_each(|id| txn.put(&Key::new(Space(1), [id]), &value))
            })
            .unwrap();
        // One write to a pipe that no buffer holds back.
        std::io::stderr()
            .write_all(format!("{number}\n").as_bytes())
            .unwrap();
    }
}

fn start(test: &str, path: &Path) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([&format!("processes::{test}"), "--exact", "--nocapture"])
        .env(PATH_VARIABLE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let reports = BufReader::new(child.stderr.take().unwrap());
    (child, reports)
}

fn path_from_parent() -> Option<PathBuf> {
    env::var_os(PATH_VARIABLE).map(PathBuf::from)
}

fn last_number(reports: &mut BufReader<ChildStderr>, lines: usize) -> Option<u64> {
    let lines = reports.lines().take(lines);
    lines.map(|line| line.unwrap().parse().unwrap()).last()
}
