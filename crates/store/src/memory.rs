use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::gate::Gate;
use crate::record::check_value;
use crate::{Key, Space, Store, StoreError, Txn, Value};

/// Keeps records until its last handle is dropped; for tests and short-lived tools.
///
/// A clone is a second handle on the same records.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Gate<Records>>,
}

#[derive(Default)]
struct Records {
    kept: BTreeMap<Key, Value>,
    version: u64,
}

struct MemoryTxn<'a> {
    kept: &'a BTreeMap<Key, Value>,
    changes: BTreeMap<Key, Option<Value>>,
    failed: bool,
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        Ok(self.shared.enter()?.kept.get(key).map(duplicate))
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        let records = self.shared.enter()?;
        let found = from_prefix(&records.kept, space, prefix);
        Ok(found
            .map(|(key, value)| (key.clone(), duplicate(value)))
            .collect())
    }

    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut records = self.shared.enter()?;
        let mut txn = MemoryTxn {
            kept: &records.kept,
            changes: BTreeMap::new(),
            failed: false,
        };
        step(&mut txn)?;
        if txn.failed {
            return Err(StoreError::Aborted);
        }
        let changes = txn.changes;
        if !changes.is_empty() {
            records.version = records.version.wrapping_add(1);
        }
        for (key, value) in changes {
            match value {
                Some(value) => records.kept.insert(key, value),
                None => records.kept.remove(&key),
            };
        }
        Ok(())
    }

    fn version(&self) -> Result<u64, StoreError> {
        Ok(self.shared.enter()?.version)
    }
}

impl Txn for MemoryTxn<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        Ok(match self.changes.get(key) {
            Some(change) => change.as_ref().map(duplicate),
            None => self.kept.get(key).map(duplicate),
        })
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        let kept = from_prefix(self.kept, space, prefix).map(|(key, value)| (key, Some(value)));
        let mut seen: BTreeMap<&Key, Option<&Value>> = kept.collect();
        seen.extend(
            from_prefix(&self.changes, space, prefix).map(|(key, change)| (key, change.as_ref())),
        );
        Ok(seen
            .into_iter()
            .filter_map(|(key, value)| Some((key.clone(), duplicate(value?))))
            .collect())
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), StoreError> {
        key.check()
            .and_then(|()| check_value(value))
            .inspect_err(|_| self.failed = true)?;
        let value = Value::from(value.to_vec());
        self.changes.insert(key.clone(), Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), StoreError> {
        key.check().inspect_err(|_| self.failed = true)?;
        self.changes.insert(key.clone(), None);
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore(..)")
    }
}

fn from_prefix<'a, T>(
    records: &'a BTreeMap<Key, T>,
    space: Space,
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Key, &'a T)> {
    records
        .range(Key::new(space, prefix)..)
        .take_while(move |(key, _)| key.space == space && key.id.starts_with(prefix))
}

fn duplicate(value: &Value) -> Value {
    Value::from(value.expose().to_vec())
}
