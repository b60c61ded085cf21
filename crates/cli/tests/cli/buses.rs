//! Buses that are looked at, set up, and carried from one to another.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sealcast_brokers::nats::Server;
use serde_json::Value;

use crate::kinds::{EmptyBus, Kind, on_every_bus};
use crate::rig::{Person, Ran, Rig};

/// How often is looked for what must come before it counts as not coming.
const LOOKS: u32 = 20_000;

/// Every item of a file bus, with its topic and offset.
fn items_of(folder: &Path) -> Vec<(String, i64, Vec<u8>)> {
    let bus = Connection::open(folder.join("bus.db")).unwrap();
    let select = "SELECT name, item.key & ((1 << 40) - 1), payload FROM item \
                  JOIN topic ON topic.id = item.key >> 40 ORDER BY 1, 2";
    let mut select = bus.prepare(select).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// The items of a file bus that streams are made of.
fn carried_of(folder: &Path) -> Vec<(String, i64, Vec<u8>)> {
    let mut items = items_of(folder);
    items.retain(|(topic, ..)| !topic.starts_with("d/"));
    items
}

/// How many bytes the files in a folder have, while others write there.
fn room_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => room_of(&entry.path()),
        about => about.map_or(0, |about| about.len()),
    });
    sizes.sum()
}

/// How many items a file bus has at this moment, while others write to it.
fn count_of(folder: &Path) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let Ok(bus) = Connection::open_with_flags(folder.join("bus.db"), flags) else {
        return 0;
    };
    let count = bus.query_row("SELECT count(*) FROM item", [], |row| row.get(0));
    count.unwrap_or(0)
}

