//! What a carrier keeps, in a home's store.

use sealcast_engine::Space;
use sealcast_store::{Key, StoreError, Txn};

use super::{Vault, key};
use crate::error::Error;
use crate::shelf::{ShelfChange, ShelfLabel, ShelfLabels, ShelfOwner};

fn label_key(owner: ShelfOwner, number: u64) -> Key {
    key(Space::Shelf, &[&owner.0, &number.to_be_bytes()])
}

fn content_key(owner: ShelfOwner, number: u64) -> Key {
    key(Space::ShelfContent, &[&owner.0, &number.to_be_bytes()])
}

impl Vault {
    pub(crate) fn shelf_labels(&self, owner: Option<ShelfOwner>) -> Result<ShelfLabels, Error> {
        let place = key(Space::Shelf, &[owner.as_ref().map_or(&[], |of| &of.0[..])]);
        let (rows, damaged) = self.0.scan_readable(place.space, &place.id)?;
        let labels = rows.into_iter().filter_map(|(row, label)| {
            let (owner, number) = row.id.split_first_chunk()?;
            Some(ShelfLabel {
                owner: ShelfOwner(*owner),
                number: u64::from_be_bytes(number.try_into().ok()?),
                label: label.expose().to_vec(),
            })
        });
        Ok(ShelfLabels {
            readable: labels.collect(),
            damaged,
        })
    }

    pub(crate) fn shelf_contents(
        &self,
        owner: ShelfOwner,
        numbers: &[u64],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let content = |number: &u64| match self.0.get(&content_key(owner, *number)) {
            Ok(content) => Ok(content.map(|of| of.expose().to_vec())),
            Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        };
        numbers.iter().map(content).collect()
    }

    pub(crate) fn change_shelf(
        &self,
        owner: ShelfOwner,
        changes: &[ShelfChange],
    ) -> Result<(), Error> {
        self.write(|txn| {
            changes.iter().try_for_each(|change| match change {
                ShelfChange::Put {
                    number,
                    label,
                    content,
                } => {
                    txn.put(&label_key(owner, *number), label)?;
                    txn.put(&content_key(owner, *number), content)
                }
                ShelfChange::Relabel { number, label } => {
                    let place = label_key(owner, *number);
                    match is_there(txn, &place)? {
                        true => txn.put(&place, label),
                        false => Ok(()),
                    }
                }
                ShelfChange::Remove { number } => {
                    delete_whole(txn, &label_key(owner, *number))?;
                    delete_whole(txn, &content_key(owner, *number))
                }
            })
        })
    }
}

/// A store does not remove what is damaged, and refuses all that is changed with it: it stays where it is, and nothing
/// leads there any more.
fn delete_whole(txn: &mut dyn Txn, place: &Key) -> Result<(), StoreError> {
    match is_there(txn, place)? {
        true => txn.delete(place),
        false => Ok(()),
    }
}

/// Whether there is a record that can be read.
fn is_there(txn: &dyn Txn, place: &Key) -> Result<bool, StoreError> {
    match txn.get(place) {
        Ok(found) => Ok(found.is_some()),
        Err(StoreError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
