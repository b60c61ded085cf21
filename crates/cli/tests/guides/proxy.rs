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

/// What the guide to running one takes for granted: the program where `cargo install` puts it, and a systemd that runs
/// what the unit says.
const SYSTEMD: &str = r#"
cd "$HOME"
unset SEALCAST_HOME XDG_DATA_HOME XDG_CONFIG_HOME
mkdir -p .cargo/bin
ln -s "$(command -v sealcast)" .cargo/bin/sealcast
cp -r "$REPOSITORY/packaging" .
sealcast init --no-passphrase --bus "file:$HOME/bus"
sealcast stream create boiler
unit=$HOME/.config/systemd/user/sealcast-proxy.service
says() { sed -n "s/^$1=//p" "$unit" | sed "s|%h|$HOME|g"; }
systemctl() {
    [ "$1" = --user ]
    case "$2" in
        daemon-reload) ;;
        enable)
            $(says ExecStart) 2>> journal & MAINPID=$!
            trap 'kill -9 $MAINPID' EXIT
            until (exec 3<> /dev/tcp/127.0.0.1/PROXY) 2> /dev/null; do kill -0 $MAINPID; sleep 0.1; done
            ;;
        reload)
            eval "$(says ExecReload)"
            for try in $(seq 600); do
                if grep -q 'config file read again' journal; then return; fi
                kill -0 $MAINPID
                sleep 0.1
            done
            return 1
            ;;
        stop) kill $MAINPID; wait $MAINPID; trap - EXIT; echo stopped ;;
        *) return 1 ;;
    esac
}
loginctl() { :; }
says_in_clear() {
    mosquitto_sub -p BROKER -t 'office/7' -C 1 -W 5 > heard & hearing=$!
    for try in 1 2 3; do sleep 0.5; mosquitto_pub -p PROXY -q 1 -t office/7 -m "$1"; done
    wait $hearing || true
    if grep -qF "$1" heard; then echo "heard $1"; else echo "not heard $1"; fi
}
"#;

/// The unit starts it, has it go by another config file, and ends it.
#[test]
fn the_guide_to_running_the_proxy_ends_as_it_says() {
    let page = include_str!("../../../../docs/guides/run-the-proxy.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let server = Server::start();
    let says = |what: &str| format!("```sh\nsays_in_clear {what}\n```\n");
    let mut page = page.to_owned();
    for (before, what) in [
        ("## Change its rules", "before"),
        ("## See how it is", "after"),
    ] {
        assert!(page.contains(before));
        page = page.replace(before, &format!("{}{before}", says(what)));
    }
    let script = format!("{SYSTEMD}\u{0}{page}").replace("11883", "PROXY");
    let script = script.replace("1883", "BROKER").replace("9465", "METRICS");
    let ports = [
        ("PROXY", free_port()),
        ("BROKER", server.port()),
        ("METRICS", free_port()),
    ];
    let script = ports.iter().fold(script, |script, (name, port)| {
        script.replace(name, &port.to_string())
    });
    let (before, page) = script.split_once('\u{0}').expect("the page follows");
    let out = run_after(before, page);
    let lines = |wanted: &str| out.lines().filter(|line| *line == wanted).count();
    assert_eq!(
        (lines("not heard before"), lines("heard after")),
        (1, 1),
        "{out}"
    );
    assert_eq!((lines("ok"), lines("stopped")), (1, 1), "{out}");
    assert_eq!(lines("sealcast_proxy_healthy 1"), 1, "{out}");
}
