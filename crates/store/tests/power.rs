//! What the disk holds after a power cut at any moment is a store in which every transaction that
//! returned is whole, and none is half there; what a failing disk refuses is told and harms nothing.
#![cfg(test)]
#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::Path;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_crash::{Chance, Fault, Image, Lasting, Loss, Recording, Watch};
use sealcast_crypto::StoreKey;
use sealcast_store::{Key, Space, SqliteStore, Store, StoreError};

/// Moments that are looked at where not all are.
const MOMENTS: usize = 300;

type Records = BTreeMap<(u8, Vec<u8>), Vec<u8>>;
/// One transaction: what it puts, and what it deletes where there is no value.
type Step = Vec<((u8, Vec<u8>), Option<Vec<u8>>)>;

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    let key = StoreKey::init_with(|bytes| bytes.fill(7));
    SqliteStore::open(path, key, Box::new(UnwrapErr(SysRng)))
}

fn key((space, id): &(u8, Vec<u8>)) -> Key {
    Key::new(Space(*space), id.as_slice())
}

fn transact(store: &SqliteStore, step: &Step) -> Result<(), StoreError> {
    store.transact(&mut |txn| {
        for (place, value) in step {
            match value {
                Some(value) => txn.put(&key(place), value)?,
                None => txn.delete(&key(place))?,
            }
        }
        Ok(())
    })
}

/// Transactions of every kind: records made, replaced and deleted, small ones and large ones.
fn steps() -> Vec<Step> {
    let place = |space: u8, id: u8| (space, vec![id; 8]);
    let mut steps: Vec<Step> = (0..6)
        .map(|n| {
            let small = (0..3).map(|id| (place(id, n), Some(vec![n; 40 + usize::from(n)])));
            small.chain([(place(9, 0), Some(vec![n; 8]))]).collect()
        })
        .collect();
    steps.push(vec![(place(5, 0), Some(vec![1; 100_000]))]);
    steps.push(vec![(place(0, 1), None), (place(9, 0), Some(vec![7; 8]))]);
    steps.push(vec![(place(5, 1), Some(vec![2; 100_000]))]);
    steps.push(vec![(place(5, 0), None), (place(1, 2), Some(vec![9; 300]))]);
    steps.extend((20..24).map(|n| vec![(place(9, 0), Some(vec![n; 8]))]));
    steps
}

/// The records after each number of steps.
fn states() -> Vec<Records> {
    let mut states = vec![Records::new()];
    for step in steps() {
        let mut next = states.last().unwrap().clone();
        for (place, value) in step {
            match value {
                Some(value) => next.insert(place, value),
                None => next.remove(&place),
            };
        }
        states.push(next);
    }
    states
}

fn records(store: &SqliteStore) -> Result<Records, StoreError> {
    let mut found = Records::new();
    for space in 0..=9 {
        for (key, value) in store.scan(Space(space), &[])? {
            found.insert((space, key.id), value.expose().to_vec());
        }
    }
    Ok(found)
}

/// Makes a store, runs every step through two handles in turn, and purges in between.
fn recorded(prepare: impl FnOnce(&Watch)) -> Recording {
    let folder = scratch();
    let watch = Watch::begin(folder.path()).unwrap();
    prepare(&watch);
    let path = folder.path().join("store.db");
    let (one, two) = (open(&path).unwrap(), open(&path).unwrap());
    watch.mark("opened");
    for (number, step) in steps().iter().enumerate() {
        watch.mark("begun");
        transact(if number % 3 == 0 { &two } else { &one }, step).unwrap();
        watch.mark("done");
        if number == 9 {
            drop(records(&two));
            one.purge().unwrap();
        }
    }
    drop((one, two));
    watch.mark("closed");
    watch.recording()
}

/// A folder that may lie in memory, where waiting for the disk takes no time.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What is wrong with what a crash at a moment leaves; nothing where all is well.
fn fault_of(recording: &Recording, end: usize, image: &Image, folder: &Path) -> Option<String> {
    let marks = recording.marks(end);
    let count = |wanted: &str| marks.iter().filter(|mark| **mark == wanted).count();
    if !image.has("store.db") {
        return (count("opened") > 0).then(|| "the store is gone".to_owned());
    }
    image.restore(folder).unwrap();
    let store = match open(&folder.join("store.db")) {
        Ok(store) => store,
        Err(error) => return Some(format!("it does not open: {error:?}")),
    };
    let found = match records(&store) {
        Ok(found) => found,
        Err(error) => return Some(format!("it cannot be read: {error:?}")),
    };
    let states = states();
    let mut may_be = states[count("done")..=count("begun")].iter();
    if !may_be.any(|state| *state == found) {
        let at = states.iter().position(|state| *state == found);
        return Some(format!(
            "{at:?} steps are there, {} were done",
            count("done")
        ));
    }
    let place = (8, b"goes on".to_vec());
    let went_on = transact(&store, &vec![(place.clone(), Some(vec![1]))]);
    let is_there = went_on.and_then(|()| store.get(&key(&place)));
    (!matches!(is_there, Ok(Some(_)))).then(|| format!("it does not go on: {is_there:?}"))
}

