//! Every file of `fuzz/corpus/`, handed to its target.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sealcast_fuzz::{TARGETS, run};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// All in one test, since targets measure what the whole process allocates.
#[test]
fn what_fuzzing_came_upon_holds() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        for name in names(&folder) {
            let bytes = fs::read(folder.join(&name)).unwrap();
            let outcome = catch_unwind(|| assert!(run(target.name, &bytes)));
            tried += 1;
            if outcome.is_err() {
                wrong.push(format!("fuzz/corpus/{}/{name}", target.name));
            }
        }
        assert!(run(target.name, &[]));
    }
    assert_eq!(wrong, [""; 0], "of {tried}");
    assert!(!run("no_such_target", &[]));
    every_target_has_a_program_and_a_corpus();
}

fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|of| of.name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let programs = manifest.split("[[bin]]\nname = \"").skip(1);
    let programs = programs.filter_map(|of| of.split_once('"'));
    let programs: BTreeSet<_> = programs.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(programs, targets);
}
