//! A NATS bus on three servers of which one ends now and then.

use std::time::Duration;

use sealcast_brokers::nats::Cluster;
use sealcast_bus::{Aspect, Bus, BusError, Item, Offset, ServerOptions, Topic};
use sealcast_bus_nats::NatsBus;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::rig::{address, within};

/// Sets up the bus, once the servers have found each other; without a word it is kept on three.
async fn set_up(cluster: &Cluster) {
    let (address, options) = (address(&cluster.url("x")), ServerOptions::default());
    let making = async {
        loop {
            match NatsBus::setup(&address, &options).await {
                Ok(setup) => return setup,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let setup = within("a cluster that makes a bus", making).await;
    // An attempt that was not answered in time may have made it.
    let all = [setup.made, setup.left].concat();
    assert_eq!(all, ["the stream `x`, on 3 servers"]);
    let checking = async {
        loop {
            // The servers may choose another leader.
            match NatsBus::check(&address, &options).await {
                Ok(report) => return report,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let report = within("a report", checking).await;
    let stated = report.stated(Aspect::Cluster).unwrap();
    assert!(stated.contains("kept on 3 of its servers"), "{stated}");
    let durability = report.stated(Aspect::Durability).unwrap();
    assert!(durability.contains("most of its servers"), "{durability}");
}

async fn open(cluster: &Cluster) -> NatsBus {
    let options = ServerOptions::default();
    let opening = async {
        loop {
            match NatsBus::open(&address(&cluster.url("x")), &options).await {
                Ok(bus) => return bus,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    within("a handle", opening).await
}

/// Appends until it is told to end; tells how many items are acknowledged.
async fn write(bus: NatsBus, log: Topic, ends: watch::Receiver<bool>, acked: watch::Sender<u64>) {
    for number in 0.. {
        append(&bus, &log, number).await;
        acked.send_replace(number + 1);
        if *ends.borrow() {
            return;
        }
    }
}

/// Follows a log until it is told how many items there are in all. An error loses nothing: the next
/// call goes on.
async fn follow(bus: NatsBus, log: Topic, mut total: watch::Receiver<Option<u64>>) {
    let mut tail = bus.tail(vec![(log, Offset(0))]);
    let mut seen = 0;
    while total.borrow().is_none_or(|total| seen < total) {
        let items = tokio::select! {
            news = tail.next() => match news {
                Ok((_, items)) => items,
                Err(_) => continue,
            },
            _ = total.changed() => continue,
        };
        for item in items {
            assert_eq!(item, numbered(seen));
            seen += 1;
        }
    }
}

fn numbered(number: u64) -> Item {
    Item {
        offset: Offset(number),
        payload: number.to_string().into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_servers_are_killed_and_restarted_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start();
    set_up(&cluster).await;
    let (writer, follower) = (open(&cluster).await, open(&cluster).await);
    let log = Topic::new("a/log").unwrap();
    let (end, ends) = watch::channel(false);
    let (acked, mut count) = watch::channel(0);
    let (tell_total, total) = watch::channel(None);
    let writing = tokio::spawn(write(writer, log.clone(), ends, acked));
    let following = tokio::spawn(follow(follower, log.clone(), total));
    let mut more = async || {
        let reached = *count.borrow() + 50;
        let counted = count.wait_for(|count| *count >= reached);
        *within("fifty items more", counted).await.unwrap()
    };
    more().await;
    let leader = cluster.leader("x").await;
    cluster.servers()[leader].kill();
    // The other two go on alone.
    more().await;
    cluster.servers()[leader].restart();
    for index in 0..3 {
        more().await;
        cluster.servers()[index].stop();
        cluster.servers()[index].restart();
    }
    more().await;
    end.send_replace(true);
    within("the end of the writer", writing).await.unwrap();
    let written = *count.borrow();
    tell_total.send_replace(Some(written));
    within("what was written, to who follows", following)
        .await
        .unwrap();

    let reading = read_on(&mut cluster, &log, written);
    within("what was written, to who reads", reading).await;
}

/// Kills the leader while somebody reads what there is.
async fn read_on(cluster: &mut Cluster, log: &Topic, written: u64) {
    let reader = open(cluster).await;
    let mut seen = 0;
    let mut is_killed = false;
    while seen < written {
        if seen > written / 3 && !std::mem::replace(&mut is_killed, true) {
            let leader = cluster.leader("x").await;
            cluster.servers()[leader].kill();
        }
        let bytes_max = usize::try_from(written / 4).unwrap();
        match reader.read(log, Offset(seen), bytes_max).await {
            Ok(items) => {
                for item in items {
                    assert_eq!(item, numbered(seen));
                    seen += 1;
                }
            }
            Err(BusError::Unreachable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(is_killed);
}

/// Appends an item at its place, if need be more often than a handle tries by itself.
async fn append(bus: &NatsBus, log: &Topic, number: u64) {
    let mut is_first = true;
    loop {
        let payload = number.to_string().into_bytes();
        match bus.append_at(log, Offset(number), vec![payload]).await {
            Ok(true) => return,
            // An earlier attempt, of which nothing was known.
            Ok(false) if !is_first => return,
            Err(BusError::Unreachable { .. }) => is_first = false,
            other => panic!("{other:?}"),
        }
    }
}
