//! The tests that every [`Store`] runs against itself.
//!
//! ```
//! use sealcast_store::{MemoryStore, conformance};
//!
//! conformance::run(MemoryStore::default);
//! conformance::run_shared(|| {
//!     let store = MemoryStore::default();
//!     (store.clone(), store)
//! });
//! ```

use std::fmt::Debug;
use std::sync::Barrier;
use std::thread;

use crate::record::{ID_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{Key, Space, Store, StoreError, Txn, transact_with};

const SPACE: Space = Space(3);
const COUNTS_PER_THREAD: u64 = 1000;

/// Runs every case that needs one handle, each on a fresh store from `open`.
///
/// # Panics
///
/// Panics, naming the case, when the store breaks the contract.
pub fn run<S: Store>(open: impl Fn() -> S) {
    what_is_put_comes_back_until_it_is_deleted(&open());
    a_put_replaces_the_value(&open());
    spaces_are_apart(&open());
    a_scan_is_ordered_and_keeps_to_its_prefix(&open());
    a_failed_step_changes_nothing(&open());
    a_step_that_hides_a_failed_write_changes_nothing(&open());
    a_step_sees_its_own_writes(&open());
    a_step_that_uses_the_store_is_told_so(&open());
    the_reason_of_a_step_comes_back(&open());
    sizes_from_empty_to_the_largest_are_kept(&open());
    the_version_changes_with_every_commit(&open());
}

/// Runs every case that needs two handles, each on two handles of one fresh store from `open`.
///
/// # Panics
///
/// Panics, naming the case, when the store breaks the contract.
pub fn run_shared<S: Store>(open: impl Fn() -> (S, S)) {
    one_handle_sees_what_the_other_committed(&open());
    the_version_changes_when_the_other_handle_commits(&open());
    transactions_exclude_each_other(&open());
}

fn what_is_put_comes_back_until_it_is_deleted(store: &dyn Store) {
    let case = "put, get, delete";
    let key = Key::new(SPACE, *b"id");
    assert_eq!(read(case, store, &key), None, "{case}: before the put");
    write(case, store, |txn| txn.put(&key, b"value"));
    assert_eq!(read(case, store, &key), some(b"value"), "{case}");
    write(case, store, |txn| txn.delete(&key));
    assert_eq!(read(case, store, &key), None, "{case}: after the delete");
    write(case, store, |txn| txn.delete(&key));
}

fn a_put_replaces_the_value(store: &dyn Store) {
    let case = "replace";
    let key = Key::new(SPACE, *b"id");
    write(case, store, |txn| txn.put(&key, b"a longer value"));
    write(case, store, |txn| txn.put(&key, b"value"));
    assert_eq!(read(case, store, &key), some(b"value"), "{case}");
    assert_eq!(list(case, store, b"").len(), 1, "{case}: one record");
}

fn spaces_are_apart(store: &dyn Store) {
    let case = "spaces";
    let spaces = [Space(0), Space(1), Space(255)];
    for space in spaces {
        write(case, store, |txn| {
            txn.put(&Key::new(space, *b"id"), &[space.0])
        });
    }
    write(case, store, |txn| txn.delete(&Key::new(Space(1), *b"id")));
    for (space, left) in spaces.into_iter().zip([some(&[0]), None, some(&[255])]) {
        let key = Key::new(space, *b"id");
        assert_eq!(read(case, store, &key), left, "{case}: {space:?}");
    }
}

fn a_scan_is_ordered_and_keeps_to_its_prefix(store: &dyn Store) {
    let case = "scan";
    let ids: [&[u8]; 7] = [b"b", b"a\xff\xff", b"\xff", b"", b"a", b"a\0", b"\xff\xff"];
    write(case, store, |txn| {
        ids.iter()
            .try_for_each(|id| txn.put(&Key::new(SPACE, *id), id))
    });
    let expected: [(&[u8], &[&[u8]]); 5] = [
        (
            b"",
            &[b"", b"a", b"a\0", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"],
        ),
        (b"a", &[b"a", b"a\0", b"a\xff\xff"]),
        (b"a\xff", &[b"a\xff\xff"]),
        (b"\xff", &[b"\xff", b"\xff\xff"]),
        (b"c", &[]),
    ];
    for (prefix, expected) in expected {
        assert_eq!(list(case, store, prefix), expected, "{case}: {prefix:?}");
    }
    assert_eq!(
        ok(case, store.scan(Space(4), b"")).len(),
        0,
        "{case}: empty"
    );
}

fn a_failed_step_changes_nothing(store: &dyn Store) {
    let case = "failed step";
    let (old, new) = (Key::new(SPACE, *b"old"), Key::new(SPACE, *b"new"));
    write(case, store, |txn| txn.put(&old, b"kept"));
    let result = store.transact(&mut |txn| {
        txn.put(&new, b"dropped")?;
        txn.put(&old, b"dropped")?;
        txn.delete(&old)?;
        Err(StoreError::Aborted)
    });
    assert!(
        matches!(result, Err(StoreError::Aborted)),
        "{case}: {result:?}"
    );
    assert_eq!(read(case, store, &old), some(b"kept"), "{case}");
    assert_eq!(read(case, store, &new), None, "{case}");
    assert_eq!(list(case, store, b""), [b"old"], "{case}");
}

fn a_step_that_hides_a_failed_write_changes_nothing(store: &dyn Store) {
    let case = "hidden failure";
    let (good, bad) = (
        Key::new(SPACE, *b"id"),
        Key::new(SPACE, [7; ID_BYTES_MAX + 1]),
    );
    let result = store.transact(&mut |txn| {
        txn.put(&good, b"dropped")?;
        let refused = txn.put(&bad, b"");
        assert!(
            matches!(refused, Err(StoreError::IdTooLong { .. })),
            "{case}: {refused:?}"
        );
        Ok(())
    });
    assert!(result.is_err(), "{case}: committed all the same");
    assert_eq!(read(case, store, &good), None, "{case}");
}

fn a_step_sees_its_own_writes(store: &dyn Store) {
    let case = "own writes";
    let [a, b, c] = [b"a", b"b", b"c"].map(|id| Key::new(SPACE, *id));
    write(case, store, |txn| {
        txn.put(&a, b"1")?;
        txn.put(&b, b"1")
    });
    write(case, store, |txn| {
        txn.put(&c, b"2")?;
        txn.delete(&a)?;
        txn.put(&b, b"2")?;
        assert_eq!(exposed(txn.get(&a)?), None, "{case}: deleted");
        assert_eq!(exposed(txn.get(&b)?), some(b"2"), "{case}: replaced");
        assert_eq!(exposed(txn.get(&c)?), some(b"2"), "{case}: added");
        let ids: Vec<_> = txn
            .scan(SPACE, b"")?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(ids, [b.clone(), c.clone()], "{case}: scan");
        Ok(())
    });
    assert_eq!(list(case, store, b""), [b"b", b"c"], "{case}: afterwards");
}

fn a_step_that_uses_the_store_is_told_so(store: &dyn Store) {
    let case = "nested";
    let key = Key::new(SPACE, *b"id");
    write(case, store, |txn| {
        assert!(
            matches!(store.get(&key), Err(StoreError::Nested)),
            "{case}: get"
        );
        let inner = store.transact(&mut |_| Ok(()));
        assert!(matches!(inner, Err(StoreError::Nested)), "{case}: transact");
        txn.put(&key, b"value")
    });
    assert_eq!(read(case, store, &key), some(b"value"), "{case}");
}

fn the_reason_of_a_step_comes_back(store: &dyn Store) {
    #[derive(Debug, PartialEq)]
    enum Reason {
        Own,
        Store,
    }
    impl From<StoreError> for Reason {
        fn from(_: StoreError) -> Self {
            Self::Store
        }
    }
    let case = "reason";
    let key = Key::new(SPACE, *b"id");
    let refused: Result<(), Reason> = transact_with(store, |txn| {
        txn.put(&key, b"dropped")?;
        Err(Reason::Own)
    });
    assert_eq!(refused, Err(Reason::Own), "{case}");
    assert_eq!(read(case, store, &key), None, "{case}");
    let failed: Result<(), Reason> = transact_with(store, |txn| {
        Ok(txn.put(&Key::new(SPACE, [0; ID_BYTES_MAX + 1]), b"")?)
    });
    assert_eq!(failed, Err(Reason::Store), "{case}");
    let kept: Result<u8, Reason> = transact_with(store, |txn| {
        txn.put(&key, b"kept")?;
        Ok(7)
    });
    assert_eq!(kept, Ok(7), "{case}");
    assert_eq!(read(case, store, &key), some(b"kept"), "{case}");
}

fn sizes_from_empty_to_the_largest_are_kept(store: &dyn Store) {
    let case = "sizes";
    let mebibyte: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251) as u8).collect();
    let longest = vec![7; ID_BYTES_MAX];
    let records: [(&[u8], &[u8]); 4] = [
        (b"", b""),
        (b"empty", b""),
        (b"large", &mebibyte),
        (&longest, b"value"),
    ];
    for (id, value) in records {
        write(case, store, |txn| txn.put(&Key::new(SPACE, id), value));
    }
    for (id, value) in records {
        let key = Key::new(SPACE, id);
        assert!(
            read(case, store, &key).as_deref() == Some(value),
            "{case}: {key:?}"
        );
    }
    let key = Key::new(SPACE, *b"id");
    let result = store.transact(&mut |txn| txn.put(&key, &vec![0; VALUE_BYTES_MAX + 1]));
    assert!(
        matches!(result, Err(StoreError::ValueTooLong { .. })),
        "{case}: {result:?}"
    );
    let too_long = Key::new(SPACE, [7; ID_BYTES_MAX + 1]);
    assert_eq!(read(case, store, &too_long), None, "{case}: no such id");
}

