//! What a process publishes on data topics over the connection over which it feeds the mirror.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, Offset};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Home, all, numbered, open_at, put, topic, wait_for};

/// Stands before a broker and counts the bytes that it says.
async fn counting(server: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&said);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = tokio::io::copy(&mut from_client, &mut to_server);
                let down = async {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                        counted.fetch_add(count, Ordering::Relaxed);
                        to_client.write_all(&bytes[..count]).await.unwrap();
                    }
                };
                tokio::join!(up, down).0.ok();
            });
        }
    });
    (port, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_does_not_bring_it_back() {
    const BYTES: usize = 3 << 20;
    let server = Server::start();
    let (port, said) = counting(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://127.0.0.1:{port}/x?topics=plant/#");
    let writer = open_at(&url, folder.path()).await;
    let reader = Home::on(&server, "x").await;
    let data = topic("s/1f/data");
    reader.bus.end(&data).await.unwrap();
    assert_eq!(writer.end(&data).await.unwrap(), Offset(0));
    writer.append(&data, vec![vec![7; BYTES]]).await.unwrap();
    let users = sealcast_bus::TopicItem {
        topic: "plant/7",
        payload: &[7; 300_000],
    };
    let item = users.encode().unwrap();
    writer.append(&data, vec![item]).await.unwrap();
    assert_eq!(writer.end(&data).await.unwrap(), Offset(2));
    assert_eq!(reader.bus.end(&data).await.unwrap(), Offset(1));
    let came = said.load(Ordering::Relaxed);
    assert!(came < 100_000, "{came} bytes came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_of_the_home_publishes_comes_all_the_same() {
    let server = Server::start();
    let Home { folder, bus } = Home::on(&server, "x").await;
    let data = topic("s/1f/data");
    bus.end(&data).await.unwrap();
    // Another handle, which does not feed.
    let other = crate::rig::open(&server, "x", folder.path()).await;
    let texts = numbered("text", 20);
    for (number, text) in texts.iter().enumerate() {
        let by = [&bus, &other][number % 2];
        put(by, &data, text).await;
        for handle in [&bus, &other] {
            assert_eq!(handle.end(&data).await.unwrap(), Offset(number as u64 + 1));
        }
    }
    assert_eq!(all(&other, &data).await, texts);
    assert_eq!(wait_for(&bus, &data, 20).await, texts);
}