fn holds_at_every_moment(seed: u64, loss: impl FnMut(&mut Chance) -> Loss) {
    let (recording, folder) = (recorded(|_| ()), scratch());
    let looked_at = recording.look_at_crashes(MOMENTS, seed, loss, |end, image| {
        fault_of(&recording, end, image, folder.path()).map_or(Ok(()), Err)
    });
    assert!(looked_at.unwrap_or_else(|fault| panic!("{fault}")) > MOMENTS / 2);
}

#[test]
fn a_process_that_dies_at_any_moment_leaves_whole_transactions() {
    holds_at_every_moment(1, |_| Loss::Nothing);
}

#[test]
fn a_power_cut_that_takes_all_that_was_not_synced_leaves_every_transaction_that_returned() {
    holds_at_every_moment(2, |_| Loss::Unsynced);
}

#[test]
fn so_does_one_that_takes_any_part_of_it_in_any_order() {
    for seed in 3..6 {
        holds_at_every_moment(seed, |chance| Loss::Some(chance.draw()));
    }
}

/// What is wrong with what a crash at the end leaves.
fn fault_at_end(recording: &Recording, loss: Loss) -> Option<String> {
    let end = recording.len();
    fault_of(
        recording,
        end,
        &recording.image(end, loss),
        scratch().path(),
    )
}

/// The test of the test: a disk that does not sync when it is told to loses what had returned, and
/// that is found out.
#[test]
fn a_transaction_that_returns_before_it_is_durable_is_found_out() {
    let recording = recorded(Watch::danger_lie_about_syncs);
    assert!(fault_at_end(&recording, Loss::Unsynced).is_some());
    assert_eq!(fault_at_end(&recording, Loss::Nothing), None);
}

/// The test of the test: a record that is gone, and which no transaction deleted, is missed.
#[test]
fn a_lost_record_is_found_out() {
    let (recording, folder) = (recorded(|_| ()), scratch());
    let end = recording.len();
    let image = recording.image(end, Loss::Nothing);
    image.restore(folder.path()).unwrap();
    let watch = Watch::begin(folder.path()).unwrap();
    for mark in recording.marks(end) {
        watch.mark(mark);
    }
    let store = open(&folder.path().join("store.db")).unwrap();
    transact(&store, &vec![((2, vec![3; 8]), None)]).unwrap();
    let fault = fault_at_end(&watch.recording(), Loss::Nothing).unwrap();
    assert!(fault.contains("None steps"), "{fault}");
}

/// Runs every step on a disk that fails at one call. Returns whether that call came.
fn fails_at(after: u64, fault: Fault, lasting: Lasting) -> bool {
    let folder = scratch();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    transact(&store, &steps()[0]).unwrap();
    let watch = Watch::begin(folder.path()).unwrap();
    drop(store);
    watch.fail(after, fault, lasting);
    let case = format!("{after}: {fault:?} {lasting:?}");
    let mut known = states()[1].clone();
    let mut opened = open(&path);
    for step in &steps()[1..9] {
        let done = match &opened {
            Ok(store) => transact(store, step),
            Err(_) => open(&path).and_then(|store| {
                let done = transact(&store, step);
                opened = Ok(store);
                done
            }),
        };
        match done {
            Ok(()) => {
                for (place, value) in step.clone() {
                    match value {
                        Some(value) => known.insert(place, value),
                        None => known.remove(&place),
                    };
                }
            }
            Err(error) => assert!(is_told_well(&error, fault), "{after}: {error:?}"),
        }
    }
    let has_failed = watch.mend();
    // The handle that met the fault goes on, and so does whoever opens the file anew.
    if let Ok(store) = &opened {
        assert_same(&records(store).unwrap(), &known, &case);
        let step = vec![((8, b"on".to_vec()), Some(vec![1]))];
        transact(store, &step).unwrap();
        known.insert((8, b"on".to_vec()), vec![1]);
    }
    drop(opened);
    let found = records(&open(&path).unwrap()).unwrap();
    assert_same(&found, &known, &case);
    has_failed
}

/// Names the records that differ, and keeps quiet about what is in them.
fn assert_same(found: &Records, known: &Records, case: &str) {
    let places = found.keys().chain(known.keys());
    let differ: Vec<_> = places
        .filter(|of| found.get(*of) != known.get(*of))
        .collect();
    assert!(differ.is_empty(), "{case}: {differ:?}");
}

fn is_told_well(error: &StoreError, fault: Fault) -> bool {
    match fault {
        Fault::Full => matches!(error, StoreError::Full { .. }),
        Fault::Broken => matches!(error, StoreError::Backend { .. }),
    }
}

#[test]
fn a_disk_that_fails_at_any_write_or_sync_is_told_and_costs_nothing_that_returned() {
    for fault in [Fault::Full, Fault::Broken] {
        for lasting in [Lasting::Once, Lasting::On] {
            let mut after = 0;
            while fails_at(after, fault, lasting) {
                after += 1;
            }
            assert!(after > 10, "{after}");
        }
    }
}
