//! How often a home asks key nodes, and for how long.

use std::time::Duration;

use sealcast::{AskingOptions, Interval, RequestOptions};
use sealcast_protocol::{NodeRequest, Unverified};

use super::{Net, WAIT, are, until};
use crate::rig::*;

#[tokio::test]
async fn a_home_asks_key_nodes_as_often_and_as_long_as_it_is_told() {
    const SESSIONS: usize = 6;
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    for _ in 0..SESSIONS {
        say(&net.stream, "one").await;
        net.stream.rekey().await.unwrap();
    }
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    net.stream.grant(all_to(bob.user())).await.unwrap();
    let options = AskingOptions {
        key_request_timeout: Duration::from_secs(2),
        max_key_requests_per_second: 2,
        ..AskingOptions::default()
    };
    bob.set_asking(options.clone());
    // Nobody runs the node.
    let unlocking = tokio::spawn(async move {
        let interval = Interval::ALL;
        let options = RequestOptions {
            interval,
            wait: WAIT,
        };
        joined.unlock(options).await
    });
    let inbox = net.nodes[0].0.device().inbox_topic();
    until(async || are::<NodeRequest>(&net.rig.items(&inbox).await) == SESSIONS).await;
    unlocking.await.unwrap().unwrap();
    let items = net.rig.items(&inbox).await;
    let asked = items
        .iter()
        .flat_map(|item| Unverified::<NodeRequest>::decode(item));
    let asked: Vec<_> = asked.map(|of| of.claims().clone()).collect();
    let lives = options.key_request_timeout.as_millis();
    assert!(
        asked
            .iter()
            .all(|of| u128::from(of.expires.0 - of.time.0) == lives)
    );
    let mut times: Vec<_> = asked.iter().map(|of| of.time).collect();
    times.sort_unstable();
    // As many at once as leave in a second, and half a second for each that comes then. Each is dated when it leaves, or
    // later; the pace has another clock.
    for (number, time) in (1..).zip(&times[2..]) {
        let (slack, begun) = (20, times[0]);
        assert!(time.after(slack) >= begun.after(number * 500), "{times:?}");
    }
}
