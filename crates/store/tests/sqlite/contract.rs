use std::cell::Cell;

use sealcast_store::conformance;

use crate::{folder, open};

#[test]
fn the_sqlite_store_conforms() {
    let (folder, stores) = (folder(), Cell::new(0));
    conformance::run(|| {
        stores.set(stores.get() + 1);
        open(&folder.path().join(stores.get().to_string())).unwrap()
    });
}

#[test]
fn two_handles_of_a_sqlite_store_conform() {
    let (folder, stores) = (folder(), Cell::new(0));
    conformance::run_shared(|| {
        stores.set(stores.get() + 1);
        let path = folder.path().join(stores.get().to_string());
        (open(&path).unwrap(), open(&path).unwrap())
    });
}
