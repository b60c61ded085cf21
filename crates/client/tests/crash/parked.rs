//! Power cuts at any moment at which messages come to wait, or are delivered and wait no more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{Delivery, Error, Home, Parked, Stream, Subscription};
use sealcast_crash::{Chance, Loss, Recording, Watch};
use tokio::time::timeout;

use crate::play::{CLEAR, grant};
use crate::scene::{Fault, Scene, runtime, told};

const MOMENTS: usize = 120;
const MESSAGES: usize = 6;

async fn open(scene: &Scene, who: &str) -> Result<(Home, Stream), Error> {
    let home = Home::open(&scene.live().join(who), None).await?;
    let stream = home.stream(&"s".parse().unwrap()).await?;
    Ok((home, stream))
}

fn number(delivery: &Delivery) -> Option<String> {
    let text = std::str::from_utf8(delivery.payload.as_deref()?).unwrap();
    Some(text.replace(CLEAR, "").trim().to_owned())
}

/// Alice publishes, bob follows and cannot open it; then she grants, and it opens. What bob is
/// handed is marked when he asks for more, as it is when a program has done with it.
async fn follow(scene: &Scene, watch: &Watch) -> Result<(), Error> {
    let (_alice, stream) = open(scene, "alice").await?;
    let (_bob, joined) = open(scene, "bob").await?;
    let mut live = joined.subscribe(None).await?;
    for number in 0..MESSAGES {
        stream
            .publish(format!("{CLEAR} {number}").as_bytes())
            .await?;
        let delivery = live.next().await?;
        assert_eq!(delivery.parked, Parked::Waits);
        watch.mark(format!("waits {number}"));
    }
    grant(&stream, scene.bob).await?;
    for number in 0..MESSAGES {
        let delivery = live.next().await?;
        assert_eq!(delivery.parked, Parked::Waited);
        // What is written in between are moments, too.
        stream.publish(CLEAR.as_bytes()).await?;
        watch.mark(format!("opened {number}"));
    }
    for _ in 0..MESSAGES {
        live.next().await?;
    }
    live.finish().await?;
    watch.mark("finished");
    Ok(())
}

async fn next(live: &mut Subscription) -> Result<Option<Delivery>, Error> {
    let next = timeout(Duration::from_secs(120), live.next()).await;
    next.map_or(Ok(None), |delivery| delivery.map(Some))
}

/// What bob is handed when both go on after the cut.
async fn go_on(scene: &Scene) -> Result<Vec<String>, Error> {
    let (_alice, stream) = open(scene, "alice").await?;
    grant(&stream, scene.bob).await?;
    let (_bob, joined) = open(scene, "bob").await?;
    let waiting = joined.parked().await?.messages;
    let mut live = joined.subscribe(None).await?;
    let mut opened = Vec::new();
    for _ in 0..waiting {
        let delivery = next(&mut live).await?;
        opened.extend(delivery.as_ref().and_then(number));
    }
    live.finish().await?;
    assert_eq!(joined.parked().await?.messages, 0);
    Ok(opened)
}

fn fault_at(scene: &Scene, recording: &Recording, end: usize) -> Result<(), Fault> {
    let marks: Vec<_> = recording.marks(end);
    let marked = |what: &str| -> BTreeSet<String> {
        let of = marks.iter().filter_map(|mark| mark.strip_prefix(what));
        of.map(str::to_owned).collect()
    };
    let (waits, opened) = (marked("waits "), marked("opened "));
    let is_finished = marks.contains(&"finished");
    let after = runtime().block_on(go_on(scene)).map_err(told)?;
    let says = format!("{waits:?} waited, {opened:?} opened, then {after:?}");
    let is_lost = |of: &&String| !opened.contains(*of) && !after.contains(of);
    match after.windows(2).all(|pair| pair[0] < pair[1]) {
        _ if waits.iter().any(|of| is_lost(&of)) => Err(format!("lost: {says}")),
        _ if is_finished && !after.is_empty() => Err(format!("repeated: {says}")),
        false => Err(format!("out of order: {says}")),
        true => Ok(()),
    }
}

fn holds_at_every_moment(seed: u64, loss: impl FnMut(&mut Chance) -> Loss) {
    let scene = Scene::new();
    let watch = Arc::new(Watch::begin(&scene.live()).unwrap());
    runtime().block_on(follow(&scene, &watch)).unwrap();
    let recording = watch.recording();
    let looked_at = recording.look_at_crashes(MOMENTS, seed, loss, |end, image| {
        image.restore(&scene.live()).unwrap();
        fault_at(&scene, &recording, end)
    });
    assert!(looked_at.unwrap_or_else(|fault| panic!("{fault}")) > MOMENTS / 2);
}

#[test]
fn a_power_cut_loses_nothing_that_waits() {
    holds_at_every_moment(11, |_| Loss::Unsynced);
}

#[test]
fn nor_does_a_process_that_dies_at_any_write() {
    holds_at_every_moment(12, |_| Loss::Nothing);
}

/// The test of the test: on a disk that does not sync, what was said to wait is lost.
#[test]
fn what_is_told_to_wait_before_it_is_durable_is_found_out() {
    let scene = Scene::new();
    let watch = Watch::begin(&scene.live()).unwrap();
    watch.danger_lie_about_syncs();
    runtime().block_on(follow(&scene, &watch)).unwrap();
    let recording = watch.recording();
    let waits = |end: &usize| recording.marks(*end).contains(&"waits 5");
    let end = (0..recording.len()).find(waits).unwrap();
    let image = recording.image(end, Loss::Unsynced);
    image.restore(&scene.live()).unwrap();
    assert!(fault_at(&scene, &recording, end).is_err());
}
