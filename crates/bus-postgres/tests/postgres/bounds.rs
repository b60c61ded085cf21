//! How much a PostgreSQL bus takes of its server.

use std::time::Duration;

use bytes::Bytes;
use sealcast_brokers::postgres::Server;
use sealcast_bus::{Bus, Offset, Turns};
use tokio::time::timeout;

use crate::rig::{QUICK, open, shared, topic, within};

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_does_not_stay() {
    let server = shared();
    let (bus, ask) = (open(&server, "sent").await, topic("ask"));
    let left = || number(&server.sql("SELECT count(*) FROM sent.sent"));
    // Small ones are not stored.
    bus.send(&ask, vec![1; 5_000]).await.unwrap();
    assert_eq!(left(), 0);
    for _ in 0..1_100 {
        bus.send(&ask, vec![1; 5_001]).await.unwrap();
    }
    assert!((1_000..=1_025).contains(&left()), "{}", left());
    server.sql("UPDATE sent.sent SET made = now() - interval '1 hour'");
    while left() > 0 {
        let before = left();
        bus.send(&ask, vec![1]).await.unwrap();
        assert!(left() < before, "{before}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_has_few_connections_whatever_is_asked_of_it() {
    let server = Server::start_with(QUICK);
    let bus = open(&server, "x").await;
    let mut tail = bus.tail(vec![(topic("log"), Offset(0))]);
    let _listener = bus.listen(vec![topic("ask")]).await.unwrap();
    let mut appending = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (bus, log) = (bus.clone(), topic(&format!("log/{}", number % 7)));
        appending.spawn(async move { bus.append(&log, vec![vec![7; 1_000]]).await.unwrap() });
    }
    while appending.join_next().await.is_some() {}
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sealcast'";
    assert!(number(&server.sql(connections)) <= 5);
    bus.append(&topic("log"), vec![vec![1]]).await.unwrap();
    assert_eq!(tail.next().await.unwrap().1.len(), 1);
    drop((tail, _listener, bus));
    let closed = async {
        while number(&server.sql(connections)) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the end of the connections", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_in_turn_that_nobody_waits_for_keeps_no_connection() {
    let server = Server::start_with(QUICK);
    let bus = open(&server, "x").await;
    server.sql(
        "CREATE FUNCTION x.slow() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON x.items FOR EACH ROW EXECUTE FUNCTION x.slow()",
    );
    for log in ["a", "b", "c"] {
        let (log, turn) = (topic(log), Turns::default().next().await);
        let appending = bus.append_in_turn(&log, vec![Bytes::from("slow")], turn);
        let given_up = timeout(Duration::from_millis(200), appending).await;
        assert!(given_up.is_err(), "{given_up:?}");
    }
    bus.append(&topic("a"), vec![vec![1]]).await.unwrap();
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sealcast'";
    assert_eq!(number(&server.sql(connections)), 1);
    // They were made nevertheless.
    for (log, end) in [("a", 2), ("b", 1), ("c", 1)] {
        assert_eq!(bus.end(&topic(log)).await.unwrap(), Offset(end));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_removes_rows() {
    let server = shared();
    let (bus, inbox) = (open(&server, "trims").await, topic("d/1/inbox"));
    bus.append(&inbox, vec![vec![7; 10_000]; 10]).await.unwrap();
    let left = || number(&server.sql("SELECT count(*) FROM trims.items"));
    bus.trim(&inbox, Offset(4)).await.unwrap();
    assert_eq!(left(), 6);
    bus.trim(&inbox, Offset(u64::MAX)).await.unwrap();
    assert_eq!(left(), 0);
    assert_eq!(number(&server.sql("SELECT count(*) FROM trims.writers")), 1);
}

/// How many are looked at follows from the first, whose size says nothing of those behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_bounded_and_whole_however_unlike_the_sizes_are() {
    let server = shared();
    let (bus, log) = (open(&server, "sizes").await, topic("a"));
    let bytes_max = 50_000;
    let sizes = [
        &[0, 40_000][..],
        &[100; 1_200],
        &[60_000, 0, 0],
        &[20_000; 5],
    ]
    .concat();
    let payloads = sizes.iter().map(|size| vec![7; *size]).collect();
    bus.append(&log, payloads).await.unwrap();
    let mut read: Vec<usize> = Vec::new();
    loop {
        let from = Offset(read.len() as u64);
        let items = bus.read(&log, from, bytes_max).await.unwrap();
        let bytes: usize = items.iter().map(|item| item.payload.len()).sum();
        assert!(bytes <= bytes_max || items.len() == 1, "{bytes} at {from}");
        let Some(first) = items.first() else { break };
        assert_eq!(first.offset, from);
        if read.is_empty() {
            bus.append(&log, vec![vec![7; 300]]).await.unwrap();
        }
        read.extend(items.iter().map(|item| item.payload.len()));
    }
    assert_eq!(read, [&sizes[..], &[300]].concat());
    let small = bus.read(&log, Offset(2), bytes_max).await.unwrap();
    assert_eq!(small.len(), 500, "as many as there is room for");
}

/// Settings of the server, the database or the user that would break a promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bus_depends_on_is_set_for_each_connection() {
    let server = Server::start_with(
        "fsync = off\nsynchronous_commit = off\nbytea_output = 'escape'\n\
         default_transaction_isolation = 'serializable'\nstandard_conforming_strings = off",
    );
    let (bus, log) = (open(&server, "x").await, topic("a"));
    server.sql(
        "CREATE TABLE seen (says text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
            INSERT INTO public.seen VALUES (current_setting(''synchronous_commit'')
                || '' '' || current_setting(''transaction_isolation'')
                || '' '' || current_setting(''tcp_keepalives_idle'')
                || '' '' || current_setting(''tcp_keepalives_interval'')
                || '' '' || current_setting(''tcp_keepalives_count'')
                || '' '' || current_setting(''tcp_user_timeout''));
            RETURN NEW; END';
         CREATE TRIGGER see BEFORE INSERT ON x.items FOR EACH ROW EXECUTE FUNCTION see();
         CREATE SCHEMA other; CREATE TABLE other.items (); CREATE TABLE public.items ();
         ALTER DATABASE postgres SET search_path = other, public",
    );
    for handle in [&bus, &open(&server, "x").await] {
        handle.append(&log, vec![vec![1]]).await.unwrap();
    }
    let seen = server.sql("SELECT DISTINCT says FROM public.seen");
    assert_eq!(seen.trim(), "on read committed 30 10 3 60000");
    assert_eq!(bus.end(&log).await.unwrap(), Offset(2));
}
