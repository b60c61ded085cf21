//! What MQTT has, tried with one make of client on both sides of two proxies.

use serde_json::{Value, json};

use super::player::{Make, Player, Program, Version};

/// Something that nobody at the broker may see.
pub(crate) const SECRET: &str = "furnace at 871 degrees";

/// Whether a client has a feature. Where it has, but not through proxies, the trial panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Works,
    Lacking,
}

/// A make of client, and where its connections go.
pub(crate) struct Trial {
    make: Make,
    player: Player,
    gateway: u16,
    desk: u16,
    /// What its topics and sessions are called by, apart from those of the others.
    place: String,
}

type Feature = fn(&mut Trial) -> Seen;

/// What is tried, in the words of the table.
pub(crate) const FEATURES: [(&str, Feature); 16] = [
    ("QoS 0", |trial| trial.delivers(0)),
    ("QoS 1", |trial| trial.delivers(1)),
    ("QoS 2", |trial| trial.delivers(2)),
    ("retained messages", retained),
    ("retained messages cleared by empty ones", cleared),
    ("wills", will),
    ("wildcards", wildcards),
    ("shared subscriptions", shared),
    ("persistent sessions", sessions),
    ("messages of 768 KiB", large),
    ("empty messages", empty),
    ("properties of MQTT 5", properties),
    ("requests and responses", responses),
    ("topic aliases", aliases),
    ("receive maximum", receive_maximum),
    ("not to be sent one's own (no local)", no_local),
];

impl Trial {
    pub(crate) fn new(make: Make, gateway: u16, desk: u16) -> Self {
        let place = make.name.replace([' ', '.'], "-").to_lowercase();
        Self {
            player: Player::start(make),
            make,
            gateway,
            desk,
            place,
        }
    }

    fn topic(&self, name: &str) -> String {
        format!("plant/{}/{name}", self.place)
    }

    fn is_five(&self) -> bool {
        self.make.version == Version::Five
    }

    /// Connects somebody without a session, with more in the order.
    fn connects(&mut self, who: &str, port: u16, more: Value) -> Value {
        let mut order = json!({"port": port, "id": format!("{}-{who}", self.place), "clean": true});
        let into = order.as_object_mut().unwrap();
        into.extend(more.as_object().unwrap().clone());
        self.player.act("connect", who, &order).unwrap()
    }

    fn sensor(&mut self) {
        self.connects("sensor", self.gateway, json!({}));
    }

    /// Somebody who is asked for what comes on a filter from now on.
    fn reader(&mut self, who: &str, filter: &str, qos: u8) {
        self.connects(who, self.desk, json!({}));
        self.subscribes(who, filter, qos);
    }

    fn subscribes(&mut self, who: &str, filter: &str, qos: u8) {
        let order = json!({"filter": filter, "qos": qos});
        let answer = self.player.act("subscribe", who, &order).unwrap();
        assert_eq!(answer["granted"], qos, "{filter}");
    }

    /// Publishes as the sensor does; nobody refuses it.
    fn publishes(&mut self, topic: &str, payload: &str, qos: u8, more: Value) {
        self.publishes_by("sensor", topic, payload, qos, more);
    }

    fn publishes_by(&mut self, who: &str, topic: &str, payload: &str, qos: u8, more: Value) {
        let mut order = json!({"topic": topic, "payload": payload, "qos": qos});
        let into = order.as_object_mut().unwrap();
        into.extend(more.as_object().unwrap().clone());
        let answer = self.player.act("publish", who, &order).unwrap();
        // 16 says that nobody subscribes to it.
        assert!(answer["reason"] == 0 || answer["reason"] == 16, "{answer}");
    }

    fn receives(&mut self, who: &str, count: usize) -> Vec<Value> {
        let order = json!({ "count": count });
        let answer = self.player.act("receive", who, &order).unwrap();
        answer["messages"].as_array().unwrap().clone()
    }

    fn leave(&mut self, all: &[&str]) {
        for who in all {
            self.player.act("leave", who, &json!({}));
        }
    }

