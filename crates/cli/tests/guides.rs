//! The commands of the guides work when they are copied.
#![cfg(test)]

#[path = "guides/proxy.rs"]
mod proxy;
#[path = "guides/rabbitmq.rs"]
mod rabbitmq;
#[path = "guides/start.rs"]
mod start;
#[path = "guides/topics.rs"]
mod topics;

use std::path::Path;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

#[cfg(target_os = "linux")]
use sealcast_brokers::postgres::Server;

/// What a guide takes for granted: the home of who reads it, with a stream, and somebody else's.
const BEFORE: &str = "
cd \"$HOME\"
export SEALCAST_HOME=home
sealcast init --no-passphrase --bus file:bus
sealcast stream create boiler
sealcast pub boiler -m hot
sealcast --home reader init --no-passphrase
printf 'correct horse' > secret.txt
printf age16h4ytxhr67wk50w7e8wxysar8m6rdnw5utgnjwwsh3vrt5ruw57qt08u9v > age.pub
mkdir stick
";

/// What the guide to the agent takes for granted besides: the program where `cargo install` puts it,
/// and a systemd that runs what the unit says.
const SYSTEMD: &str = r#"
cd "$HOME"
unset SEALCAST_HOME XDG_DATA_HOME XDG_CONFIG_HOME
mkdir -p .cargo/bin
ln -s "$(command -v sealcast)" .cargo/bin/sealcast
cp -r "$REPOSITORY/packaging" .
sealcast init --no-passphrase --bus "file:$HOME/bus"
sealcast stream create boiler
sealcast pub boiler -m hot
printf '[agent]\nlisten = "127.0.0.1:%s"\n' "$PORT" > .local/share/sealcast/config.toml
start() {
    local line
    line=$(sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/sealcast-agent.service")
    ${line//%h/$HOME} 2>> "$HOME/journal" &
    pid=$!
    trap 'kill -9 $pid' EXIT
    until sealcast agent status > /dev/null 2>&1; do kill -0 $pid; done
}
stop() { kill $pid; wait $pid; trap - EXIT; }
systemctl() {
    [ "$1" = --user ]
    case "$2" in
        daemon-reload) ;;
        enable) start ;;
        restart) stop; start ;;
        stop) stop ;;
        *) return 1 ;;
    esac
}
loginctl() { :; }
"#;

/// Runs every block that a page has for a shell, in order; what was printed.
fn run(page: &str) -> String {
    run_after(BEFORE, page)
}