fn the_version_changes_with_every_commit(store: &dyn Store) {
    let case = "version";
    let mut last = ok(case, store.version());
    for value in 0..3 {
        write(case, store, |txn| {
            txn.put(&Key::new(SPACE, *b"id"), &[value])
        });
        let next = ok(case, store.version());
        assert_ne!(next, last, "{case}: after commit {value}");
        last = next;
    }
}

fn one_handle_sees_what_the_other_committed((one, other): &(impl Store, impl Store)) {
    let case = "two handles";
    let key = Key::new(SPACE, *b"id");
    assert_eq!(read(case, other, &key), None, "{case}: before");
    write(case, one, |txn| txn.put(&key, b"value"));
    assert_eq!(read(case, other, &key), some(b"value"), "{case}: put");
    write(case, other, |txn| txn.delete(&key));
    assert_eq!(read(case, one, &key), None, "{case}: deleted");
    assert_eq!(list(case, one, b"").len(), 0, "{case}: scan");
}

fn the_version_changes_when_the_other_handle_commits((one, other): &(impl Store, impl Store)) {
    let case = "version of two handles";
    let mut last = ok(case, one.version());
    for value in 0..3 {
        write(case, other, |txn| {
            txn.put(&Key::new(SPACE, *b"id"), &[value])
        });
        let next = ok(case, one.version());
        assert_ne!(next, last, "{case}: after commit {value}");
        last = next;
    }
}