fn check(person: &Person, url: &str) -> (i32, Value) {
    let (code, mut lines) = person.json(&["bus", "check", url]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    (code, lines.remove(0))
}

/// Without a server, and without a home.
#[test]
fn a_check_says_what_is_there_by_its_exit_code_and_makes_nothing() {
    let rig = Rig::small();
    let kim = rig.stranger("kim");
    let (code, line) = check(&kim, "file:missing/bus");
    assert_eq!((code, &line["standing"]), (7, &"missing".into()));
    assert!(!rig.path().join("missing").exists());
    std::fs::create_dir(rig.path().join("other")).unwrap();
    rig.file(
        "other/bus.db",
        b"no database, and longer than its header would be",
    );
    let (code, line) = check(&kim, "file:other");
    assert_eq!((code, &line["standing"]), (5, &"unusable".into()));
    let said = kim.run(&["bus", "check", "file:other"]).stderr;
    assert!(
        said.contains("not a bus") && said.contains("hint:"),
        "{said}"
    );
    assert!(
        kim.refused(5, &["bus", "setup", "file:other"])
            .contains("hint:")
    );
    assert_eq!(
        kim.done(&["bus", "setup", "file:srv/bus"])
            .matches("made")
            .count(),
        2
    );
    let again = kim.done(&["bus", "setup", "file:srv/bus"]);
    assert!(
        again.starts_with("left") && !again.contains("made"),
        "{again}"
    );
    let (code, line) = check(&kim, "file:srv/bus");
    assert_eq!((code, &line["standing"]), (0, &"ready".into()));
    for key in [
        "server",
        "cluster",
        "tls",
        "history",
        "retention",
        "limits",
        "room",
    ] {
        assert!(line[key].is_string(), "{key}: {line}");
    }
    assert!(line["round_trip_ms"].as_f64().unwrap() > 0.0);
    let table = kim.done(&["bus", "check", "file:srv/bus"]);
    assert!(
        table.lines().any(|line| line == "standing    ready"),
        "{table}"
    );
    // Nobody listens there.
    let port = sealcast_brokers::free_port();
    let url = format!("nats://127.0.0.1:{port}/x");
    for command in ["check", "setup"] {
        let said = kim.refused(5, &["bus", command, &url]);
        assert!(said.contains("cannot be reached"), "{said}");
    }
    assert!(!kim.home().exists());
}

on_every_bus![streams_are_carried_there_and_back_and_readers_go_on];

/// From a folder to another bus and back, with a copy each way that is killed, readers who go on, and one
/// who comes later.
fn streams_are_carried_there_and_back_and_readers_go_on(rig: &Rig) {
    let there = match rig.bus_url() {
        "file:bus" => "file:there",
        url => url,
    };
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| at_the_first(rig, name));
    let ticket = alice.done(&["stream", "create", "s"]);
    alice.done(&["pub", "s", "-m", "one"]);
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    assert_eq!(bob.opened(&["read", "s"]), ["one"]);
    // More than is copied at once.
    for number in 0..5 {
        rig.append(&alice.data_topic(), &vec![number; 400_000]);
    }
    alice.done(&["bus", "setup", there]);
    let copy = ["bus", "copy", "file:bus", there];
    kill_soon(alice.start(&copy));
    alice.done(&copy);
    let (code, lines) = alice.json(&copy);
    assert_eq!((code, &lines[0]["items"]), (0, &0.into()), "{lines:?}");
    alice.done(&["pub", "s", "-m", "two"]);
    let ran = alice.run(&[&copy[..], &["--switch"]].concat());
    assert!(ran.expect(0, &copy).starts_with("s  1 item "), "{ran:?}");
    assert!(ran.stderr.contains("this home uses TO"), "{ran:?}");
    let (_, streams) = alice.json(&["stream", "list"]);
    assert!(streams[0]["bus"].as_str().unwrap().ends_with(&there[5..]));
    rig.have_served(&alice);

    // Bob is still where it was, with what was published there; then he follows.
    assert_eq!(bob.opened(&["read", "s"]), ["one", "two"]);
    let ticket = alice.done(&["ticket", "s"]);
    bob.done(&["join", &ticket]);
    alice.done(&["pub", "s", "-m", "three"]);
    assert_eq!(bob.opened(&["read", "s"]), ["one", "two", "three"]);
    carol.done(&["join", &ticket]);
    alice.done(&["grant", "s", &carol.id(), "--from", "start"]);
    let mut opened = carol.opened(&["read", "s"]);
    // Who comes late there may have newer ones first: spec/bus-mqtt.md, section 10.
    if there.starts_with("mqtt:") {
        opened.sort_by_key(|text| ["one", "two", "three"].iter().position(|of| of == text));
    }
    assert_eq!(opened, ["one", "two", "three"]);
    assert_eq!(carol.count("gap", &["read", "s"]), 0);

    alice.done(&["bus", "setup", "file:back"]);
    let copy = ["bus", "copy", there, "file:back"];
    kill_soon(alice.start(&copy));
    alice.done(&[&copy[..], &["--switch"]].concat());
    let ticket = alice.done(&["ticket", "s"]);
    alice.done(&["pub", "s", "-m", "four"]);
    for reader in [&bob, &carol] {
        reader.done(&["join", &ticket]);
        let all = reader.opened(&["read", "s"]);
        assert_eq!(all, ["one", "two", "three", "four"]);
        assert_eq!(reader.problems(), [""; 0]);
    }
    // What was there from the beginning lies there as it lay on the first bus.
    let (first, last) = (
        carried_of(&rig.path().join("bus")),
        carried_of(&rig.path().join("back")),
    );
    assert!(first.iter().all(|item| last.contains(item)));
    // New streams are made there, too: all of this home had gone.
    alice.done(&["stream", "create", "t"]);
    let (_, streams) = alice.json(&["stream", "list"]);
    assert!(
        streams
            .iter()
            .all(|of| of["bus"].as_str().unwrap().ends_with("/back"))
    );
    assert_eq!(alice.problems().len(), 1, "its keys are here alone");
}

