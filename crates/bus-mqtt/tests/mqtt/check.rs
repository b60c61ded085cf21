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

#[tokio::test]
async fn what_topics_of_the_users_mean_is_said_where_the_url_has_them() {
    let server = Server::start();
    let check = async |of: &str| {
        let address = address(&server.url(of));
        let report = MqttBus::check(&address, &ServerOptions::default()).await;
        let report = report.unwrap();
        let warnings = report.warnings().iter();
        let says: String = warnings.map(|of| format!("{}\n", of.says)).collect();
        (report.stated(Aspect::History).unwrap().to_owned(), says)
    };
    let (history, says) = check("x").await;
    assert!(!history.contains("plant") && !says.contains("plant"));
    let (history, says) = check("x?topics=plant/#&retain=plant/+/state").await;
    assert!(history.contains("each topic of plant/+/state is retained"));
    for said in ["travel on plant/#", "told as rejected", "may not read"] {
        assert!(says.contains(said), "{says}");
    }
    let (history, _) = check("x?topics=plant/#").await;
    assert!(!history.contains("last message"), "{history}");
}
