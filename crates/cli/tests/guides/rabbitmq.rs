//! The guide to RabbitMQ.
#![cfg(target_os = "linux")]

use super::{STORY_ON_NATS, run_after};

/// What a reader of the guide to RabbitMQ does not type: a node that meets no other on the machine, and
/// that is a process of its own and no child of a shell.
const ON_RABBITMQ: (&str, &str) = (
    r#"
cd "$HOME"
export SEALCAST_HOME=home
export RABBITMQ_ALLOW_INPUT=1 RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_DIST_PORT=$DIST_PORT
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-noinput -kernel inet_dist_use_interface {127,0,0,1}'
export RABBITMQ_ENABLED_PLUGINS_FILE=$HOME/plugins
export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$NAMES_PORT
epmd -address 127.0.0.1 -port $ERL_EPMD_PORT & names=$!
trap 'kill -9 $names' EXIT
"#,
    r#"
server=$!
trap 'kill -9 $server $names' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/5672) 2> /dev/null; do kill -0 $server; sleep 0.1; done
sudo() { "/usr/lib/rabbitmq/bin/$@"; }
sudo rabbitmqctl -q await_startup
sudo rabbitmqctl -q delete_user plant
"#,
);

#[test]
fn the_guide_to_rabbitmq_ends_as_it_says_and_its_server_keeps_nothing_readable() {
    let page = include_str!("../../../../docs/guides/use-rabbitmq.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let port = || sealcast_brokers::free_port().to_string();
    let (before, started) = ON_RABBITMQ;
    let before = before.replace("$DIST_PORT", &port());
    let before = before.replace("$NAMES_PORT", &port());
    let start = "/usr/lib/rabbitmq/bin/rabbitmq-server > rabbitmq.out &";
    assert!(page.contains(&format!("{start}\n")));
    // Whoever is to use the bus may do no more than the page says.
    let of_its_own = page
        .lines()
        .filter_map(|of| of.strip_prefix("$ sudo rabbitmqctl "));
    let of_its_own: String = of_its_own
        .map(|of| format!("sudo rabbitmqctl -q {of}\n"))
        .collect();
    assert_eq!(of_its_own.lines().count(), 2);
    let page = page.replace(start, &format!("{start}{started}{of_its_own}"));
    let story = STORY_ON_NATS
        .replace("nats-server -c nats.conf &", start)
        .replace("nats://", "amqp://")
        .replace("4222", "5672")
        .replace("plant.log nats", "plant.log rabbitmq")
        .replace("\"$secret\" nats", "\"$secret\" rabbitmq")
        .replace("base64)\" nats", "base64)\" rabbitmq");
    let out = run_after(&before, &format!("{page}{story}").replace("5672", &port()));
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("71.5 C"), lines("88.8 C")), (2, 0), "{out}");
    assert_eq!((lines("exit code 3"), lines("not yet: 3")), (1, 1), "{out}");
    assert_eq!((lines("opened"), lines("2001")), (1, 1), "{out}");
    assert_eq!((lines("nothing found"), lines("19.3 C")), (1, 3), "{out}");
}