/// Neither is a folder, and what was sealed on the first is opened on the second without another grant.
#[test]
fn a_stream_goes_from_nats_to_postgresql_and_a_reader_goes_on_with_the_same_keys() {
    let (rig, there) = (Rig::on(Kind::Nats), EmptyBus::of(Kind::Postgres).url);
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done_with(&["pub", "s", "-l"], b"one\ntwo\n");
    assert_eq!(bob.opened(&["read", "s"]), ["one", "two"]);

    alice.done(&["bus", "setup", &there]);
    let copy = ["bus", "copy", rig.bus_url(), &there, "--switch"];
    let said = alice.done(&copy);
    assert!(said.starts_with("s  "), "{said}");
    alice.done(&["pub", "s", "-m", "three"]);
    let later = alice.done(&["ticket", "s"]);
    bob.done(&["join", &later]);
    let (_, streams) = bob.json(&["stream", "list"]);
    assert_eq!(streams.len(), 1, "{streams:?}");
    assert!(streams[0]["bus"].as_str().unwrap().ends_with(&there[5..]));
    assert_eq!(bob.opened(&["read", "s"]), ["one", "two", "three"]);
    for state in ["gap", "sealed", "rejected", "replay"] {
        assert_eq!(bob.count(state, &["read", "s"]), 0, "{state}");
    }
    assert_eq!(bob.problems(), [""; 0]);

    // It lies there as it lay on the first, and what came later is behind it.
    let lies = |from: &str, ticket: &str, folder: &str| {
        let to = format!("file:{folder}");
        alice.done(&["bus", "setup", &to]);
        alice.done(&["bus", "copy", from, &to, ticket]);
        let mut items = carried_of(&rig.path().join(folder));
        items.retain(|(topic, ..)| topic.starts_with("s/"));
        items
    };
    let (first, last) = (
        lies(rig.bus_url(), &ticket, "first"),
        lies(&there, &later, "last"),
    );
    assert!(first.iter().any(|(topic, ..)| topic.ends_with("/data")));
    assert!(first.iter().all(|item| last.contains(item)));
    assert!(last.len() > first.len(), "the third message is there alone");
}

/// Somebody with a home on a bus in a folder, whatever the rig's is.
fn at_the_first(rig: &Rig, name: &str) -> Person {
    let person = rig.stranger(name);
    person.done(&[
        "init",
        "--name",
        name,
        "--bus",
        "file:bus",
        "--no-passphrase",
    ]);
    person
}

