//! What a carrier keeps in a home until it can be delivered.

use sealcast::{FileKey, FileLock, Home, Passphrase, Shelf, ShelfChange, ShelfLabel, ShelfOwner};
use sealcast_crypto::SecretBytes;

use crate::rig::*;

/// Where labels lie in a home's store, and contents.
const SPACES: [u8; 2] = [19, 20];

fn owner(of: &str) -> ShelfOwner {
    ShelfOwner::of(&[of.as_bytes()])
}

fn put(number: u64, label: &[u8], content: &[u8]) -> ShelfChange {
    ShelfChange::Put {
        number,
        label: label.to_vec(),
        content: content.to_vec(),
    }
}

async fn labels(shelf: &Shelf, owner: Option<ShelfOwner>) -> Vec<(u64, Vec<u8>)> {
    let of = |of: ShelfLabel| (of.number, of.label);
    let labels = shelf.labels(owner).await.unwrap();
    labels.readable.into_iter().map(of).collect()
}

#[tokio::test]
async fn what_is_kept_is_there_for_its_owner_in_order_also_when_the_home_is_opened_again() {
    let rig = Rig::small();
    let home = rig.home("alice").await;
    let shelf = home.shelf();
    let (one, other) = (owner("one"), owner("other"));
    let changes = vec![
        put(300, b"c", b"third"),
        put(2, b"b", b"second"),
        put(1, b"a", b"first"),
    ];
    shelf.change(one, changes).await.unwrap();
    shelf
        .change(other, vec![put(1, b"x", b"another's")])
        .await
        .unwrap();
    drop((home, shelf));
    let shelf = Home::open(&rig.path("alice"), None).await.unwrap().shelf();
    let named = |all: &[(u64, &[u8])]| -> Vec<(u64, Vec<u8>)> {
        all.iter()
            .map(|(number, label)| (*number, label.to_vec()))
            .collect()
    };
    let own = named(&[(1, b"a"), (2, b"b"), (300, b"c")]);
    assert_eq!(labels(&shelf, Some(one)).await, own);
    assert_eq!(labels(&shelf, None).await.len(), 4);
    let contents = shelf.contents(one, vec![300, 7, 1]).await.unwrap();
    let content = |of: &[u8]| Some(of.to_vec());
    assert_eq!(contents, [content(b"third"), None, content(b"first")]);
    // Relabelled is what is there.
    let relabel = |number| ShelfChange::Relabel {
        number,
        label: b"z".to_vec(),
    };
    let changes = vec![relabel(2), relabel(8), ShelfChange::Remove { number: 1 }];
    shelf.change(one, changes).await.unwrap();
    assert_eq!(
        labels(&shelf, Some(one)).await,
        named(&[(2, b"z"), (300, b"c")])
    );
    let removed = vec![ShelfChange::Remove { number: 1 }];
    shelf
        .change(one, removed)
        .await
        .expect("it is gone already");
    assert_eq!(
        shelf.contents(other, vec![1]).await.unwrap(),
        [content(b"another's")]
    );
}

#[tokio::test]
async fn a_backup_leaves_the_shelf_out_and_a_restored_home_has_none() {
    let rig = Rig::small();
    let home = rig.home("alice").await;
    let big = vec![7; 100_000];
    home.shelf()
        .change(owner("one"), vec![put(1, b"label", &big)])
        .await
        .unwrap();
    let key = "age16h4ytxhr67wk50w7e8wxysar8m6rdnw5utgnjwwsh3vrt5ruw57qt08u9v";
    let lock = FileLock::recipients(vec![key.parse().unwrap()]);
    let backup = home.backup(lock, false).await.unwrap();
    assert!(backup.file.as_bytes().len() < 60_000);
    let secret = || SecretBytes::from(b"correct horse".to_vec());
    let lock = FileLock::passphrase(secret()).danger_with_work_factor(1);
    let backup = home.backup(lock, false).await.unwrap();
    let key = FileKey::Passphrase(secret());
    let again = rig.path("again");
    let restored = Home::restore(&again, &backup.file, key, Passphrase::None)
        .await
        .unwrap();
    assert_eq!(labels(&restored.shelf(), None).await, []);
}

/// One that cannot be read holds up none of the others.
#[tokio::test]
async fn a_damaged_content_is_told_as_lost_and_is_removed_with_others() {
    let rig = Rig::small();
    let home = rig.home("alice").await;
    let one = owner("one");
    let changes = vec![put(1, b"a", b"first"), put(2, b"b", b"second")];
    home.shelf().change(one, changes).await.unwrap();
    drop(home);
    let database = rusqlite::Connection::open(rig.path("alice").join("store.db")).unwrap();
    let place = [&one.0[..], &1_u64.to_be_bytes()].concat();
    let damage = "UPDATE records SET value = zeroblob(length(value)) WHERE space = ?1 AND id = ?2";
    let damaged = database.execute(damage, (SPACES[1], &place)).unwrap();
    assert_eq!(damaged, 1);
    drop(database);
    let shelf = Home::open(&rig.path("alice"), None).await.unwrap().shelf();
    let contents = shelf.contents(one, vec![1, 2]).await.unwrap();
    assert_eq!(contents, [None, Some(b"second".to_vec())]);
    let changes = vec![
        ShelfChange::Remove { number: 1 },
        ShelfChange::Remove { number: 2 },
        put(3, b"c", b"third"),
    ];
    shelf.change(one, changes).await.unwrap();
    assert_eq!(labels(&shelf, Some(one)).await, [(3, b"c".to_vec())]);
}

/// What it stood for is lost, and nothing else.
#[tokio::test]
async fn a_damaged_label_is_counted_and_the_others_are_kept_changed_and_removed() {
    let rig = Rig::small();
    let home = rig.home("alice").await;
    let one = owner("one");
    let changes = (1..=3).map(|number| put(number, b"a", b"some"));
    home.shelf().change(one, changes.collect()).await.unwrap();
    drop(home);
    let database = rusqlite::Connection::open(rig.path("alice").join("store.db")).unwrap();
    let place = [&one.0[..], &1_u64.to_be_bytes()].concat();
    let damage = "UPDATE records SET value = zeroblob(length(value)) WHERE space = ?1 AND id = ?2";
    let damaged = database.execute(damage, (SPACES[0], &place)).unwrap();
    assert_eq!(damaged, 1);
    drop(database);
    let shelf = Home::open(&rig.path("alice"), None).await.unwrap().shelf();
    let relabel = |number| ShelfChange::Relabel {
        number,
        label: b"z".to_vec(),
    };
    let changes = vec![
        relabel(1),
        relabel(2),
        relabel(9),
        ShelfChange::Remove { number: 1 },
        ShelfChange::Remove { number: 3 },
        put(4, b"b", b"fourth"),
    ];
    shelf.change(one, changes).await.unwrap();
    for (of, damaged) in [(Some(one), 1), (None, 1), (Some(owner("other")), 0)] {
        assert_eq!(shelf.labels(of).await.unwrap().damaged, damaged);
    }
    let expected = [(2, b"z".to_vec()), (4, b"b".to_vec())];
    assert_eq!(labels(&shelf, Some(one)).await, expected);
}
