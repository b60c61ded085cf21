//! What an MQTT bus does when its broker, or the way to it, breaks.

use std::sync::Arc;
use std::time::Duration;

use sealcast_brokers::mosquitto::Server;
use sealcast_brokers::{Proxy, Trouble};
use sealcast_bus::conformance::{Writing, appended_amid_faults, in_turn_amid_faults};
use sealcast_bus::{Bus, BusError, Offset, ServerOptions, Topic};
use sealcast_bus_mqtt::MqttBus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::rig::{Home, address, all, end_surely, numbered, open_at, put, sorted, topic, wait_for};

fn url(proxy: &Proxy) -> String {
    format!("mqtt://127.0.0.1:{}/x", proxy.port())
}

/// Appends, and again when it is told that this may not have been done.
async fn append_surely(bus: &MqttBus, log: &Topic, texts: &[String]) {
    for text in texts {
        while bus
            .append(log, vec![text.clone().into_bytes()])
            .await
            .is_err()
        {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_again_and_again_has_all_entries_in_the_end() {
    const ENTRIES: usize = 60;
    let mut server = Server::start();
    let (writer, reader) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let log = topic("s/1f/keys");
    let following = tokio::spawn({
        let (bus, log) = (reader.bus.clone(), log.clone());
        async move { wait_for(&bus, &log, ENTRIES).await }
    });
    let writing = tokio::spawn({
        let (bus, log) = (writer.bus.clone(), log.clone());
        async move {
            for text in numbered("entry", ENTRIES) {
                put(&bus, &log, text).await;
            }
        }
    });
    for round in 1..=3 {
        // It keeps some of it for the first time, and then loses what came since.
        wait_for(&writer.bus, &log, round * 15).await;
        if round == 1 {
            server.save();
        }
        sleep(Duration::from_millis(round as u64 * 3)).await;
        server.kill();
        server.restart();
    }
    writing.await.unwrap();
    let expected = numbered("entry", ENTRIES);
    assert_eq!(all(&writer.bus, &log).await, expected);
    // Nothing comes twice.
    assert_eq!(sorted(following.await.unwrap()), expected);
    assert_eq!(all(&reader.bus, &log).await.len(), ENTRIES);
    let late = Home::on(&server, "x").await;
    assert_eq!(sorted(wait_for(&late.bus, &log, ENTRIES).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_lose_and_double_nothing() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let writer = open_at(&url(&proxy), folders[0].path()).await;
    let reader = open_at(&url(&proxy), folders[1].path()).await;
    let log = topic("s/1f/data");
    reader.end(&log).await.unwrap();
    let all_texts = numbered("text", 60);
    for (round, texts) in all_texts.chunks(10).enumerate() {
        let breaking = async {
            sleep(Duration::from_millis(round as u64 % 4)).await;
            match round % 3 {
                0 => proxy.renew().await,
                1 => {
                    proxy.mute();
                    sleep(Duration::from_millis(20)).await;
                    proxy.renew().await;
                }
                _ => proxy.slow(700, Duration::from_millis(2)),
            }
        };
        let writing = async {
            for text in texts {
                put(&writer, &log, text).await;
            }
        };
        tokio::join!(writing, breaking);
        proxy.open();
    }
    assert_eq!(wait_for(&reader, &log, 60).await, all_texts);
    assert_eq!(reader.end(&log).await.unwrap(), Offset(60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_over_connections_that_break() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let writer = open_at(&url(&proxy), folder.path()).await;
    let reader = Home::on(&server, "x").await;
    let trouble = async |round: usize, writing: &Writing<'_>| {
        let trouble = Trouble::ALL[round];
        proxy.suffer(trouble, writing.is_ahead()).await;
    };
    let rounds = Trouble::ALL.len();
    in_turn_amid_faults(Arc::new(writer), &reader.bus, rounds, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_over_connections_that_break_has_all_in_order_and_once() {
    const EACH: usize = 20;
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let reader = open_at(&url(&proxy), folder.path()).await;
    let writer = Home::on(&server, "x").await;
    let log = topic("s/1f/data");
    reader.end(&log).await.unwrap();
    let texts = numbered("text", EACH * Trouble::ALL.len());
    let following = tokio::spawn({
        let (bus, log, count) = (reader.clone(), log.clone(), texts.len());
        async move { wait_for(&bus, &log, count).await }
    });
    for (trouble, texts) in Trouble::ALL.into_iter().zip(texts.chunks(EACH)) {
        let (early, late) = texts.split_at(EACH / 2);
        for text in early {
            put(&writer.bus, &log, text).await;
        }
        let rest = async {
            for text in late {
                put(&writer.bus, &log, text).await;
            }
        };
        // The broker hears nothing of what the reader has got meanwhile.
        let (written, is_written) = tokio::sync::oneshot::channel();
        let suffering = proxy.suffer(trouble, async { is_written.await.unwrap() });
        tokio::join!(suffering, async {
            rest.await;
            // Most troubles do not wait for it.
            written.send(()).ok();
        });
    }
    assert_eq!(following.await.unwrap(), texts);
    assert_eq!(reader.end(&log).await.unwrap(), Offset(texts.len() as u64));
}

/// The first time it has appends that it has not said anything of, and each time it loses others that it has acknowledged.
/// What is sent again comes when it comes, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_once_after_a_broker_was_killed() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let writer = open_at(&url(&proxy), folder.path()).await;
    let reader = Home::on(&server, "x").await;
    let server = Mutex::new(server);
    let kill = async |round, writing: &Writing<'_>| {
        // Later the reader may lack what was lost, and nobody can tell what else there is.
        if round == 0 {
            proxy.mute();
            writing.is_ahead().await;
        }
        let mut server = server.lock().await;
        if round == 1 {
            server.save();
        }
        server.kill();
        proxy.renew().await;
        server.restart();
    };
    let bus = Arc::new(writer.clone());
    let log = topic("s/1f/data");
    let appended = appended_amid_faults(bus, &reader.bus, &log, 3, kill).await;
    let appended: Vec<_> = appended.into_iter().map(String::from_utf8).collect();
    let expected: Vec<_> = appended.into_iter().map(Result::unwrap).collect();
    assert_eq!(all(&writer, &log).await, expected);
    let found = wait_for(&reader.bus, &log, expected.len()).await;
    assert_eq!(sorted(found), sorted(expected.clone()));
    let end = Offset(expected.len() as u64);
    assert_eq!(reader.bus.end(&log).await.unwrap(), end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_appends_come_whole_over_connections_that_break() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let writer = open_at(&url(&proxy), folder.path()).await;
    let reader = Home::on(&server, "x").await;
    for log in [topic("s/1f/keys"), topic("s/1f/data")] {
        reader.bus.end(&log).await.unwrap();
        let payload = |number: u64| vec![number as u8; (3 << 20) + 17];
        for number in 0..3 {
            let breaking = async {
                sleep(Duration::from_millis(number * 4)).await;
                proxy.renew().await;
            };
            let appending = writer.append(&log, vec![payload(number), b"end".to_vec()]);
            let (first, ()) = tokio::join!(appending, breaking);
            assert_eq!(first.unwrap(), Offset(2 * number));
        }
        for number in 0..3 {
            let items = reader.bus.read(&log, Offset(2 * number), 1).await.unwrap();
            assert_eq!(items[0].payload, payload(number));
        }
        assert_eq!(reader.bus.end(&log).await.unwrap(), Offset(6));
    }
    let late = Home::on(&server, "x").await;
    let keys = topic("s/1f/keys");
    assert_eq!(end_surely(&late.bus, &keys).await, Offset(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_by_many_at_once_are_on_their_way_together() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let bus = open_at(&url(&proxy), folder.path()).await;
    let log = topic("s/1f/data");
    bus.end(&log).await.unwrap();
    // Nothing is answered while all of them set out.
    proxy.mute();
    let texts = numbered("text", 200);
    let appending: Vec<_> = texts
        .iter()
        .map(|text| {
            let (bus, log, text) = (bus.clone(), log.clone(), text.clone());
            tokio::spawn(async move { append_surely(&bus, &log, &[text]).await })
        })
        .collect();
    let reader = Home::on(&server, "x").await;
    let _ = reader.bus.end(&log).await.unwrap();
    proxy.renew().await;
    for appended in appending {
        appended.await.unwrap();
    }
    assert_eq!(sorted(all(&bus, &log).await), texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_is_named() {
    let mut server = Server::start();
    server.kill();
    let folder = tempfile::tempdir().unwrap();
    let options = ServerOptions::default();
    let opened = MqttBus::open(&address(&server.url("x")), &options, folder.path()).await;
    let error = opened.unwrap_err();
    let BusError::Unreachable { place, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*place, server.url("x"));
}

/// Stands before a broker and turns away who speaks MQTT 5, as those do that know nothing of it.
async fn without_five(server: u16, says: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut start = vec![0; 4 << 10];
                let count = client.read(&mut start).await.unwrap();
                // Behind the head and the name of the protocol.
                if start[8] == 5 {
                    client.write_all(says).await.unwrap();
                    return;
                }
                let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                server.write_all(&start[..count]).await.unwrap();
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_knows_no_mqtt_5_is_spoken_to_in_3_1_1() {
    let server = Server::start();
    let log = topic("s/1f/keys");
    for (count, says) in [(1, &b"\x20\x02\x00\x01"[..]), (2, b"")] {
        let port = without_five(server.port(), says).await;
        let folder = tempfile::tempdir().unwrap();
        for half in 0..2 {
            let bus = open_at(&format!("mqtt://127.0.0.1:{port}/x"), folder.path()).await;
            put(&bus, &log, format!("{count} {half}")).await;
            put(&bus, &topic("s/1f/data"), half).await;
            let data = all(&bus, &topic("s/1f/data")).await;
            assert_eq!(data, ["0", "1"][..=half]);
            let mut listener = bus.listen(vec![topic("ask")]).await.unwrap();
            bus.send(&topic("ask"), b"who?".to_vec()).await.unwrap();
            assert_eq!(listener.next().await.unwrap().1, b"who?");
        }
    }
    let five = Home::on(&server, "x").await;
    assert_eq!(all(&five.bus, &log).await, ["1 0", "1 1", "2 0", "2 1"]);
}

/// It acknowledges what is too large for it, and drops that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_3_1_1_is_given_no_more_at_once_than_any_takes() {
    let server = Server::start_with("allow_anonymous true\nmessage_size_limit 98304");
    let port = without_five(server.port(), b"").await;
    let folder = tempfile::tempdir().unwrap();
    let bus = open_at(&format!("mqtt://127.0.0.1:{port}/x"), folder.path()).await;
    let log = topic("s/1f/keys");
    let large = vec![b'x'; 300_000];
    bus.append(&log, vec![large.clone()]).await.unwrap();
    let five = Home::on(&server, "x").await;
    assert_eq!(five.bus.end(&log).await.unwrap(), Offset(1));
    let items = five.bus.read(&log, Offset(0), 1).await.unwrap();
    assert!(items[0].payload == large, "it is whole");
}
