use std::fmt;

use sealcast_crypto::SecretBytes;

use crate::StoreError;

/// Longest id of a [`Key`], in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// Longest [`Value`] that a store takes, in bytes (16 MiB).
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Which table of records. The numbers are assigned by the crate that uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u8);

/// Where a record lies: its space, then its id. Ordered so.
///
/// Keys are stored in clear. An id is a public identifier (a hash, a number), never a name and
/// never a secret; it has at most [`ID_BYTES_MAX`] bytes and may be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The table.
    pub space: Space,
    /// The place in the table.
    pub id: Vec<u8>,
}

/// What a record holds, in clear; wiped when dropped.
pub type Value = SecretBytes;

impl Key {
    /// Names the record `id` of `space`.
    pub fn new(space: Space, id: impl Into<Vec<u8>>) -> Self {
        let id = id.into();
        Self { space, id }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.id.len() {
            0..=ID_BYTES_MAX => Ok(()),
            len => Err(StoreError::IdTooLong { len }),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}/", self.space.0)?;
        for byte in &self.id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), StoreError> {
    match value.len() {
        0..=VALUE_BYTES_MAX => Ok(()),
        len => Err(StoreError::ValueTooLong { len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_space_and_then_by_id() {
        let mut keys = vec![
            Key::new(Space(2), [0]),
            Key::new(Space(1), [2]),
            Key::new(Space(1), [1, 9]),
            Key::new(Space(1), [1]),
        ];
        keys.sort();
        assert_eq!(
            format!("{keys:?}"),
            "[Key(1/01), Key(1/0109), Key(1/02), Key(2/00)]"
        );
    }
}
