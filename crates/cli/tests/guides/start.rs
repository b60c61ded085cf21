//! MQTT in ten minutes.
#![cfg(target_os = "linux")]

use sealcast_brokers::free_port;

use super::{ON_NATS, run_after};

/// What a reader of the page does not type: waiting for what is started.
const WAITS: [(&str, &str); 4] = [
    (
        "mosquitto -c mosquitto.conf &\n",
        r#"
all="$!"
trap 'kill -9 $all' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/1883) 2> /dev/null; do kill -0 $all; sleep 0.1; done
"#,
    ),
    (
        "SEALCAST_BUS_HISTORY=serve sealcast --home archive agent &\n",
        r#"
archive=$!
all="$all $archive"
until sealcast --home archive agent status 2> /dev/null | grep -q attended; do kill -0 $archive; sleep 0.1; done
"#,
    ),
    (
        "SENSORS=$!\n",
        r#"
all="$all $SENSORS"
until (exec 3<> /dev/tcp/127.0.0.1/11883) 2> /dev/null; do kill -0 $SENSORS; sleep 0.1; done
"#,
    ),
    (
        "desk.toml &\n",
        r#"
desk=$!
all="$all $desk"
until (exec 3<> /dev/tcp/127.0.0.1/21883) 2> /dev/null; do kill -0 $desk; sleep 0.1; done
"#,
    ),
];

/// Nothing that the broker can show is readable.
const STORY: &str = r#"```sh
for seconds in 5 60; do
    mosquitto_sub -p 1883 -t '#' -W $seconds -F '%t %x' > seen || true
    if grep -q plant/7/state seen && grep -q sealed/log seen; then break; fi
done
grep -q plant/7/state seen
grep -q sealed/log seen
for secret in running stopped; do
    hex=$(printf %s "$secret" | od -An -tx1 | tr -d ' \n')
    if grep -qaF -e "$secret" -e "$hex" seen; then echo "found: $secret"; exit 1; fi
done
wait $SENSORS
echo nothing found
```
"#;

#[test]
fn mqtt_in_ten_minutes_ends_with_the_past_and_the_sensor_off() {
    let page = include_str!("../../../../docs/start/mqtt-ten-minutes.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    // As root it would become another user, who may not read what lies here.
    let mut page = page.replace("listener 1883", "user root\nlistener 1883");
    for (typed, waiting) in WAITS {
        assert!(page.contains(typed), "{typed}");
        page = page.replace(typed, &format!("{typed}{waiting}"));
    }
    // Another agent may have the port that it has by itself.
    let quiet = "printf '[agent]\\nlisten = \"off\"\\n' > archive/config.toml\n";
    let page = page.replace(
        "SEALCAST_BUS_HISTORY",
        &format!("{quiet}SEALCAST_BUS_HISTORY"),
    );
    let mut page = format!("{page}{STORY}");
    for (port, name) in [("11883", "SENSOR_PORT"), ("21883", "DESK_PORT")] {
        page = page.replace(port, name);
    }
    page = page.replace("1883", &free_port().to_string());
    for name in ["SENSOR_PORT", "DESK_PORT"] {
        page = page.replace(name, &free_port().to_string());
    }
    let out = run_after(ON_NATS.0, &page);
    let lines = |wanted: &str| out.lines().filter(|line| *line == wanted).count();
    assert_eq!(lines("plant/7/state stopped"), 1, "{out}");
    assert_eq!(
        (lines("exit code 3"), lines("nothing found")),
        (1, 1),
        "{out}"
    );
    let (before, after) = out.split_once("exit code 3").unwrap();
    assert!(!before.contains("61.4"), "{out}");
    for value in ["61.4 C", "61.9 C", "62.3 C", "running", "stopped"] {
        assert_eq!(after.lines().filter(|of| *of == value).count(), 1, "{out}");
    }
}

#[test]
fn three_key_nodes_end_with_a_reader_who_needs_nobody_else() {
    let page = include_str!("../../../../docs/start/three-key-nodes.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let started = "TWO=$!\n";
    assert!(page.contains(started));
    // What they say is for whoever started them.
    let page = page.replace("keynode run &", "keynode run 2> /dev/null &");
    let page = page.replace(
        started,
        &format!("{started}trap 'kill -9 $ONE $TWO' EXIT\n"),
    );
    let page = page.replace(
        "kill $ONE $TWO\n",
        "kill $ONE $TWO\nwait $ONE $TWO\ntrap - EXIT\n",
    );
    let out = run_after("cd \"$HOME\"\nexport SEALCAST_HOME=home\n", &page);
    let lines = |wanted: &str| out.lines().filter(|line| *line == wanted).count();
    assert_eq!((lines("61.4 C"), lines("61.9 C")), (1, 1), "{out}");
    assert!(out.contains("released: 1 segment of"), "{out}");
    assert!(out.contains("2 of 3 must answer"), "{out}");
}