    /// Several at a QoS, in order, but where each has a connection of its own and nobody says that it arrived.
    fn delivers(&mut self, qos: u8) -> Seen {
        let topic = self.topic(&format!("qos-{qos}"));
        self.sensor();
        self.reader("reader", &topic, qos);
        let at_once = if qos == 0 { 1 } else { 3 };
        for first in (0..3).step_by(at_once) {
            let numbers = first..first + at_once;
            for number in numbers.clone() {
                self.publishes(&topic, &text(number), qos, json!({}));
            }
            for (message, number) in self.receives("reader", at_once).iter().zip(numbers) {
                is(message, &topic, &text(number), qos);
                assert_eq!(message["retain"], false);
            }
        }
        self.leave(&["reader", "sensor"]);
        Seen::Works
    }
}

fn text(number: usize) -> String {
    format!("{SECRET}, {number}")
}

fn is(message: &Value, topic: &str, payload: &str, qos: u8) {
    assert_eq!(message["topic"], topic);
    assert_eq!(message["payload"], payload);
    assert_eq!(message["qos"], qos);
}

fn retained(trial: &mut Trial) -> Seen {
    let topic = trial.topic("state");
    trial.sensor();
    trial.publishes(&topic, &text(0), 1, json!({"retain": true}));
    trial.publishes(&topic, &text(1), 1, json!({"retain": true}));
    for who in ["reader", "another"] {
        trial.reader(who, &topic, 1);
        let [message] = &trial.receives(who, 1)[..] else {
            panic!("one is asked for")
        };
        is(message, &topic, &text(1), 1);
        assert_eq!(message["retain"], true);
    }
    trial.leave(&["reader", "another", "sensor"]);
    Seen::Works
}

fn cleared(trial: &mut Trial) -> Seen {
    let [gone, there] = ["cleared/1", "cleared/2"].map(|name| trial.topic(name));
    let filter = trial.topic("cleared/+");
    trial.sensor();
    for topic in [&gone, &there] {
        trial.publishes(topic, &text(0), 1, json!({"retain": true}));
    }
    trial.reader("present", &gone, 1);
    trial.receives("present", 1);
    trial.publishes(&gone, "", 1, json!({"retain": true}));
    is(&trial.receives("present", 1)[0], &gone, "", 1);
    trial.reader("late", &filter, 1);
    trial.publishes(&gone, &text(1), 1, json!({}));
    let messages = trial.receives("late", 2);
    is(&messages[0], &there, &text(0), 1);
    is(&messages[1], &gone, &text(1), 1);
    assert_eq!(messages[1]["retain"], false);
    trial.leave(&["late", "present", "sensor"]);
    Seen::Works
}