fn transactions_exclude_each_other((one, other): &(impl Store, impl Store)) {
    let case = "exclusive";
    let key = Key::new(SPACE, *b"counter");
    let handles: [&dyn Store; 2] = [one, other];
    let start = Barrier::new(handles.len());
    thread::scope(|scope| {
        for store in handles {
            let (key, start) = (&key, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..COUNTS_PER_THREAD {
                    write(case, store, |txn| count(txn, key));
                }
            });
        }
    });
    let expected = (2 * COUNTS_PER_THREAD).to_be_bytes();
    assert_eq!(
        read(case, one, &key),
        some(&expected),
        "{case}: counts were lost"
    );
}

/// Adds one to the counter under `key`, a number of eight bytes, big-endian.
///
/// # Errors
///
/// Fails when the transaction does.
pub fn count(txn: &mut dyn Txn, key: &Key) -> Result<(), StoreError> {
    let last = txn.get(key)?;
    // Invites others in between.
    thread::yield_now();
    let last = last.and_then(|value| Some(u64::from_be_bytes(value.expose().try_into().ok()?)));
    txn.put(key, &(last.unwrap_or(0) + 1).to_be_bytes())
}

fn write(
    case: &str,
    store: &dyn Store,
    mut step: impl FnMut(&mut dyn Txn) -> Result<(), StoreError>,
) {
    ok(case, store.transact(&mut step));
}

fn read(case: &str, store: &dyn Store, key: &Key) -> Option<Vec<u8>> {
    exposed(ok(case, store.get(key)))
}

fn list(case: &str, store: &dyn Store, prefix: &[u8]) -> Vec<Vec<u8>> {
    let found = ok(case, store.scan(SPACE, prefix));
    assert!(
        found.iter().all(|(key, _)| key.space == SPACE),
        "{case}: space"
    );
    found.into_iter().map(|(key, _)| key.id).collect()
}

fn exposed(value: Option<crate::Value>) -> Option<Vec<u8>> {
    value.map(|value| value.expose().to_vec())
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

#[expect(
    clippy::panic,
    reason = "a broken contract ends the test that found it"
)]
fn ok<T>(case: &str, result: Result<T, impl Debug>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{case}: {error:?}"),
    }
}
