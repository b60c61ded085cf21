//! The guide to MQTT clients as they are.
#![cfg(target_os = "linux")]

use sealcast_brokers::free_port;
use sealcast_brokers::mosquitto::Server;

use super::run_after;

/// What a reader of the guide does not type: it waits until a proxy listens.
const LISTENS: &str = r#"
proxies="${proxies:-} $!"
trap 'kill -9 $proxies' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/PORT) 2> /dev/null; do kill -0 $!; sleep 0.1; done
"#;

/// Ends with what everybody may have and nobody can read, and with proxies that end when they are told to.
const STORY: &str = r#"```sh
for seconds in 5 60; do
    mosquitto_sub -p 1883 -u plant -P change-me -t '#' -W $seconds -F '%t %x' > seen || true
    if grep -q plant/7/state seen && grep -q sealed/log seen; then break; fi
done
grep -q plant/7/state seen
grep -q sealed/log seen
for secret in running secret; do
    hex=$(printf %s "$secret" | od -An -tx1 | tr -d ' \n')
    for shown in "$secret" "$(printf %s "$secret" | base64)" "$hex"; do
        if grep -qaF -e "$shown" seen envelope; then echo "found: $secret"; exit 1; fi
    done
done
sealcast inspect envelope --stream plant --topic plant/7/state --json | grep -c '"signed":true'
kill $proxies
wait $proxies
trap - EXIT
echo nothing found
```
"#;

#[test]
fn the_guide_to_unchanged_clients_ends_as_it_says_and_its_broker_sees_nothing_readable() {
    let page = include_str!("../../../../docs/guides/use-unchanged-mqtt-clients.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let server = Server::start();
    let before = "
cd \"$HOME\"
export SEALCAST_HOME=home
";
    let mut page = format!("{page}{STORY}");
    for (port, name, config) in [("11883", "SENSORS", "sensors"), ("21883", "DESK", "desk")] {
        let start = format!("proxy mqtt {config}.toml &\n");
        assert!(page.contains(&start));
        let listens = LISTENS.replace("PORT", name);
        page = page.replace(&start, &format!("{start}{listens}"));
        page = page.replace(port, name);
    }
    page = page.replace("1883", &server.port().to_string());
    for name in ["SENSORS", "DESK"] {
        page = page.replace(name, &free_port().to_string());
    }
    let out = run_after(before, &page);
    let lines = |wanted: &str| out.lines().filter(|line| *line == wanted).count();
    assert_eq!(lines("plant/7/state running"), 1, "{out}");
    assert_eq!((lines("running"), lines("1")), (1, 1), "{out}");
    assert_eq!(lines("nothing found"), 1, "{out}");
}
