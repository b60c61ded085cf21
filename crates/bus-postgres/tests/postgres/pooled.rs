//! A pooler between a PostgreSQL bus and its server.

use std::error::Error as _;

use sealcast_brokers::pgbouncer::Pooler;
use sealcast_bus::{Bus, BusError, Offset, ServerOptions};
use sealcast_bus_postgres::PostgresBus;
use tokio_postgres::{Client, NoTls};

use crate::rig::{address, open, shared, topic, within};

/// Somebody else who uses it.
async fn client(pooler: &Pooler) -> Client {
    let port = pooler.port();
    let config = format!("host=127.0.0.1 port={port} dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Whoever shares sessions with others keeps nothing of one: it is found out before anything is set or
/// written, whether it takes offence at what it is told or leaves it out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_keeps_no_sessions_is_told_of_and_nothing_is_done_behind_it() {
    let server = shared();
    for (name, config) in [
        ("pooled-1", "pool_mode = transaction"),
        (
            "pooled-2",
            "pool_mode = transaction\nignore_startup_parameters = options\nserver_round_robin = 1",
        ),
        ("pooled-3", "pool_mode = statement"),
    ] {
        let pooler = Pooler::before(&server, config);
        let (url, options) = (address(&pooler.url(name)), ServerOptions::default());
        let others = [client(&pooler).await, client(&pooler).await];
        if name != "pooled-3" {
            // So that there are two sessions.
            for says in ["BEGIN", "COMMIT"] {
                for other in &others {
                    other.batch_execute(says).await.unwrap();
                }
            }
        }
        for _ in 0..3 {
            let opened = within("an answer", PostgresBus::open(&url, &options)).await;
            let checked = within("an answer", PostgresBus::check(&url, &options)).await;
            for error in [opened.unwrap_err(), checked.unwrap_err()] {
                assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
                let cause = error.source().unwrap().to_string();
                assert!(cause.contains("pool_mode"), "{config}: {cause}");
            }
        }
        let made = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{name}'");
        assert_eq!(server.sql(&made).trim(), "0", "{config}");
        // Others get the sessions that were used.
        for other in &others {
            let row = other.query_typed_one("SHOW lock_timeout", &[]).await;
            assert_eq!(row.unwrap().get::<_, &str>(0), "0", "{config}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_sessions_is_as_good_as_none() {
    let server = shared();
    let pooler = Pooler::before(&server, "pool_mode = session");
    let url = address(&pooler.url("sessions"));
    let bus = PostgresBus::open(&url, &ServerOptions::default())
        .await
        .unwrap();
    let (direct, log, ask) = (open(&server, "sessions").await, topic("a"), topic("ask"));
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = within("a listener", bus.listen(vec![ask.clone()]))
        .await
        .unwrap();
    for (from, payload) in [(&bus, b"one"), (&direct, b"two")] {
        from.append(&log, vec![payload.to_vec()]).await.unwrap();
        let (_, items) = within("an item", tail.next()).await.unwrap();
        assert_eq!(items.last().unwrap().payload, payload);
        from.send(&ask, payload.to_vec()).await.unwrap();
        let (_, heard) = within("what was sent", listener.next()).await.unwrap();
        assert_eq!(heard, payload);
    }
}