/// Ends a program at any moment, which may be behind its end.
fn kill_soon(mut child: Child) {
    let mut random = [0];
    getrandom::fill(&mut random).unwrap();
    sleep(Duration::from_millis(u64::from(random[0]) * 2));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A bus with more on it than is copied at once: rubbish, as anybody may write who may write there.
fn laden(rig: &Rig, count: usize) -> (Person, String) {
    let (alice, ticket) = rig.owner("alice", "s");
    alice.done(&["pub", "s", "-m", "first"]);
    for number in 0..count {
        rig.append(&alice.data_topic(), &vec![number as u8; 400_000]);
    }
    alice.done(&["pub", "s", "-m", "last"]);
    (alice, ticket)
}

#[test]
fn a_command_that_is_shown_is_one_to_type() {
    let rig = Rig::small();
    let (alice, _) = rig.owner("alice", "s");
    let there = "file:the bus; & so on";
    let full = format!("file://{}/the bus; & so on", rig.path().display());
    let setup = alice.run(&["bus", "setup", there]);
    let shown = format!("`sealcast bus check '{full}'`");
    assert!(setup.stderr.contains(&shown), "{}", setup.stderr);
    let copy = alice.run(&["bus", "copy", "file:bus", there]);
    let first = format!("file://{}/bus", rig.path().display());
    let shown = format!("`sealcast bus copy {first} '{full}' --switch`");
    assert!(copy.stderr.contains(&shown), "{}", copy.stderr);
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_stood_and_doubles_nothing() {
    const COUNT: usize = 24;
    let rig = Rig::small();
    let (alice, ticket) = laden(&rig, COUNT);
    alice.done(&["bus", "setup", "file:to"]);
    // No home is needed where the ticket is given.
    let nobody = rig.stranger("nobody");
    let copy = ["bus", "copy", "file:bus", "file:to", &ticket];
    let to = rig.path().join("to");
    for round in 1..=4 {
        let mut child = nobody.start(&copy);
        // At another place each time, and at any moment of a batch.
        while count_of(&to) < round * 5 && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        sleep(Duration::from_micros(u64::from(random[0]) * 50));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ran = nobody.run(&copy);
    ran.expect(0, &copy);
    assert!(!nobody.home().exists());
    assert_eq!(items_of(&to), carried_of(&rig.path().join("bus")));
    assert_eq!(nobody.done(&copy), "s  0 items  0 bytes");
}

/// On a terminal.
#[cfg(target_os = "linux")]
#[test]
fn a_copy_shows_how_far_it_is_to_who_looks_and_the_rest_when_it_is_run_again() {
    let rig = Rig::small();
    let (alice, _) = laden(&rig, 24);
    alice.done(&["bus", "setup", "file:to"]);
    let program = alice.command(&[]).get_program().to_owned();
    let look = || {
        let mut terminal = std::process::Command::new("script");
        terminal
            .args(["-qec", "$PROGRAM bus copy file:bus file:to", "/dev/null"])
            .current_dir(rig.path())
            .env("PROGRAM", &program)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env("SEALCAST_HOME", alice.home())
            .env_remove("SEALCAST_PASSPHRASE_FILE");
        let ran = Ran::of(terminal.output().unwrap());
        let shown = String::from_utf8(ran.stdout).unwrap();
        let words: Vec<_> = shown.split_whitespace().collect();
        // `3 of 29`
        let step = |words: &[&str]| match words {
            [done, "of", all] => Some((done.parse().ok()?, all.parse().ok()?)),
            _ => None,
        };
        let steps: Vec<(u64, u64)> = words.windows(3).filter_map(step).collect();
        assert!(steps.is_sorted(), "{shown:?}");
        steps
    };
    let steps = look();
    let all = steps.last().unwrap().1;
    assert!(all > 24 && steps.iter().any(|of| of.0 > 0), "{steps:?}");
    alice.done(&["pub", "s", "-m", "more"]);
    let again = look();
    assert!(again.iter().any(|of| of.1 == 1), "{again:?}");
    assert!(again.iter().all(|of| of.1 <= 1), "{again:?}");
}

#[test]
fn a_server_that_goes_away_and_comes_back_does_not_end_a_copy() {
    let (rig, mut server) = (Rig::small(), Server::start());
    let url = server.url("plant");
    let (alice, _) = laden(&rig, 24);
    alice.done(&["bus", "setup", &url]);
    let copy = ["bus", "copy", "file:bus", &url];
    let mut child = alice.start(&copy);
    let mut looks = 0..LOOKS;
    while room_of(server.folder()) < 2 << 20 && child.try_wait().unwrap().is_none() {
        assert!(looks.next().is_some(), "nothing comes to the server");
        sleep(Duration::from_millis(5));
    }
    server.kill();
    server.restart();
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.expect(0, &copy);
    alice.done(&["bus", "setup", "file:back"]);
    alice.done(&["bus", "copy", &url, "file:back", "s"]);
    let (first, last) = (
        carried_of(&rig.path().join("bus")),
        items_of(&rig.path().join("back")),
    );
    assert_eq!(last.len(), first.len());
    assert!(last == first, "the same items at the same places");
}

#[test]
fn a_wrong_password_is_refused_and_a_full_bus_says_so() {
    let config = "accounts { A: { jetstream: { max_file: 1000000 }, \
                  users: [ { user: plant, password: hush } ] } }";
    let (rig, server) = (Rig::small(), Server::start_with(config));
    let url = server.url("plant");
    let (alice, _) = laden(&rig, 6);
    let say = |password: &str| {
        let text = format!("[\"{url}\"]\nuser = \"plant\"\npassword = \"{password}\"\n");
        std::fs::write(alice.home().join("servers.toml"), text).unwrap();
    };
    let (setup, copy) = (["bus", "setup", &url], ["bus", "copy", "file:bus", &url]);
    say("wrong-one");
    for command in [&setup[..], &copy] {
        let said = alice.refused(5, command);
        assert!(!said.contains("wrong-one"), "{said}");
    }
    say("hush");
    alice.done(&setup);
    let checked = alice.done(&["bus", "check", &url]);
    assert!(
        checked.contains("the account takes 0 bytes of 976.5 KiB"),
        "{checked}"
    );
    let said = alice.refused(5, &copy);
    assert!(said.contains("full"), "{said}");
}

/// As one does whose switch was killed behind its last stream.
#[test]
fn a_home_without_streams_is_switched_too() {
    let rig = Rig::small();
    let (alice, kim) = (rig.owner("alice", "s").0, rig.person("kim"));
    alice.done(&["bus", "setup", "file:to"]);
    kim.done(&["bus", "copy", "file:bus", "file:to", "--switch"]);
    kim.done(&["stream", "create", "t"]);
    let (_, streams) = kim.json(&["stream", "list"]);
    assert!(streams[0]["bus"].as_str().unwrap().ends_with("/to"));
    kim.refused(7, &["bus", "copy", "file:bus", "file:to", "--switch"]);
}

#[test]
fn what_cannot_be_carried_is_refused_and_told() {
    let rig = Rig::small();
    let (alice, ticket) = rig.owner("alice", "s");
    alice.done(&["bus", "setup", "file:to"]);
    for (code, args, word) in [
        (2, &["file:bus", "file:bus"][..], "one bus"),
        (7, &["file:to", "file:bus"], "stream list"),
        (7, &["file:to", "file:bus", "s"], "not on this bus"),
        (7, &["file:bus", "file:to", "t"], "no such stream"),
        (7, &["file:bus", "file:none"], "no bus yet"),
        (7, &["file:none", "file:to", "s"], "no bus yet"),
        (
            2,
            &["file:bus", "file:to", &ticket, "--switch"],
            "by their names",
        ),
        (2, &["bus", "file:to"], "file:"),
    ] {
        let said = alice.refused(code, &[&["bus", "copy"], args].concat());
        assert!(said.contains(word), "{args:?}: {said}");
    }
    assert!(!rig.path().join("none").exists());
}

/// What its server does not tell at once it tells when it is asked.
#[test]
fn who_follows_hears_that_the_server_is_away_and_goes_on_when_it_is_back() {
    let (rig, mut server) = (Rig::small(), Server::start());
    let kim = rig.person("kim");
    kim.done(&["stream", "create", "s", "--bus", &server.url("plant")]);
    kim.done(&["pub", "s", "-m", "one"]);
    let mut sub = kim.start(&["sub", "s", "--from", "start"]);
    let mut said = BufReader::new(sub.stderr.take().unwrap()).lines();
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    server.kill();
    let away = said.next().unwrap().unwrap();
    assert_eq!(away, "the bus is away, trying again");
    server.restart();
    assert_eq!(said.next().unwrap().unwrap(), "the bus is back");
    kim.done(&["pub", "s", "-m", "two"]);
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    sub.kill().unwrap();
    sub.wait().unwrap();
}

/// Whoever writes to it is held up, and learns in the end that nothing more is taken.
#[test]
fn a_publisher_whose_server_is_away_takes_in_no_more_than_it_has_room_for() {
    const OFFERED: usize = 128 << 20;
    const TAKEN_MAX: usize = 24 << 20;
    let (rig, mut server) = (Rig::small(), Server::start());
    let kim = rig.person("kim");
    kim.done(&["stream", "create", "s", "--bus", &server.url("plant")]);
    let publish = ["pub", "s", "-l", "--acks"];
    let mut publisher = kim.start(&publish);
    let mut stdin = publisher.stdin.take().unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(acks.next().unwrap().unwrap(), "1");
    server.kill();
    let line = [&[b'x'; 4 << 10][..], b"\n"].concat();
    let mut taken = 0;
    while taken < OFFERED && stdin.write_all(&line).is_ok() {
        taken += line.len();
    }
    assert!(taken < TAKEN_MAX, "{taken} bytes");
    drop(stdin);
    let ran = Ran::of(publisher.wait_with_output().unwrap());
    ran.expect(5, &publish);
}
