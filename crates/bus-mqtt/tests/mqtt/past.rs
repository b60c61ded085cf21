//! What passed before a home came is handed out by who kept it.

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, Offset};

use crate::rig::{Home, all, numbered, open, open_archive, put, sorted, topic, wait_for};

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
    let first = asked.await;
    for home in [first, late] {
        assert_eq!(all(&home.bus, &data).await, texts);
        let besides = all(&home.bus, &other).await;
        assert_eq!(
            (besides[0].as_str(), besides[1].len()),
            ("besides", (1 << 20) + 5)
        );
    }
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
