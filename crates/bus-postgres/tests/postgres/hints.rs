//! Whoever follows a log on a PostgreSQL bus is told at once that it has grown.

use std::future::poll_fn;
use std::time::Duration;

use sealcast_bus::Bus;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::rig::{open, shared, topic};

/// How long to wait for what must come, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// A command ends as soon as its append is acknowledged; whoever follows hears of it at once all the
/// same, and not only when it next looks.
#[test]
fn a_writer_that_ends_at_once_has_told_of_what_it_wrote() {
    const WRITERS: u64 = 20;
    let server = shared();
    let listening = Runtime::new().unwrap();
    let (client, mut connection) = listening.block_on(async {
        let url = format!("host=127.0.0.1 port={} dbname=postgres", server.port());
        tokio_postgres::connect(&url, NoTls).await.unwrap()
    });
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    listening.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                told.send(notification.payload().to_owned()).unwrap();
            }
        }
    });
    listening
        .block_on(client.batch_execute("LISTEN ending"))
        .unwrap();
    for number in 0..WRITERS {
        let writing = Runtime::new().unwrap();
        writing.block_on(async {
            let bus = open(&server, "ending").await;
            // Several times what a server takes from a connection at once.
            let payload = vec![7; 30_000 * (number % 3) as usize];
            bus.append(&topic("a"), vec![payload]).await.unwrap();
        });
        writing.shutdown_background();
    }
    // Nobody relies on it: on a busy machine one or the other may end a moment too early.
    for _ in 0..WRITERS - WRITERS / 4 {
        let next = async { timeout(LONG, heard.recv()).await };
        let says = listening.block_on(next).expect("it is told").unwrap();
        // The next one may have appended by then.
        assert!(says.starts_with("grown a "), "{says}");
    }
}
