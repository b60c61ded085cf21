use std::fmt::Debug;

use crate::{Key, Space, StoreError, Value};

/// Keeps records, shared by every handle and process that has the same store open.
///
/// Every implementation must pass the `conformance` suite of this crate.
pub trait Store: Send + Sync + Debug {
    /// Reads one record; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Fails when the record cannot be read, or when damage leaves it open whether there is one.
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError>;

    /// Reads the records of `space` whose ids begin with `prefix`, ascending by id.
    ///
    /// # Errors
    ///
    /// Fails when one of them cannot be read, or when damage leaves it open whether all are there.
    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError>;

    /// Reads those of the records that [`scan`](Self::scan) reads which can be read, ascending by id, and how many cannot.
    /// For records that stand each for itself: whether any is missing is not found out.
    ///
    /// # Errors
    ///
    /// Fails when the backend cannot be read.
    fn scan_readable(
        &self,
        space: Space,
        prefix: &[u8],
    ) -> Result<(Vec<(Key, Value)>, u64), StoreError> {
        Ok((self.scan(space, prefix)?, 0))
    }

    /// Runs `step` once, in a transaction that excludes every other one in all processes.
    ///
    /// When this returns `Ok`, everything that `step` wrote is kept and durable; when it returns an
    /// error or `step` panics, nothing is. `step` reads its own writes. It must use the transaction
    /// and not the store: a call of this store from within `step` fails with
    /// [`StoreError::Nested`].
    ///
    /// # Errors
    ///
    /// Returns the error of `step`; fails when a write or the commit failed.
    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// A number that changes with every commit that wrote something, through whichever handle or
    /// process. Costs microseconds.
    ///
    /// It says nothing across handles and nothing about order, and it may change without a commit.
    /// To cache what was read, ask for the version first and read second.
    ///
    /// # Errors
    ///
    /// Fails when the backend cannot be read.
    fn version(&self) -> Result<u64, StoreError>;
}

/// One running transaction of a [`Store`].
pub trait Txn {
    /// Reads one record as this transaction sees it; `None` when there is none.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError>;

    /// Reads the records of `space` whose ids begin with `prefix`, ascending by id.
    ///
    /// # Errors
    ///
    /// As [`Store::scan`].
    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError>;

    /// Writes one record, in place of the one under the same key if there is one.
    ///
    /// # Errors
    ///
    /// Fails when the id or the value is too long or the backend cannot write. The transaction
    /// cannot be committed any more then.
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), StoreError>;

    /// Removes one record; does nothing when there is none.
    ///
    /// # Errors
    ///
    /// As [`Txn::put`].
    fn delete(&mut self, key: &Key) -> Result<(), StoreError>;
}

/// Runs `step` as [`Store::transact`] does, with a result and an error of the caller's own.
///
/// # Errors
///
/// Returns the error of `step`, after which nothing was changed, or that of the store.
///
/// ```
/// use sealcast_store::{Key, MemoryStore, Space, StoreError, transact_with};
///
/// let store = MemoryStore::default();
/// let key = Key::new(Space(1), *b"seq");
/// let next: Result<u8, StoreError> = transact_with(&store, |txn| {
///     let last = txn.get(&key)?.and_then(|value| value.expose().first().copied());
///     let next = last.map_or(0, |last| last.wrapping_add(1));
///     txn.put(&key, &[next])?;
///     Ok(next)
/// });
/// assert_eq!(next?, 0);
/// # Ok::<(), StoreError>(())
/// ```
pub fn transact_with<T, E: From<StoreError>>(
    store: &dyn Store,
    step: impl FnOnce(&mut dyn Txn) -> Result<T, E>,
) -> Result<T, E> {
    let mut step = Some(step);
    let mut outcome = None;
    let result = store.transact(&mut |txn| {
        let step = step.take().ok_or(StoreError::Aborted)?;
        let done = step(txn);
        let kept = done.as_ref().map_or(Err(StoreError::Aborted), |_| Ok(()));
        outcome = Some(done);
        kept
    });
    match (result, outcome) {
        (_, Some(Err(reason))) => Err(reason),
        (Ok(()), Some(Ok(value))) => Ok(value),
        (Err(error), _) => Err(error.into()),
        (Ok(()), None) => Err(StoreError::Aborted.into()),
    }
}