fn will(trial: &mut Trial) -> Seen {
    let topic = trial.topic("will");
    trial.reader("reader", &topic, 1);
    let will = json!({"topic": topic, "payload": text(0), "qos": 1});
    // mosquitto_sub asks for its will to be published when it leaves.
    let asks = trial.make.program == Program::Mosquitto;
    let leaves = if asks { "vanish" } else { "leave" };
    // Another each time: one who comes back before the broker knows that it left has its will published too.
    for (who, how) in [("one", "vanish"), ("two", leaves), ("three", "vanish")] {
        trial.connects(who, trial.gateway, json!({ "will": will }));
        // Some are connected only when they wait for something.
        let filter = trial.topic("nothing");
        trial.subscribes(who, &filter, 0);
        trial.player.act(how, who, &json!({}));
        if how == "vanish" {
            is(&trial.receives("reader", 1)[0], &topic, &text(0), 1);
        }
    }
    // Whoever left had none published: this is what comes next.
    trial.sensor();
    trial.publishes(&topic, &text(1), 1, json!({}));
    is(&trial.receives("reader", 1)[0], &topic, &text(1), 1);
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

fn wildcards(trial: &mut Trial) -> Seen {
    let [one, other] = ["wild/1/t", "wild/2/p"].map(|name| trial.topic(name));
    let [level, all] = ["wild/+/t", "wild/#"].map(|name| trial.topic(name));
    trial.sensor();
    trial.reader("level", &level, 1);
    trial.reader("all", &all, 1);
    trial.publishes(&other, &text(0), 1, json!({}));
    trial.publishes(&one, &text(1), 1, json!({}));
    is(&trial.receives("level", 1)[0], &one, &text(1), 1);
    let messages = trial.receives("all", 2);
    is(&messages[0], &other, &text(0), 1);
    is(&messages[1], &one, &text(1), 1);
    trial.leave(&["level", "all", "sensor"]);
    Seen::Works
}

/// Each message comes to one of those who share.
fn shared(trial: &mut Trial) -> Seen {
    let topic = trial.topic("shared");
    let filter = format!("$share/group/{topic}");
    trial.sensor();
    for who in ["one", "other"] {
        trial.reader(who, &filter, 1);
    }
    let count = 6;
    for number in 0..count {
        trial.publishes(&topic, &text(number), 1, json!({}));
    }
    let mut messages = Vec::new();
    for who in ["one", "other"] {
        // The broker takes turns.
        messages.extend(trial.receives(who, count / 2));
    }
    let mut texts: Vec<_> = messages.iter().map(|of| of["payload"].clone()).collect();
    texts.sort_by_key(|text| text.as_str().map(str::to_owned));
    assert_eq!(texts, (0..count).map(text).collect::<Vec<_>>());
    trial.leave(&["one", "other", "sensor"]);
    Seen::Works
}

fn sessions(trial: &mut Trial) -> Seen {
    let topic = trial.topic("session");
    let keeps = json!({"clean": false, "expiry": 600});
    trial.connects("reader", trial.desk, keeps.clone());
    trial.subscribes("reader", &topic, 2);
    trial.leave(&["reader"]);
    trial.sensor();
    for qos in [1, 2] {
        trial.publishes(&topic, &text(qos.into()), qos, json!({}));
    }
    let answer = trial.connects("reader", trial.desk, keeps);
    // Those who cannot say it are not asked.
    assert_ne!(answer["present"], false);
    let messages = trial.receives("reader", 2);
    is(&messages[0], &topic, &text(1), 1);
    is(&messages[1], &topic, &text(2), 2);
    trial.leave(&["reader", "sensor"]);
    // Nothing is left of it.
    trial.connects("reader", trial.desk, json!({}));
    trial.leave(&["reader"]);
    Seen::Works
}

fn large(trial: &mut Trial) -> Seen {
    let topic = trial.topic("large");
    let payload = SECRET.repeat((768 << 10) / SECRET.len());
    trial.sensor();
    trial.reader("reader", &topic, 2);
    trial.publishes(&topic, &payload, 2, json!({}));
    let messages = trial.receives("reader", 1);
    assert!(messages[0]["payload"] == payload, "it is another one");
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

fn empty(trial: &mut Trial) -> Seen {
    let topic = trial.topic("empty");
    trial.sensor();
    trial.reader("reader", &topic, 1);
    trial.publishes(&topic, "", 1, json!({}));
    trial.publishes(&topic, &text(0), 1, json!({}));
    let messages = trial.receives("reader", 2);
    is(&messages[0], &topic, "", 1);
    is(&messages[1], &topic, &text(0), 1);
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

/// All but the format indicator, which does not come back.
fn properties(trial: &mut Trial) -> Seen {
    if !trial.is_five() {
        return Seen::Lacking;
    }
    let topic = trial.topic("properties");
    let mut carried = json!({
        "type": "text/plain",
        "correlation": "c-1",
        "answer_to": "plant/answers",
        "user": [["unit", "C"], ["unit", "F"], ["line", "7"]],
        "expiry": 3600,
        "format": 1,
    });
    if trial.make.program == Program::NodeRed {
        // Its messages have one property of a name.
        carried["user"] = json!([["unit", "C"], ["line", "7"]]);
    }
    trial.sensor();
    trial.reader("reader", &topic, 1);
    trial.publishes(&topic, &text(0), 1, json!({ "properties": carried }));
    let messages = trial.receives("reader", 1);
    is(&messages[0], &topic, &text(0), 1);
    let mut received = messages[0]["properties"].clone();
    // The broker takes off how long it had it.
    let expiry = received["expiry"].as_u64().unwrap();
    assert!((1..=3600).contains(&expiry), "{expiry}");
    received["expiry"] = json!(3600);
    carried.as_object_mut().unwrap().remove("format");
    assert_eq!(received, carried);
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

fn responses(trial: &mut Trial) -> Seen {
    if !trial.is_five() {
        return Seen::Lacking;
    }
    let [question, answer] = ["question", "answer"].map(|name| trial.topic(name));
    trial.sensor();
    trial.reader("answering", &question, 1);
    trial.connects("asking", trial.gateway, json!({}));
    trial.subscribes("asking", &answer, 1);
    let asks = json!({"answer_to": answer, "correlation": "c-2"});
    trial.publishes(&question, &text(0), 1, json!({ "properties": asks }));
    let asked = trial.receives("answering", 1);
    let asked = &asked[0]["properties"];
    let to = asked["answer_to"].as_str().unwrap();
    let carried = json!({"correlation": asked["correlation"]});
    let more = json!({ "properties": carried });
    trial.publishes_by("answering", to, &text(1), 1, more);
    let told = trial.receives("asking", 1);
    is(&told[0], &answer, &text(1), 1);
    assert_eq!(told[0]["properties"]["correlation"], "c-2");
    trial.leave(&["asking", "answering", "sensor"]);
    Seen::Works
}

/// The second message names its topic by the alias alone.
fn aliases(trial: &mut Trial) -> Seen {
    if !trial.is_five() {
        return Seen::Lacking;
    }
    let topic = trial.topic("alias");
    trial.sensor();
    trial.reader("reader", &topic, 1);
    let alias = json!({"alias": 1});
    if trial.make.program == Program::Mosquitto {
        let more = json!({"properties": alias, "times": 2});
        trial.publishes(&topic, &text(0), 1, more);
    } else {
        // Node-RED leaves the topic out by itself.
        let again = match trial.make.program {
            Program::NodeRed => topic.as_str(),
            Program::Mosquitto | Program::Paho => "",
            Program::MqttJs | Program::MqttJsOnWebSocket => "",
        };
        for topic in [&topic, again] {
            let more = json!({ "properties": alias });
            trial.publishes(topic, &text(0), 1, more);
        }
    }
    for message in trial.receives("reader", 2) {
        is(&message, &topic, &text(0), 1);
    }
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

/// While two are not acknowledged, no third of QoS 1 comes, though what needs no acknowledgement does.
fn receive_maximum(trial: &mut Trial) -> Seen {
    // Node-RED does not tell a broker.
    if !trial.is_five() || trial.make.program == Program::NodeRed {
        return Seen::Lacking;
    }
    let topic = trial.topic("maximum");
    // The others acknowledge by themselves.
    let can_hold = trial.make.program == Program::Paho;
    let mut more = json!({"receive_maximum": 2});
    if can_hold {
        more["holds"] = json!(true);
    }
    trial.sensor();
    trial.connects("reader", trial.desk, more);
    trial.subscribes("reader", &topic, 1);
    for number in 0..5 {
        trial.publishes(&topic, &text(number), 1, json!({}));
    }
    let mut expected: Vec<usize> = (0..5).collect();
    if can_hold {
        trial.publishes(&topic, &text(9), 0, json!({}));
        for (message, number) in trial.receives("reader", 3).iter().zip([0, 1, 9]) {
            assert_eq!(message["payload"], text(number));
        }
        trial.player.act("release", "reader", &json!({}));
        expected.drain(..2);
    }
    let messages = trial.receives("reader", expected.len());
    for (message, number) in messages.iter().zip(expected) {
        is(message, &topic, &text(number), 1);
    }
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}

fn no_local(trial: &mut Trial) -> Seen {
    if !trial.is_five() {
        return Seen::Lacking;
    }
    let topic = trial.topic("local");
    trial.connects("reader", trial.desk, json!({}));
    let order = json!({"filter": topic, "qos": 1, "no_local": true});
    if trial.player.act("subscribe", "reader", &order).is_none() {
        return Seen::Lacking;
    }
    trial.sensor();
    trial.publishes_by("reader", &topic, &text(0), 1, json!({}));
    trial.publishes(&topic, &text(1), 1, json!({}));
    is(&trial.receives("reader", 1)[0], &topic, &text(1), 1);
    trial.leave(&["reader", "sensor"]);
    Seen::Works
}
