//! What several homes see of one bus: the same items, each in an order of its own.

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, FileBus, Offset};

use crate::rig::{Home, all, numbered, open, put, sorted, topic, wait_for, wait_until_marked};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_have_the_same_items_and_each_writers_in_its_order() {
    const EACH: usize = 40;
    let server = Server::start();
    let homes = [Home::on(&server, "x").await, Home::on(&server, "x").await];
    for log in [topic("s/1f/keys"), topic("s/1f/data/kitchen")] {
        for home in &homes {
            home.bus.end(&log).await.unwrap();
        }
        let write = async |home: &Home, name: &str| {
            for text in numbered(name, EACH) {
                put(&home.bus, &log, text).await;
            }
        };
        tokio::join!(write(&homes[0], "A"), write(&homes[1], "B"));
        let mut seen = Vec::new();
        for home in &homes {
            // Whoever asks after an append has returned sees it, wherever it was made.
            let found = all(&home.bus, &log).await;
            for name in ["A", "B"] {
                let of = found.iter().filter(|text| text.starts_with(name));
                let of: Vec<_> = of.cloned().collect();
                assert_eq!(of, numbered(name, EACH));
            }
            assert_eq!(wait_for(&home.bus, &log, 2 * EACH).await, found);
            seen.push(sorted(found));
        }
        assert_eq!(seen[0], seen[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_home_has_all_entries_in_the_order_of_their_home() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (list, data) = (topic("u/2e/devices"), topic("s/1f/data"));
    // Of which nobody has to know the end before all else is there.
    let other = topic("s/1f/list");
    let entries = numbered("entry", 24);
    for some in entries.chunks(3) {
        // Each command is a process of its own, and another writer to the broker.
        let bus = open(&server, "x", folder.path()).await;
        for text in some {
            for log in [&list, &other, &data] {
                put(&bus, log, text).await;
            }
        }
    }
    let gone = Home::on(&server, "x").await;
    put(&gone.bus, &topic("s/2f/data"), "gone").await;
    drop(gone);
    let late = Home::on(&server, "x").await;
    for log in [&list, &other] {
        assert_eq!(all(&late.bus, log).await, entries);
    }
    // What passed before it came, nobody hands out.
    assert_eq!(all(&late.bus, &topic("s/2f/data")).await, [""; 0]);
    let early = open(&server, "x", folder.path()).await;
    assert_eq!(all(&early, &data).await, entries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passed_while_a_home_was_away_waits_for_it() {
    let mut server = Server::start();
    let reader = Home::on(&server, "x").await;
    let writer = Home::on(&server, "x").await;
    let logs = [topic("s/1f/data"), topic("s/1f/keys")];
    for log in &logs {
        reader.bus.end(log).await.unwrap();
        put(&writer.bus, log, "before").await;
    }
    let Home { folder, bus } = reader;
    drop(bus);
    for log in &logs {
        put(&writer.bus, log, "meanwhile").await;
    }
    server.stop();
    server.restart();
    for log in &logs {
        put(&writer.bus, log, "after").await;
    }
    let bus = open(&server, "x", folder.path()).await;
    for log in &logs {
        assert_eq!(all(&bus, log).await, ["before", "meanwhile", "after"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_forgot_what_a_home_follows_is_told_again() {
    let mut server = Server::start();
    let writer = Home::on(&server, "x").await;
    let reader = Home::on(&server, "x").await;
    let (one, two) = (topic("s/1f/keys"), topic("s/2f/keys"));
    reader.bus.end(&one).await.unwrap();
    server.save();
    // This is lost, and nobody of the home is there to see it.
    reader.bus.end(&two).await.unwrap();
    let Home { folder, bus } = reader;
    drop(bus);
    server.kill();
    server.restart();
    let bus = open(&server, "x", folder.path()).await;
    put(&writer.bus, &two, "new").await;
    assert_eq!(wait_for(&bus, &two, 1).await, ["new"]);
    let data = topic("s/2f/data");
    assert_eq!(bus.end(&data).await.unwrap(), Offset(0));
    put(&writer.bus, &data, "new").await;
    assert_eq!(bus.end(&data).await.unwrap(), Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_inbox_was_trimmed_of_is_gone_from_the_broker_and_does_not_come_back() {
    let server = Server::start();
    let owner = Home::on(&server, "x").await;
    let inbox = topic("d/3d/inbox");
    let other = Home::on(&server, "x").await;
    for text in numbered("for you", 5) {
        put(&other.bus, &inbox, text).await;
    }
    let whole = vec![b"two".to_vec(), b"at once".to_vec()];
    other.bus.append(&inbox, whole).await.unwrap();
    assert_eq!(owner.bus.end(&inbox).await.unwrap(), Offset(7));
    // One half of the last append stays.
    owner.bus.trim(&inbox, Offset(6)).await.unwrap();
    let late = Home::on(&server, "x").await;
    assert_eq!(all(&late.bus, &inbox).await, ["two", "at once"]);
    assert_eq!(all(&owner.bus, &inbox).await, ["at once"]);
    owner.bus.trim(&inbox, Offset(u64::MAX)).await.unwrap();
    let late = Home::on(&server, "x").await;
    assert_eq!(all(&late.bus, &inbox).await, [""; 0]);
    let Home { folder, bus } = owner;
    drop(bus);
    let bus = open(&server, "x", folder.path()).await;
    assert_eq!(bus.end(&inbox).await.unwrap(), Offset(7));
    assert_eq!(put(&bus, &inbox, "next").await, Offset(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_owner_took_out_of_an_inbox_is_not_put_back_by_who_wrote_it() {
    let server = Server::start();
    let (owner, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let inbox = topic("d/3d/inbox");
    for text in numbered("for you", 3) {
        put(&writer.bus, &inbox, text).await;
    }
    wait_until_marked(writer.folder.path(), Offset(0)).await;
    assert_eq!(owner.bus.end(&inbox).await.unwrap(), Offset(3));
    let Home { folder, bus } = writer;
    drop(bus);
    owner.bus.trim(&inbox, Offset(2)).await.unwrap();
    drop(owner);
    let _writer = open(&server, "x", folder.path()).await;
    wait_until_marked(folder.path(), Offset(1)).await;
    let late = Home::on(&server, "x").await;
    assert_eq!(all(&late.bus, &inbox).await, ["for you 002"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_to_be_followed_while_nobody_fed_is_there_later() {
    let server = Server::start();
    let Home { folder, bus } = Home::on(&server, "x").await;
    put(&bus, &topic("s/1f/keys"), "one").await;
    wait_until_marked(folder.path(), Offset(0)).await;
    drop(bus);
    // As a process does that is killed while it waits.
    let own = FileBus::open(folder.path().join("own")).await.unwrap();
    put(&own, &topic("follow"), "s/2f/#").await;
    let bus = open(&server, "x", folder.path()).await;
    assert_eq!(bus.end(&topic("s/2f/keys")).await.unwrap(), Offset(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_hear_one_another() {
    let server = Server::start();
    let (one, two) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let ask = topic("s/1f/ask");
    let mut listener = two.bus.listen(vec![ask.clone()]).await.unwrap();
    for text in numbered("who?", 5) {
        one.bus.send(&ask, text.clone().into_bytes()).await.unwrap();
        let heard = listener.next().await.unwrap();
        assert_eq!(heard, (ask.clone(), text.into_bytes()));
    }
}
