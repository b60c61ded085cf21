//! What the disk holds after a power cut at any moment is a bus with every append that returned, and
//! with none that is half there; what a failing disk refuses is told and harms nothing.
#![cfg(test)]
#![cfg(unix)]

use std::path::Path;

use sealcast_bus::{Bus, BusError, FileBus, Offset, Topic};
use sealcast_crash::{Chance, Fault, Image, Lasting, Loss, Recording, Watch};
use tokio::runtime::{Builder, Runtime};

/// Moments that are looked at where not all are.
const MOMENTS: usize = 200;

fn topic() -> Topic {
    Topic::new("s/1f00/data").unwrap()
}

/// Batches of many sizes. The large one fills the log, so that it is emptied into the database and
/// begun anew.
fn batches() -> Vec<Vec<Vec<u8>>> {
    let batch = |n: u8| {
        let count = 1 + usize::from(n % 4);
        (0..count)
            .map(|at| vec![n + 1; 60 + 300 * at * usize::from(n)])
            .collect()
    };
    let mut batches: Vec<_> = (0..8).map(batch).collect();
    batches.push(vec![vec![9; 600_000]; 7]);
    batches.extend((10..14).map(batch));
    batches
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A folder that may lie in memory, where waiting for the disk takes no time.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Makes a bus and appends every batch through two handles in turn.
fn recorded(prepare: impl FnOnce(&Watch)) -> Recording {
    let folder = scratch();
    let watch = Watch::begin(folder.path()).unwrap();
    prepare(&watch);
    runtime().block_on(async {
        let one = FileBus::open(folder.path()).await.unwrap();
        let two = FileBus::open(folder.path()).await.unwrap();
        watch.mark("opened");
        for (number, batch) in batches().into_iter().enumerate() {
            watch.mark("begun");
            let bus = if number % 3 == 0 { &two } else { &one };
            bus.append(&topic(), batch).await.unwrap();
            watch.mark("done");
        }
    });
    watch.recording()
}

async fn payloads(bus: &FileBus) -> Result<Vec<Vec<u8>>, BusError> {
    let items = bus.read(&topic(), Offset(0), usize::MAX).await?;
    Ok(items.into_iter().map(|item| item.payload).collect())
}

/// What is wrong with what a crash at a moment leaves; nothing where all is well.
fn fault_of(recording: &Recording, end: usize, image: &Image, folder: &Path) -> Option<String> {
    let marks = recording.marks(end);
    let count = |wanted: &str| marks.iter().filter(|mark| **mark == wanted).count();
    if !image.has("bus.db") && count("opened") > 0 {
        return Some("the bus is gone".to_owned());
    }
    image.restore(folder).unwrap();
    let looked_at = runtime().block_on(async {
        let bus = FileBus::open(folder).await?;
        let found = payloads(&bus).await?;
        bus.append(&topic(), vec![b"goes on".to_vec()]).await?;
        Ok::<_, BusError>((found, payloads(&bus).await?))
    });
    let (found, after) = match looked_at {
        Ok(looked_at) => looked_at,
        Err(error) => return Some(format!("{error:?}")),
    };
    let batches = batches();
    let first = |count: usize| batches[..count].concat();
    if !(count("done")..=count("begun")).any(|count| first(count) == found) {
        return Some(format!(
            "{} items are there, of {} batches that were done",
            found.len(),
            count("done")
        ));
    }
    (after.len() != found.len() + 1).then(|| "it does not go on".to_owned())
}

type FaultOf = fn(&Recording, usize, &Image, &Path) -> Option<String>;

fn holds_at_every_moment(seed: u64, loss: impl FnMut(&mut Chance) -> Loss) {
    holds_throughout(&recorded(|_| ()), fault_of, seed, loss);
}

fn holds_throughout(
    recording: &Recording,
    fault_of: FaultOf,
    seed: u64,
    loss: impl FnMut(&mut Chance) -> Loss,
) {
    let folder = scratch();
    let looked_at = recording.look_at_crashes(MOMENTS, seed, loss, |end, image| {
        fault_of(recording, end, image, folder.path()).map_or(Ok(()), Err)
    });
    assert!(looked_at.unwrap_or_else(|fault| panic!("{fault}")) > MOMENTS / 2);
}

#[test]
fn a_process_that_dies_at_any_moment_leaves_whole_batches() {
    holds_at_every_moment(1, |_| Loss::Nothing);
}

#[test]
fn a_power_cut_that_takes_all_that_was_not_synced_leaves_every_batch_that_was_acknowledged() {
    holds_at_every_moment(2, |_| Loss::Unsynced);
}

#[test]
fn so_does_one_that_takes_any_part_of_it_in_any_order() {
    for seed in 3..5 {
        holds_at_every_moment(seed, |chance| Loss::Some(chance.draw()));
    }
}

/// What lies at an offset of the inbox. One is large and fills the log.
fn taken(offset: u64) -> Vec<u8> {
    let size = if offset == 13 { 4_300_000 } else { 900 };
    vec![offset as u8; size]
}

/// Appends three items at a time to an inbox and trims the three before them. Sends, too, which is
/// not synced.
fn recorded_inbox(prepare: impl FnOnce(&Watch)) -> Recording {
    let folder = scratch();
    let watch = Watch::begin(folder.path()).unwrap();
    prepare(&watch);
    runtime().block_on(async {
        let one = FileBus::open(folder.path()).await.unwrap();
        let two = FileBus::open(folder.path()).await.unwrap();
        for round in 0..10 {
            one.send(&topic(), vec![1; 700]).await.unwrap();
            watch.mark("appending");
            let items = (3 * round..3 * round + 3).map(taken).collect();
            one.append(&topic(), items).await.unwrap();
            watch.mark("appended");
            two.send(&topic(), vec![2; 700]).await.unwrap();
            watch.mark("trimming");
            two.trim(&topic(), Offset(3 * round)).await.unwrap();
            watch.mark("trimmed");
        }
    });
    watch.recording()
}

fn fault_of_inbox(
    recording: &Recording,
    end: usize,
    image: &Image,
    _folder: &Path,
) -> Option<String> {
    let marks = recording.marks(end);
    let count = |wanted: &str| marks.iter().filter(|mark| **mark == wanted).count() as u64;
    // Of its own: a bus that was listened to looks at its files for a moment longer.
    let folder = scratch();
    image.restore(folder.path()).unwrap();
    let looked_at = runtime().block_on(async {
        let bus = FileBus::open(folder.path()).await?;
        let items = bus.read(&topic(), Offset(0), usize::MAX).await?;
        let mut listener = bus.listen(vec![topic()]).await?;
        bus.send(&topic(), b"goes on".to_vec()).await?;
        let heard = listener.next().await?.1;
        let next = bus.append(&topic(), vec![b"goes on".to_vec()]).await?;
        Ok::<_, BusError>((items, next.0, heard))
    });
    let (items, next, heard) = match looked_at {
        Ok(looked_at) => looked_at,
        Err(error) => return Some(format!("{error:?}")),
    };
    let first = items.first().map_or(next, |item| item.offset.0);
    let trims = |count: u64| 3 * count.saturating_sub(1);
    let is_right = (first..next).eq(items.iter().map(|item| item.offset.0))
        && items.iter().all(|of| of.payload == taken(of.offset.0))
        && (3 * count("appended")..=3 * count("appending")).contains(&next)
        && (trims(count("trimmed"))..=trims(count("trimming"))).contains(&first)
        && heard == b"goes on";
    (!is_right).then(|| format!("it holds {first}..{next} of {marks:?}"))
}

#[test]
fn a_crash_while_an_inbox_is_trimmed_leaves_what_was_not_and_takes_what_was() {
    let recording = recorded_inbox(|_| ());
    holds_throughout(&recording, fault_of_inbox, 6, |_| Loss::Nothing);
    holds_throughout(&recording, fault_of_inbox, 7, |_| Loss::Unsynced);
    holds_throughout(&recording, fault_of_inbox, 8, |chance| {
        Loss::Some(chance.draw())
    });
}

/// The test of the test: on a disk that does not sync when it is told to, appends are acknowledged
/// too early, and that is found out.
#[test]
fn an_append_that_is_acknowledged_before_it_is_durable_is_found_out() {
    let recording = recorded(Watch::danger_lie_about_syncs);
    let end = recording.len();
    let fault_after = |loss| {
        let image = recording.image(end, loss);
        fault_of(&recording, end, &image, scratch().path())
    };
    assert!(fault_after(Loss::Unsynced).is_some());
    assert_eq!(fault_after(Loss::Nothing), None);
    let recording = recorded_inbox(Watch::danger_lie_about_syncs);
    let image = recording.image(recording.len(), Loss::Unsynced);
    let fault = fault_of_inbox(&recording, recording.len(), &image, scratch().path());
    assert!(fault.is_some());
}

/// Appends on a disk that fails at one call. Returns whether that call came.
async fn fails_at(after: u64, fault: Fault, lasting: Lasting) -> bool {
    let case = format!("{after}: {fault:?} {lasting:?}");
    let folder = scratch();
    let watch = Watch::begin(folder.path()).unwrap();
    watch.fail(after, fault, lasting);
    let mut opened = FileBus::open(folder.path()).await;
    let mut acknowledged = Vec::new();
    for batch in &batches()[..5] {
        let done = match &opened {
            Ok(bus) => bus.append(&topic(), batch.clone()).await.map(drop),
            Err(_) => {
                opened = FileBus::open(folder.path()).await;
                continue;
            }
        };
        match done {
            Ok(()) => acknowledged.push(batch.clone()),
            Err(error) => assert!(is_told_well(&error, fault), "{case}: {error:?}"),
        }
    }
    if let Err(error) = &opened {
        assert!(is_told_well(error, fault), "{case}: {error:?}");
    }
    let has_failed = watch.mend();
    // The handle that met the fault goes on, and so does whoever opens the bus anew.
    if let Ok(bus) = &opened {
        bus.append(&topic(), vec![b"on".to_vec()]).await.unwrap();
        acknowledged.push(vec![b"on".to_vec()]);
    }
    drop(opened);
    let bus = FileBus::open(folder.path()).await.unwrap();
    let found = payloads(&bus).await.unwrap();
    // An append whose answer was an error may have been made whole.
    let mut rest = found.as_slice();
    for batch in &acknowledged {
        while !rest.starts_with(batch) {
            let doubtful = batches().into_iter().find(|of| rest.starts_with(of));
            let doubtful = doubtful.unwrap_or_else(|| panic!("{case}: a batch is lost or cut"));
            rest = &rest[doubtful.len()..];
        }
        rest = &rest[batch.len()..];
    }
    assert!(rest.is_empty(), "{case}: {} items more", rest.len());
    has_failed
}

fn is_told_well(error: &BusError, fault: Fault) -> bool {
    match fault {
        Fault::Full => matches!(error, BusError::Full { .. }),
        Fault::Broken => matches!(error, BusError::Unreachable { .. }),
    }
}

#[tokio::test]
async fn a_disk_that_fails_at_any_write_or_sync_is_told_and_costs_nothing_that_was_acknowledged() {
    for fault in [Fault::Full, Fault::Broken] {
        for lasting in [Lasting::Once, Lasting::On] {
            let mut after = 0;
            while fails_at(after, fault, lasting).await {
                after += 1;
            }
            assert!(after > 10, "{after}");
        }
    }
}