fn run_after(before: &str, page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|behind| behind.split_once("```").expect("the block ends").0);
    let script: String = std::iter::once(before).chain(blocks).collect();
    let home = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_sealcast"));
    let folder = program.parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").expect("a PATH"));
    let output = Command::new("bash")
        .args(["-eu", "-c", &script])
        .env("PATH", path)
        .env("HOME", home.path())
        .env("REPOSITORY", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env_remove("SEALCAST_PASSPHRASE_FILE")
        .output()
        .expect("bash runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// Runs the blocks of a page that may stand on other machines: which one is said behind `sh`.
/// `act` makes of a block what is run of it.
fn run_all(page: &str, act: impl Fn(&str, &str) -> String) -> String {
    let blocks = page.split("```sh").skip(1).map(|behind| {
        let (at, rest) = behind.split_once('\n').expect("the fence ends");
        let (block, _) = rest.split_once("```").expect("the block ends");
        act(at.trim(), block)
    });
    let script: Vec<_> = blocks.collect();
    run(&format!("```sh\n{}```", script.concat()))
}

/// The new machine has another home; the code is the one that it shows.
#[test]
fn the_guide_to_adding_a_device_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/add-a-device.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let example = "7K2M-9FQR-T3XW-0HNC-5JEB-8VYD-AGPZ";
    let joins = |block: &str| block.contains("device join");
    let out = run_all(page, |at, block| match at {
        "new" if joins(block) => {
            let block = block.trim_end();
            format!(
                "SEALCAST_HOME=phone {block} > phone.code &\n\
                 until [ -s phone.code ]; do sleep 0.1; done\n"
            )
        }
        "new" => format!("wait\n(export SEALCAST_HOME=phone\n{block})\n"),
        "add" => {
            let typed = block.replace(example, "$(head -n 1 phone.code)");
            assert_ne!(typed, block);
            format!("{} --yes\n", typed.trim_end())
        }
        "stick" => {
            let block = block.trim_end();
            format!(
                "MY_ID=$(sealcast id)\n\
                 SEALCAST_HOME=tablet {block} > tablet.code || true\n\
                 CODE=$(cat tablet.code)\n"
            )
        }
        "add-from-stick" => {
            let end = "SEALCAST_HOME=tablet sealcast device join --wait 0s\n";
            format!("{block}{end}SEALCAST_HOME=tablet sealcast read boiler\n")
        }
        _ => block.to_owned(),
    });
    assert_eq!(
        out.lines().filter(|line| *line == "hot").count(),
        2,
        "{out}"
    );
    let listed: Vec<_> = out.lines().filter(|line| line.ends_with("live")).collect();
    assert!(
        listed.iter().any(|line| line.contains("  phone  ")),
        "{out}"
    );
    assert!(
        listed.iter().any(|line| line.contains("  tablet  ")),
        "{out}"
    );
}

#[test]
fn the_guide_to_keeping_keys_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/keep-your-keys.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let out = run(page);
    for line in ["hot", "first sample", "kind          age file"] {
        assert!(out.lines().any(|of| of == line), "{line}: {out}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_guide_to_running_the_agent_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/run-the-agent.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    // Another agent may have the port that it has by itself.
    let port = sealcast_brokers::free_port().to_string();
    let page = page.replace("9464", &port).replace(
        "\n[agent]\n",
        &format!("\n[agent]\nlisten = \"127.0.0.1:{port}\"\n"),
    );
    let before = SYSTEMD.replace("$PORT", &port);
    // What the archive has is read in the end, by somebody who was granted it.
    let page = format!(
        "{page}```sh
export SEALCAST_HOME=$HOME/reader
sealcast init --no-passphrase --quiet --bus \"file:$HOME/bus\"
sealcast grant --home ~/.local/share/sealcast boiler \"$(sealcast id)\" --from start
sealcast --home ~/.local/share/sealcast agent 2>> \"$HOME/journal\" & pid=$!
trap 'kill -9 $pid' EXIT
sealcast join \"$(sealcast --home ~/.local/share/sealcast ticket boiler)\"
until sealcast read boiler; do kill -0 $pid; done
until sealcast join \"$(sealcast --home ~/.local/share/sealcast ticket boiler --bus file:archive)\" &&
    sealcast read boiler; do kill -0 $pid; done
stop
cat \"$HOME/journal\"
```
"
    );
    let out = run_after(&before, &page);
    for line in ["hot", "ok", "health    ok"] {
        assert!(out.lines().any(|of| of == line), "{line}: {out}");
    }
    assert!(out.contains("sealcast_agent_healthy 1"), "{out}");
    assert_eq!(out.matches("agent stopped").count(), 4, "{out}");
}

/// Commands that the guide leaves running are waited for; the id is the one that is shown.
#[cfg(target_os = "linux")]
#[test]
fn the_guide_to_answering_from_a_program_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/answer-requests-from-a-program.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let port = sealcast_brokers::free_port().to_string();
    let waiting = [
        (
            "agent",
            "sealcast agent status 2> /dev/null | grep -q attended",
        ),
        ("asks", "sealcast requests list --json | grep -q id"),
        (
            "server",
            &format!("(: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null"),
        ),
    ];
    let mut page = page
        .replace("8044", &port)
        .replace("[decisions]\n", "[agent]\nlisten = \"off\"\n[decisions]\n");
    for (job, is_there) in waiting {
        let wait = format!("{job}=$!\nuntil {is_there}; do kill -0 ${job}; sleep 0.1; done\n");
        page = page.replace(&format!("{job}=$!\n"), &wait);
    }
    let typed = page.replace(
        "approve 1f0c55d2",
        "approve $(sealcast requests list --json | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/')",
    );
    assert_ne!(page, typed);
    let ends = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT";
    let before = format!("{BEFORE}export SEALCAST_HOME=$HOME/home\n{ends}\n");
    let out = run_after(&before, &typed);
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("opened"), lines("hot")), (3, 1), "{out}");
}

/// What systemd starts.
const UNITS: [(&str, &str); 2] = [
    (
        "sealcast-agent",
        include_str!("../../../packaging/sealcast-agent.service"),
    ),
    (
        "sealcast-proxy",
        include_str!("../../../packaging/sealcast-proxy.service"),
    ),
];

/// Where systemd is there to say so.
#[cfg(target_os = "linux")]
#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    for (name, unit) in UNITS {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(format!("{name}.service"));
        let program = env!("CARGO_BIN_EXE_sealcast");
        let unit = unit.replace("%h/.cargo/bin/sealcast", program);
        assert!(unit.contains(program));
        std::fs::write(&path, unit).expect("a file");
        let said = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&path)
            .output();
        if let Ok(said) = said {
            let err = String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success() && !err.contains(name), "{err}");
        }
    }
}

/// A systemd that runs for a user has no capabilities to take away, and does not start a unit that asks
/// for it.
#[test]
fn the_units_ask_for_nothing_that_a_users_systemd_cannot_do() {
    for (name, unit) in UNITS {
        let options = unit.lines().filter_map(|line| line.split_once('='));
        let asked: Vec<_> = options.map(|(name, _)| name).collect();
        assert!(asked.contains(&"NoNewPrivileges"), "{name}: {asked:?}");
        for option in [
            "AmbientCapabilities",
            "CapabilityBoundingSet",
            "Group",
            "PrivateDevices",
            "ProtectClock",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "SupplementaryGroups",
            "User",
        ] {
            assert!(!asked.contains(&option), "{name}: {option}");
        }
    }
}

#[test]
fn the_guide_to_late_readers_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/let-a-late-reader-in.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let out = run(page);
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("exit code 3"), lines("opened")), (1, 1), "{out}");
    assert_eq!(lines("19.3 C"), 2, "{out}");
}

/// What a reader of the guide to NATS does not type: waiting for the server, and the rest of a story.
const ON_NATS: (&str, &str) = (
    "
cd \"$HOME\"
export SEALCAST_HOME=home
",
    r#"
server=$!
trap 'kill -9 $server' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/4222) 2> /dev/null; do kill -0 $server; done
"#,
);

/// Ends with a revocation, a reader who asks, and a server that is killed, whose disk is searched.
const STORY_ON_NATS: &str = r#"```sh
sealcast revoke boiler "$(sealcast --home reader id)"
sealcast pub boiler -m '88.8 C'
sealcast --home reader read boiler || echo "exit code $?"
sealcast stream create attic --share on-request
sealcast --home reader join "$(sealcast ticket attic)"
sealcast grant attic "$(sealcast --home reader id)" --from start
sealcast pub attic -m '19.3 C'
sealcast --home reader read attic || echo "not yet: $?"
sealcast sub attic & answering=$!
sealcast --home reader request attic --wait 2m
kill $answering
sealcast --home reader read attic
printf '["nats://127.0.0.1:4222/plant"]\nuser = "plant"\npassword_file = "word"\n' > reader/servers.toml
printf 'change-me\n' > reader/word
SEALCAST_BUS_PASSWORD=xyzzy sealcast --home reader read attic
rm reader/servers.toml
kill -9 $server
wait $server || true
nats-server -c nats.conf & server=$!
until (exec 3<> /dev/tcp/127.0.0.1/4222) 2> /dev/null; do kill -0 $server; done
sealcast --home reader read attic
seq 2000 | sealcast pub attic -l
sealcast --home reader read attic | wc -l
if SEALCAST_BUS_PASSWORD=xyzzy sealcast --home reader read attic 2> refused; then exit 1; fi
grep -q 'nats://127.0.0.1:4222/plant' refused
if grep -q xyzzy refused; then exit 1; fi
grep -rqaF plant.log nats
for secret in '71.5 C' '88.8 C' '19.3 C' boiler attic; do
    if grep -rqaF "$secret" nats; then echo "found: $secret"; exit 1; fi
    if grep -rqaF "$(printf %s "$secret" | base64)" nats; then exit 1; fi
done
echo nothing found
```
"#;

#[test]
fn the_guide_to_nats_ends_as_it_says_and_its_server_keeps_nothing_readable() {
    let page = include_str!("../../../docs/guides/use-nats.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let port = sealcast_brokers::free_port().to_string();
    let (before, started) = ON_NATS;
    let start = "nats-server -c nats.conf &\n";
    assert!(page.contains(start));
    let page = page.replace(start, &format!("nats-server -c nats.conf &{started}"));
    let page = format!("{page}{STORY_ON_NATS}").replace("4222", &port);
    let out = run_after(before, &page);
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("71.5 C"), lines("88.8 C")), (2, 0), "{out}");
    assert_eq!((lines("exit code 3"), lines("not yet: 3")), (1, 1), "{out}");
    assert_eq!((lines("opened"), lines("2001")), (1, 1), "{out}");
    assert_eq!((lines("nothing found"), lines("19.3 C")), (1, 3), "{out}");
}

#[test]
fn the_guide_to_moving_to_another_bus_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/move-to-another-bus.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let port = sealcast_brokers::free_port().to_string();
    let (_, started) = ON_NATS;
    let start = "nats-server -c nats.conf &\n";
    assert!(page.contains(start));
    let page = page.replace(start, &format!("nats-server -c nats.conf &{started}"));
    let out = run(&page.replace("4222", &port));
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("exit code 7"), lines("hot")), (1, 1), "{out}");
    assert_eq!(lines("on the new bus"), 1, "{out}");
    for word in [
        "standing    missing",
        "standing    ready",
        "made  the stream `plant`",
    ] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

/// What a reader of the guide to PostgreSQL has: a server, and the right to do everything there.
#[cfg(target_os = "linux")]
const ON_POSTGRES: &str = "
cd \"$HOME\"
export SEALCAST_HOME=home PGHOST=127.0.0.1 PGPORT=@PORT@ PGDATABASE=postgres
sudo() { shift 2; \"$@\"; }
";

/// Ends with a revocation, a reader who asks, and a server that is killed, whose tables and files are
/// searched.
#[cfg(target_os = "linux")]
const STORY_ON_POSTGRES: &str = r#"```sh
sealcast revoke boiler "$(sealcast --home reader id)"
sealcast pub boiler -m '88.8 C'
sealcast --home reader read boiler || echo "exit code $?"
sealcast stream create attic --share on-request
sealcast --home reader join "$(sealcast ticket attic)"
sealcast grant attic "$(sealcast --home reader id)" --from start
sealcast pub attic -m '19.3 C'
sealcast --home reader read attic || echo "not yet: $?"
sealcast sub attic & answering=$!
sealcast --home reader request attic --wait 2m
kill $answering
sealcast --home reader read attic
touch @SIGNALS@/kill
until [ -e @SIGNALS@/killed ]; do sleep 0.1; done
sealcast --home reader read attic
seq 2000 | sealcast pub attic -l
sealcast --home reader read attic | wc -l
if SEALCAST_BUS_PASSWORD=xyzzy sealcast --home reader read attic 2> refused; then exit 1; fi
grep -q 'postgres://127.0.0.1:@PORT@/fleet/plant' refused
if grep -q xyzzy refused; then exit 1; fi
psql -q -c CHECKPOINT
pg_dump --inserts fleet > dump
grep -q 'INSERT INTO plant.items' dump
grep -rqaF /access/ @DATA@
for secret in '71.5 C' '88.8 C' '19.3 C' boiler attic; do
    hex=$(printf %s "$secret" | od -An -v -tx1 | tr -d ' \n')
    for shown in "$secret" "$(printf %s "$secret" | base64)" "$hex"; do
        if grep -qaF "$shown" dump || grep -rqaF "$shown" @DATA@; then echo "found: $secret"; exit 1; fi
    done
done
echo nothing found
```
"#;

/// Kills a server and starts it again when a file is there to ask for it, as long as there is a server.
#[cfg(target_os = "linux")]
fn kill_when_asked(server: &Arc<Mutex<Server>>, signals: &Path) {
    let (server, signals) = (Arc::downgrade(server), signals.to_owned());
    std::thread::spawn(move || {
        while let Some(server) = server.upgrade() {
            if signals.join("kill").exists() {
                let mut server = server.lock().expect("a server");
                server.kill();
                server.restart();
                std::fs::write(signals.join("killed"), "").expect("a file");
                return;
            }
            drop(server);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_guide_to_postgres_ends_as_it_says_and_its_server_keeps_nothing_readable() {
    let page = include_str!("../../../docs/guides/use-postgres.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let mut server = Server::start();
    server.write(
        "pg_hba.conf",
        "host all plant 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    );
    server.stop();
    server.restart();
    let (port, data) = (server.port().to_string(), server.folder());
    let data = data.parent().expect("a folder").display().to_string();
    let signals = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Mutex::new(server));
    kill_when_asked(&server, signals.path());
    let typed = |text: &str| {
        text.replace("SERVERS=localhost", "SERVERS=127.0.0.1")
            .replace("//localhost/", &format!("//127.0.0.1:{port}/"))
            .replace("@PORT@", &port)
            .replace("@DATA@", &data)
            .replace("@SIGNALS@", &signals.path().display().to_string())
    };
    let page = format!("{page}{STORY_ON_POSTGRES}");
    let out = run_after(&typed(ON_POSTGRES), &typed(&page));
    drop(server);
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("71.5 C"), lines("88.8 C")), (2, 0), "{out}");
    assert_eq!((lines("exit code 3"), lines("not yet: 3")), (1, 1), "{out}");
    assert_eq!((lines("opened"), lines("2001")), (1, 1), "{out}");
    assert_eq!((lines("nothing found"), lines("19.3 C")), (1, 2), "{out}");
}

/// What a reader of the guide to MQTT does not type: waiting for the broker and the archive.
const ON_MQTT: [(&str, &str); 2] = [
    (
        "mosquitto -c mosquitto.conf &\n",
        r#"
broker=$!
trap 'kill -9 $broker' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/1883) 2> /dev/null; do kill -0 $broker; done
"#,
    ),
    (
        "SEALCAST_BUS_HISTORY=serve sealcast --home archive agent &\n",
        r#"
archive=$!
trap 'kill -9 $archive $broker' EXIT
until sealcast --home archive agent status 2> /dev/null | grep -q attended; do kill -0 $archive; sleep 0.1; done
"#,
    ),
];

/// Ends with a revocation, a reader who asks, one who comes late again, and a broker that is stopped and
/// whose disk is searched.
const STORY_ON_MQTT: &str = r#"```sh
sealcast revoke boiler "$(sealcast --home reader id)"
sealcast pub boiler -m '88.8 C'
sealcast --home reader read boiler || echo "exit code $?"
sealcast stream create attic --share on-request
sealcast --home reader join "$(sealcast ticket attic)"
sealcast grant attic "$(sealcast --home reader id)" --from start
sealcast pub attic -m '19.3 C'
sealcast --home reader read attic || echo "not yet: $?"
sealcast sub attic & answering=$!
sealcast --home reader request attic --wait 2m
kill $answering
sealcast --home reader read attic
seq 2000 | sealcast pub attic -l
sealcast --home reader read attic | wc -l
kill $broker
wait $broker || true
grep -qaF plant/log broker.db
mosquitto -c mosquitto.conf & broker=$!
trap 'kill -9 $archive $broker' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/1883) 2> /dev/null; do kill -0 $broker; done
sealcast --home reader read attic | wc -l
if SEALCAST_BUS_PASSWORD=xyzzy sealcast --home reader read attic 2> refused; then exit 1; fi
grep -q 'mqtt://127.0.0.1:1883/plant' refused
if grep -q xyzzy refused; then exit 1; fi
for seconds in 1 10 60; do
    mosquitto_sub -p 1883 -u plant -P change-me -t 'plant/#' -W $seconds -F '%t %x' > retained || true
    if grep -q plant/log retained; then break; fi
done
grep -q plant/log retained
for secret in '71.5 C' '88.8 C' '19.3 C' boiler attic; do
    hex=$(printf %s "$secret" | od -An -tx1 | tr -d ' \n')
    if grep -qaF -e "$secret" -e "$hex" -e "$(printf %s "$secret" | base64)" broker.db retained; then
        echo "found: $secret"
        exit 1
    fi
    if grep -rqaF -e "$secret" archive/mirrors reader/mirrors; then exit 1; fi
done
echo nothing found
```
"#;

#[cfg(target_os = "linux")]
#[test]
fn the_guide_to_mqtt_ends_as_it_says_and_its_broker_keeps_nothing_readable() {
    let page = include_str!("../../../docs/guides/use-mqtt.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let port = sealcast_brokers::free_port().to_string();
    // As root it would become another user, who may not read what lies here.
    let mut page = page.replace("listener 1883", "user root\nlistener 1883");
    for (typed, waiting) in ON_MQTT {
        assert!(page.contains(typed));
        page = page.replace(typed, &format!("{typed}{waiting}"));
    }
    // Another agent may have the port that it has by itself.
    let quiet = "printf '[agent]\\nlisten = \"off\"\\n' > archive/config.toml\n";
    let page = page.replace(
        "SEALCAST_BUS_HISTORY",
        &format!("{quiet}SEALCAST_BUS_HISTORY"),
    );
    let page = format!("{page}{STORY_ON_MQTT}").replace("1883", &port);
    let out = run_after(ON_NATS.0, &page);
    let lines = |wanted: &str| out.lines().filter(|of| *of == wanted).count();
    assert_eq!((lines("71.5 C"), lines("88.8 C")), (2, 0), "{out}");
    assert_eq!((lines("exit code 3"), lines("not yet: 3")), (1, 1), "{out}");
    assert_eq!((lines("opened"), lines("2001")), (1, 2), "{out}");
    assert_eq!((lines("nothing found"), lines("19.3 C")), (1, 1), "{out}");
}
