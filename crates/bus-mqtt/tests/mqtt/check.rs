//! What is said of a broker before anything is put on it.

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Aspect, ServerOptions, Standing};
use sealcast_bus_mqtt::MqttBus;

use crate::rig::address;

#[tokio::test]
async fn a_broker_is_ready_as_it_is_and_says_what_it_is_known_to_do() {
    let server = Server::start();
    let address = address(&server.url("x"));
    let options = ServerOptions::default();
    let report = MqttBus::check(&address, &options).await.unwrap();
    assert_eq!(report.standing, Standing::Ready);
    assert!(report.unstated().is_empty(), "{report:?}");
    assert!(report.round_trip.is_some());
    let stated = report.stated(Aspect::Server);
    assert_eq!(stated, Some("a broker of MQTT 5"));
    let setup = MqttBus::setup(&address, &options).await.unwrap();
    assert!(setup.made.is_empty() && setup.left.len() == 1);
}
