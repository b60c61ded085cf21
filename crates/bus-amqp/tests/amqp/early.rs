//! A RabbitMQ server that delivers before it says that it will: clients lose what comes then.

use sealcast_bus::{Bus, Offset, ServerOptions};
use sealcast_bus_amqp::AmqpBus;

use crate::rig::{address, open, read_all, shared, topic, within};
use crate::thief::Thief;

fn item(number: u64) -> Vec<u8> {
    format!("item {number}").into_bytes()
}

fn items(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(item).collect()
}

async fn open_behind(thief: &Thief, prefix: &str) -> AmqpBus {
    let url = format!("amqp://127.0.0.1:{}/{prefix}", thief.port);
    let options = ServerOptions::default();
    AmqpBus::open(&address(&url), &options).await.unwrap()
}

/// Logs that are read from their beginning, and one that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_too_early_is_missed_by_nobody() {
    let server = shared();
    let thief = Thief::before(server.port()).await;
    let direct = open(&server, "early").await;
    for (start, robberies) in [(2, [(1, 1), (2, 1)]), (150, [(1, 1), (2, 2)])] {
        let log = topic(&format!("log/{start}"));
        for number in 0..start {
            direct.append(&log, vec![item(number)]).await.unwrap();
        }
        let mut count = start;
        for (deliveries, messages) in robberies {
            let bus = open_behind(&thief, "early").await;
            thief.rob(deliveries, messages);
            let what = format!("{start} items, {deliveries} deliveries less {messages}");
            let end = within(&what, bus.end(&log)).await.unwrap();
            assert_eq!(end, Offset(count), "{what}");
            if start > 100 {
                // So long a log is read from its beginning, which is looked for twice.
                thief.rob(2, 2);
            }
            assert_eq!(
                within(&what, read_all(&bus, &log)).await,
                items(count),
                "{what}"
            );
            let at = within(&what, bus.append(&log, vec![item(count)])).await;
            assert_eq!(at.unwrap(), Offset(count), "{what}");
            count += 1;
            assert_eq!(read_all(&direct, &log).await, items(count), "{what}");
            let mut tail = bus.tail(vec![(log.clone(), Offset(1))]);
            let mut next = 1;
            while next < count {
                let (_, items) = within(&what, tail.next()).await.unwrap();
                for of in items {
                    assert_eq!(
                        (of.offset, of.payload),
                        (Offset(next), item(next)),
                        "{what}"
                    );
                    next += 1;
                }
            }
        }
        assert_eq!(thief.left(), 0, "something was taken");
    }
}

/// An append whose confirm does not come is looked for behind the last message that its writer knew; what
/// the server delivers too early then is the append itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_in_doubt_is_found_though_the_server_delivers_it_too_early() {
    let server = shared();
    let thief = Thief::before(server.port()).await;
    let (direct, far) = (
        open(&server, "doubt").await,
        open_behind(&thief, "doubt").await,
    );
    let log = topic("a");
    for number in [0, 1] {
        far.append(&log, vec![item(number)]).await.unwrap();
    }
    let held = thief.take_confirm();
    let appending = tokio::spawn({
        let (far, log) = (far.clone(), log.clone());
        async move { far.append(&log, vec![item(2)]).await }
    });
    within("the confirm", held.taken()).await;
    direct.append(&log, vec![item(3)]).await.unwrap();
    thief.rob(1, 2);
    held.close();
    let at = within("the append", appending).await.unwrap();
    assert_eq!((at.unwrap(), thief.left()), (Offset(2), 0));
    let at = within("the next append", far.append(&log, vec![item(4)])).await;
    assert_eq!(at.unwrap(), Offset(4));
    assert_eq!(read_all(&direct, &log).await, items(5));
    assert_eq!(read_all(&far, &log).await, items(5));
}
