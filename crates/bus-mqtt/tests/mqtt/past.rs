//! What passed before a home came is handed out by who kept it.

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, FileBus, Offset};
use tokio::time::timeout;

use crate::rig::{
    HUNG_AFTER, Home, all, numbered, open, open_archive, put, sorted, topic, wait_for,
    wait_until_marked,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_home_has_all_messages_from_an_archive() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (topic("s/1f/data"), topic("s/1f/data/kitchen"));
    // The archive follows from before the first message, at first as any home does.
    let archive = open(&server, "x", folder.path()).await;
    archive.end(&data).await.unwrap();
    drop(archive);
    let writer = Home::on(&server, "x").await;
    let texts = numbered("text", 700);
    for some in texts.chunks(35) {
        let payloads = some.iter().map(|text| text.clone().into_bytes());
        writer.bus.append(&data, payloads.collect()).await.unwrap();
    }
    put(&writer.bus, &other, "besides").await;
    let large = vec![b'x'; (1 << 20) + 5];
    writer.bus.append(&other, vec![large]).await.unwrap();
    drop(writer);
    let _archive = open_archive(&server, "x", folder.path()).await;
    let late = Home::on(&server, "x").await;
    // It has to have the questions before anybody asks.
    let asked = async {
        loop {
            let late = Home::on(&server, "x").await;
            if late.bus.end(&data).await.unwrap() > Offset(0) {
                return late;
            }
        }
    };
    let first = timeout(HUNG_AFTER, asked).await.expect("it is asked");
    for home in [first, late] {
        // An archive that is late with its first answer is not waited for, and comes all the same.
        assert_eq!(wait_for(&home.bus, &data, texts.len()).await, texts);
        assert_eq!(all(&home.bus, &data).await, texts);
        let besides = wait_for(&home.bus, &other, 2).await;
        assert_eq!(
            (besides[0].as_str(), besides[1].len()),
            ("besides", (1 << 20) + 5)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_archives_the_one_with_more_is_not_cut_short() {
    let server = Server::start();
    let data = topic("s/1f/data");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let short = open_archive(&server, "x", folders[0].path()).await;
    let long = open_archive(&server, "x", folders[1].path()).await;
    short.end(&data).await.unwrap();
    long.end(&data).await.unwrap();
    let writer = Home::on(&server, "x").await;
    let texts = numbered("text", 700);
    for some in texts.chunks(35) {
        let payloads = some.iter().map(|text| text.clone().into_bytes());
        writer.bus.append(&data, payloads.collect()).await.unwrap();
    }
    drop(writer);
    for archive in [&short, &long] {
        wait_for(archive, &data, texts.len()).await;
    }
    short.trim(&data, Offset(690)).await.unwrap();
    let late = Home::on(&server, "x").await;
    assert_eq!(sorted(wait_for(&late.bus, &data, 700).await), texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_broker_lost_is_sent_again_by_who_wrote_it_and_nothing_comes_twice() {
    let mut server = Server::start();
    let (writer, reader) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let data = topic("s/1f/data");
    reader.bus.end(&data).await.unwrap();
    let following = tokio::spawn({
        let (bus, data) = (reader.bus.clone(), data.clone());
        async move { wait_for(&bus, &data, 60).await }
    });
    let texts = numbered("text", 60);
    for (round, some) in texts.chunks(20).enumerate() {
        for text in some {
            put(&writer.bus, &data, text).await;
        }
        if round == 0 {
            server.save();
        }
        server.kill();
        server.restart();
    }
    assert_eq!(sorted(following.await.unwrap()), texts);
    assert_eq!(reader.bus.end(&data).await.unwrap(), Offset(60));
    assert_eq!(all(&writer.bus, &data).await, texts);
}

/// So that what is sent again is bounded: no more than a page, and nothing that was written long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_a_killed_broker_lost_the_newest_is_sent_again_and_nothing_old() {
    const AGAIN: usize = 256;
    let mut server = Server::start();
    let writer = Home::on(&server, "x").await;
    let (data, other) = (topic("s/1f/data"), topic("s/2f/data"));
    let texts = numbered("text", AGAIN + 20);
    for text in &texts {
        put(&writer.bus, &data, text).await;
    }
    put(&writer.bus, &other, "old").await;
    let Home { folder, bus } = writer;
    drop(bus);
    // As if all of the other topic had been written eleven minutes ago.
    let mirror = rusqlite::Connection::open(folder.path().join("logs/bus.db")).unwrap();
    let aged: usize = ["arrival", "batch"]
        .map(|table| {
            let of = "SELECT id FROM topic WHERE name = 's/2f/data'";
            let age = format!("UPDATE {table} SET time = time - 660000 WHERE key >> 40 = ({of})");
            mirror.execute(&age, []).unwrap()
        })
        .iter()
        .sum();
    assert_eq!(aged, 1);
    drop(mirror);
    server.kill();
    server.restart();
    let late = Home::on(&server, "x").await;
    for topic in [&data, &other] {
        assert_eq!(late.bus.end(topic).await.unwrap(), Offset(0));
    }
    let writer = open(&server, "x", folder.path()).await;
    let found = wait_for(&late.bus, &data, AGAIN).await;
    assert_eq!(sorted(found), texts[20..]);
    for topic in [&other, &data] {
        put(&writer, topic, "new").await;
    }
    assert_eq!(wait_for(&late.bus, &data, AGAIN + 1).await[AGAIN], "new");
    assert_eq!(all(&late.bus, &other).await, ["new"]);
}

/// Of each log that is kept and each that is not, what was written before and after the broker saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_broker_lost_is_put_back_by_who_stayed_and_by_who_starts_anew() {
    let mut server = Server::start();
    let logs = [topic("s/1f/keys"), topic("s/1f/data")];
    let (stays, leaves, away) = (
        Home::on(&server, "x").await,
        Home::on(&server, "x").await,
        Home::on(&server, "x").await,
    );
    for log in &logs {
        away.bus.end(log).await.unwrap();
        put(&stays.bus, log, "before, stays").await;
        put(&leaves.bus, log, "before, leaves").await;
        assert_eq!(all(&away.bus, log).await.len(), 2);
    }
    wait_until_marked(leaves.folder.path(), Offset(0)).await;
    let Home { folder, bus } = away;
    drop(bus);
    server.save();
    for log in &logs {
        put(&stays.bus, log, "after, stays").await;
        put(&leaves.bus, log, "after, leaves").await;
    }
    let of_leaves = leaves.folder;
    drop(leaves.bus);
    server.kill();
    server.restart();
    let _leaves = open(&server, "x", of_leaves.path()).await;
    let away = open(&server, "x", folder.path()).await;
    for log in &logs {
        let found = sorted(wait_for(&away, log, 4).await);
        let expected = [
            "after, leaves",
            "after, stays",
            "before, leaves",
            "before, stays",
        ];
        assert_eq!(found, expected);
        assert_eq!(away.end(log).await.unwrap(), Offset(4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_lost_for_a_home_that_was_away_it_gets_from_an_archive() {
    let mut server = Server::start();
    let data = topic("s/1f/data");
    let folder = tempfile::tempdir().unwrap();
    let archive = open_archive(&server, "x", folder.path()).await;
    archive.end(&data).await.unwrap();
    let (writer, away) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    put(&writer.bus, &data, "before").await;
    wait_for(&away.bus, &data, 1).await;
    let Home { folder, bus } = away;
    wait_until_marked(folder.path(), Offset(0)).await;
    drop(bus);
    server.save();
    put(&writer.bus, &data, "after").await;
    wait_for(&archive, &data, 2).await;
    // Nobody who wrote it is there to send it again.
    drop(writer);
    server.kill();
    server.restart();
    // It was away for longer than it takes the others to have nothing for it.
    let own = FileBus::open(folder.path().join("own")).await.unwrap();
    let said = own.read(&topic("mark"), Offset(0), 1 << 10).await.unwrap();
    let mut mark = said.last().unwrap().payload.clone();
    *mark.last_chunk_mut().unwrap() = 0_u64.to_be_bytes();
    own.append(&topic("mark"), vec![mark]).await.unwrap();
    let away = open(&server, "x", folder.path()).await;
    assert_eq!(wait_for(&away, &data, 2).await, ["before", "after"]);
}
