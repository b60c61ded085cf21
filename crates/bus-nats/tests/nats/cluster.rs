//! A NATS bus on three servers of which one ends now and then.

use std::net::TcpListener;
use std::time::Duration;

use async_nats::jetstream;
use sealcast_brokers::nats::Server;
use sealcast_bus::{Aspect, Bus, BusError, Offset, ServerOptions, Topic};
use sealcast_bus_nats::NatsBus;
use tokio::time::sleep;

use crate::rig::address;

const SIZE: usize = 3;

/// Ports that are free at this moment.
fn free_ports() -> [u16; SIZE] {
    let listeners = [(); SIZE].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    fn start() -> Self {
        let ports = free_ports();
        let routes = ports
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .join(", ");
        let servers = ports.iter().enumerate().map(|(index, port)| {
            Server::start_with(&format!(
                "server_name: n{index}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            ))
        });
        Self {
            servers: servers.collect(),
        }
    }

    fn url(&self) -> String {
        let servers = self.servers.iter();
        let servers: Vec<_> = servers
            .map(|of| format!("127.0.0.1:{}", of.port()))
            .collect();
        format!("nats://{}/x", servers.join(","))
    }

    /// Sets up the bus, once the servers have found each other; without a word it is kept on three.
    async fn set_up(&self) {
        let options = ServerOptions::default();
        let setup = loop {
            match NatsBus::setup(&address(&self.url()), &options).await {
                Ok(setup) => break setup,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        assert_eq!(setup.made, ["the stream `x`, on 3 servers"]);
        let report = NatsBus::check(&address(&self.url()), &options).await;
        let report = report.unwrap();
        let stated = report.stated(Aspect::Cluster).unwrap();
        assert!(stated.contains("kept on 3 of its servers"), "{stated}");
        let durability = report.stated(Aspect::Durability).unwrap();
        assert!(durability.contains("most of its servers"), "{durability}");
    }

    async fn open(&self) -> NatsBus {
        let options = ServerOptions::default();
        loop {
            match NatsBus::open(&address(&self.url()), &options).await {
                Ok(bus) => return bus,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The server that leads the stream.
    async fn leader(&self) -> usize {
        loop {
            for server in &self.servers {
                let url = format!("127.0.0.1:{}", server.port());
                if let Some(leader) = leader_by(&url).await {
                    return leader;
                }
            }
        }
    }
}

async fn leader_by(url: &str) -> Option<usize> {
    let context = jetstream::new(async_nats::connect(url).await.ok()?);
    let stream = context.get_stream("x").await.ok()?;
    let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
    leader.strip_prefix('n')?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_leader_is_killed_loses_and_doubles_nothing() {
    const ITEMS: u64 = 90;
    let mut cluster = Cluster::start();
    cluster.set_up().await;
    let (writer, follower) = (cluster.open().await, cluster.open().await);
    let log = Topic::new("a/log").unwrap();
    let mut tail = follower.tail(vec![(log.clone(), Offset(0))]);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while (seen.len() as u64) < ITEMS {
            // An error loses nothing: the next call goes on.
            let Ok((_, items)) = tail.next().await else {
                continue;
            };
            for item in items {
                assert_eq!(item.offset, Offset(seen.len() as u64));
                seen.push(item.payload);
            }
        }
        seen
    });
    let (appended, mut count) = tokio::sync::watch::channel(0);
    let writing = tokio::spawn(async move {
        for number in 0..ITEMS {
            append(&writer, &log, number).await;
            appended.send_replace(number);
        }
    });
    for round in 1..=2 {
        count.wait_for(|count| *count >= round * 30).await.unwrap();
        let leader = cluster.leader().await;
        cluster.servers[leader].kill();
        // The other two go on alone.
        let reached = round * 30 + 15;
        count.wait_for(|count| *count >= reached).await.unwrap();
        cluster.servers[leader].restart();
    }
    writing.await.unwrap();
    let expected: Vec<Vec<u8>> = (0..ITEMS).map(|number| number.to_string().into()).collect();
    assert_eq!(following.await.unwrap(), expected);
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
