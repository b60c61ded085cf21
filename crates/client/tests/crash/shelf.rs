//! Power cuts at any moment at which a carrier keeps something, relabels it or throws it away.

use std::sync::Arc;

use sealcast::{Error, Home, ShelfChange, ShelfOwner};
use sealcast_crash::{Chance, Loss, Recording, Watch};

use crate::scene::{Fault, Scene, runtime, told};

const MOMENTS: usize = 120;
const MESSAGES: u64 = 12;
const OWNER: ShelfOwner = ShelfOwner([7; 16]);

/// Each is kept, given another label with what comes next, and thrown away with the one after that.
async fn carry(scene: &Scene, watch: &Watch) -> Result<(), Error> {
    let shelf = Home::open(&scene.live().join("bob"), None).await?.shelf();
    for number in 0..MESSAGES {
        let mut changes = vec![ShelfChange::Put {
            number,
            label: b"waits".to_vec(),
            content: vec![number as u8; 5_000],
        }];
        if let Some(number) = number.checked_sub(1) {
            let label = b"sent".to_vec();
            changes.push(ShelfChange::Relabel { number, label });
        }
        if let Some(number) = number.checked_sub(2) {
            changes.push(ShelfChange::Remove { number });
        }
        shelf.change(OWNER, changes).await?;
        watch.mark(format!("{number}"));
    }
    Ok(())
}

/// What is there: each with its label, and its content.
async fn found(scene: &Scene) -> Result<Vec<(u64, Vec<u8>, bool)>, Error> {
    let shelf = Home::open(&scene.live().join("bob"), None).await?.shelf();
    let labels = shelf.labels(Some(OWNER)).await?.readable;
    let numbers: Vec<_> = labels.iter().map(|of| of.number).collect();
    let contents = shelf.contents(OWNER, numbers).await?;
    let is_whole = |number: u64, of: &Option<Vec<u8>>| {
        of.as_ref()
            .is_some_and(|of| *of == vec![number as u8; 5_000])
    };
    let both = labels.into_iter().zip(&contents);
    let both = both.map(|(of, content)| (of.number, of.label, is_whole(of.number, content)));
    Ok(both.collect())
}

fn fault_at(scene: &Scene, recording: &Recording, end: usize) -> Result<(), Fault> {
    let last = recording
        .marks(end)
        .last()
        .and_then(|of| of.parse::<u64>().ok());
    let found = runtime().block_on(found(scene)).map_err(told)?;
    let after = |last: u64| {
        let sent = last.checked_sub(1).map(|of| (of, b"sent".to_vec(), true));
        let both = sent.into_iter().chain([(last, b"waits".to_vec(), true)]);
        both.collect::<Vec<_>>()
    };
    // What was being made when it was cut is there as a whole, or not at all.
    let next = last.map_or(0, |of| of + 1);
    let before = last.map_or(Vec::new(), after);
    match found == before || found == after(next) {
        true => Ok(()),
        false => Err(format!("after {last:?}: {found:?}")),
    }
}

fn holds_at_every_moment(seed: u64, loss: impl FnMut(&mut Chance) -> Loss) {
    let scene = Scene::new();
    let watch = Arc::new(Watch::begin(&scene.live()).unwrap());
    runtime().block_on(carry(&scene, &watch)).unwrap();
    let recording = watch.recording();
    let looked_at = recording.look_at_crashes(MOMENTS, seed, loss, |end, image| {
        image.restore(&scene.live()).unwrap();
        fault_at(&scene, &recording, end)
    });
    assert!(looked_at.unwrap_or_else(|fault| panic!("{fault}")) > MOMENTS / 4);
}

#[test]
fn a_power_cut_leaves_all_of_a_change_or_nothing() {
    holds_at_every_moment(21, |_| Loss::Unsynced);
}

#[test]
fn nor_does_a_process_that_dies_leave_a_part() {
    holds_at_every_moment(22, |_| Loss::Nothing);
}
