//! Messages: every kind of payload there and back.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use crate::kinds::on_every_bus;
use crate::rig::{Person, Ran, Rig};

on_every_bus![
    many_lines_come_back_in_order,
    what_is_stored_is_told_at_once_and_outlives_the_program,
];

/// Publishes and reads back what comes out, newline included.
fn there_and_back(kim: &Person, args: &[&str], input: &[u8]) -> Vec<u8> {
    kim.done_with(args, input);
    let ran = kim.run(&["read", "s"]);
    ran.expect(0, args);
    ran.stdout
}

#[test]
fn text_comes_back_with_a_newline() {
    for text in ["61.4 C", "-5.2 C", "", "--json", "zwölf °C"] {
        let rig = Rig::new();
        let (kim, _) = rig.owner("kim", "s");
        let back = there_and_back(&kim, &["pub", "s", "-m", text], b"");
        assert_eq!(back, format!("{text}\n").into_bytes());
    }
}

#[test]
fn binary_and_empty_payloads_come_back_as_they_are() {
    let every_byte: Vec<u8> = (0..=255).collect();
    for payload in [&every_byte[..], b"", b"\n", b"\0"] {
        let rig = Rig::new();
        let (kim, _) = rig.owner("kim", "s");
        let back = there_and_back(&kim, &["pub", "s"], payload);
        assert_eq!(back, [payload, b"\n"].concat());
    }
}

#[test]
fn a_file_is_one_message() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let file = rig.file("photo", b"\x89PNG\n\n");
    let back = there_and_back(&kim, &["pub", "s", "-f", &file], b"not this");
    assert_eq!(back, b"\x89PNG\n\n\n");
    kim.refused(7, &["pub", "s", "-f", "no-such-file"]);
    kim.refused(2, &["pub", "s", "-f", "."]);
}

#[test]
fn lines_are_records_and_keep_every_byte() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let lines = b"one\r\n\n\xff\xfe\0\nlast";
    kim.done_with(&["pub", "s", "-l"], lines);
    let (code, read) = kim.json(&["read", "s"]);
    assert_eq!(code, 0);
    let payloads: Vec<_> = read
        .iter()
        .map(|line| (&line["text"], &line["base64"]))
        .collect();
    assert_eq!(payloads.len(), 4, "{read:?}");
    assert_eq!(payloads[0].0, "one\r");
    assert_eq!(payloads[1].0, "");
    assert_eq!(payloads[2].1, "//4A");
    assert_eq!(payloads[3].0, "last");
}

#[test]
fn no_lines_publish_nothing() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done_with(&["pub", "s", "-l"], b"");
    assert_eq!(kim.done(&["read", "s"]), "");
}

fn many_lines_come_back_in_order(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    let lines: String = (0..20_000).map(|n| format!("record {n}\n")).collect();
    let told = kim.run_with(&["pub", "s", "-l", "--json"], lines.as_bytes());
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["records"], 20_000);
    assert!(told["envelopes"].as_u64().unwrap() < 1_000, "{told}");
    assert_eq!(kim.run(&["read", "s"]).stdout, lines.into_bytes());
}

#[test]
fn a_message_of_16_mib_fits() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let payload: Vec<u8> = (0..16 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let back = there_and_back(&kim, &["pub", "s"], &payload);
    assert!(
        back.strip_suffix(b"\n") == Some(&payload[..]),
        "{} bytes",
        back.len()
    );
}

#[test]
fn a_message_of_100_mb_is_refused_with_a_hint() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let path = rig.file("large", b"");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100_000_000)
        .unwrap();
    let said = kim.refused(2, &["pub", "s", "-f", &path]);
    assert!(said.contains("hint:"), "{said}");
    let large = vec![b'x'; 100_000_000];
    for args in [&["pub", "s"][..], &["pub", "s", "-l"]] {
        let ran = kim.run_with(args, &large);
        assert_eq!(ran.expect(2, args), "", "{args:?}");
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
    }
    // Less than what is read at all, more than the bus takes.
    let ran = kim.run_with(&["pub", "s"], &vec![b'x'; 50_000_000]);
    ran.expect(2, &["50 MB"]);
    assert_eq!(kim.done(&["read", "s"]), "");
    kim.done(&["pub", "s", "-m", "still works"]);
    assert_eq!(kim.done(&["read", "s"]), "still works");
}

#[test]
fn a_line_of_json_has_the_keys_of_the_contract() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "x"]);
    let ran = kim.run(&["read", "s", "--json"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(text.starts_with(r#"{"time":"20"#), "{text}");
    assert!(
        text.trim_end().ends_with(r#""state":"opened","text":"x"}"#),
        "{text}"
    );
    assert_eq!(value["publisher"], kim.id().as_str());
    assert!(value["seq"].is_u64() && value["device"].is_string());
    let time = value["time"].as_str().unwrap();
    assert_eq!(time.len(), "2026-03-01T00:00:00.000Z".len());
}

#[test]
fn pub_tells_what_it_published() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let ran = kim.run(&["pub", "s", "-m", "x"]);
    assert!(ran.stdout.is_empty());
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    let (_, lines) = kim.json(&["pub", "s", "-m", "y"]);
    let keys: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["envelopes", "position", "records", "time"]);
    assert_eq!(
        (&lines[0]["records"], &lines[0]["envelopes"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn unknown_streams_are_missing_whatever_the_command() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    for args in [
        &["pub", "nowhere", "-m", "x"][..],
        &["read", "nowhere"],
        &["sub", "nowhere", "--for", "1s"],
        &["ticket", "nowhere"],
        &["who", "nowhere"],
        &["grant", "nowhere", "sc1x"],
        &["revoke", "nowhere", "kim"],
        &["rekey", "nowhere"],
        &["rotate", "nowhere"],
        &["stream", "set", "nowhere", "--rekey-every", "7d"],
    ] {
        let said = kim.refused(7, args);
        assert!(said.contains("nowhere"), "{args:?}: {said}");
    }
}

#[test]
fn a_bus_that_is_gone_is_told_and_not_made_anew() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "x"]);
    let bus = rig.path().join("bus");
    fs::rename(&bus, rig.path().join("unmounted")).unwrap();
    kim.refused(5, &["pub", "s", "-m", "y"]);
    kim.refused(5, &["read", "s"]);
    assert!(
        !bus.exists(),
        "a bus made anew would hide that the old one is gone"
    );
    fs::rename(rig.path().join("unmounted"), &bus).unwrap();
    assert_eq!(kim.done(&["read", "s"]), "x");
}

#[test]
fn a_damaged_bus_is_told() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "x"]);
    for entry in fs::read_dir(rig.path().join("bus")).unwrap() {
        let path = entry.unwrap().path();
        match path.ends_with("bus.db") {
            true => fs::write(path, vec![0xa5; 40_960]).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    for args in [&["pub", "s", "-m", "y"][..], &["read", "s"]] {
        let said = kim.refused(5, args);
        assert!(said.contains("damaged") && said.contains("hint:"), "{said}");
    }
}

#[test]
fn a_reader_of_the_output_that_has_gone_ends_the_command_quietly() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let lines = "a line to fill the pipe with, and then some\n".repeat(20_000);
    kim.done_with(&["pub", "s", "-l"], lines.as_bytes());
    let mut child = kim.start(&["read", "s"]);
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

/// Fault 7: a plaintext on a sealed stream is not accepted.
#[test]
fn what_somebody_wrote_in_clear_is_rejected_and_told() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "sealed"]);
    rig.append(&kim.data_topic(), b"in clear");
    kim.done(&["pub", "s", "-m", "sealed too"]);
    let ran = kim.run(&["read", "s"]);
    assert_eq!(ran.expect(3, &["read"]), "sealed\nsealed too");
    assert!(ran.stderr.contains("1 message rejected"), "{}", ran.stderr);
    assert_eq!(kim.count("rejected", &["read", "s"]), 1);
}

#[test]
fn a_message_that_the_bus_dropped_is_noticed_as_a_gap_by_the_next_one() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "one"]);
    kim.done(&["pub", "s", "-m", "lost"]);
    rig.drop_last(&kim.data_topic());
    kim.done(&["pub", "s", "-m", "three"]);
    let ran = kim.run(&["read", "s"]);
    assert_eq!(ran.expect(0, &["read"]), "one\nthree");
    assert!(ran.stderr.starts_with("gap: from you"), "{}", ran.stderr);
    assert_eq!(kim.count("gap", &["read", "s"]), 1);
}

#[test]
fn a_message_that_comes_again_is_told_and_not_delivered_twice() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "once"]);
    rig.append(&kim.data_topic(), &rig.last(&kim.data_topic()));
    let ran = kim.run(&["read", "s"]);
    assert_eq!(ran.expect(0, &["read"]), "once");
    assert!(ran.stderr.starts_with("replay: "), "{}", ran.stderr);
    // Fault 20: reading again is not a replay.
    assert_eq!(kim.count("replay", &["read", "s"]), 1);
    assert_eq!(kim.count("opened", &["read", "s"]), 1);
}

/// Fault 6: what was flipped on the way yields an error, not other words.
#[test]
fn an_altered_message_is_rejected_and_the_rest_is_read() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "before"]);
    kim.done(&["pub", "s", "-m", "altered"]);
    let topic = kim.data_topic();
    let mut envelope = rig.last(&topic);
    let at = envelope.len() - 70;
    envelope[at] ^= 1;
    rig.drop_last(&topic);
    rig.append(&topic, &envelope);
    kim.done(&["pub", "s", "-m", "after"]);
    let ran = kim.run(&["read", "s"]);
    assert_eq!(ran.expect(3, &["read"]), "before\nafter");
    assert!(
        ran.stderr.contains("1 message rejected: the signature"),
        "{}",
        ran.stderr
    );
}

fn what_is_stored_is_told_at_once_and_outlives_the_program(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    let mut publisher = kim.start(&["pub", "s", "-l", "--acks"]);
    let mut stdin = publisher.stdin.take().unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(acks.next().unwrap().unwrap(), "1");
    stdin.write_all(b"two\nthree\n").unwrap();
    let told = acks.by_ref().map(Result::unwrap).find(|ack| ack == "3");
    assert!(told.is_some());
    publisher.kill().unwrap();
    publisher.wait().unwrap();
    assert_eq!(kim.done(&["read", "s"]), "one\ntwo\nthree");
}

#[test]
fn the_last_ack_comes_before_the_end_and_says_all() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let lines = "line\n".repeat(500);
    let acks = kim.done_with(&["pub", "s", "-l", "--acks", "--json"], lines.as_bytes());
    let acks: Vec<_> = acks.lines().collect();
    let (summary, acks) = acks.split_last().unwrap();
    assert!(summary.contains(r#""records":500"#), "{summary}");
    assert_eq!(acks.last(), Some(&r#"{"stored":500}"#));
}

/// Whoever writes more only once that is stored would wait for it for ever.
#[test]
fn publishing_ends_when_something_cannot_be_published_also_while_nothing_more_comes() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let args = ["pub", "s", "-l", "--acks"];
    let mut publisher = kim.start(&args);
    let mut stdin = publisher.stdin.take().unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(acks.next().unwrap().unwrap(), "1");
    let bus = rusqlite::Connection::open(rig.path().join("bus/bus.db")).unwrap();
    bus.execute_batch("BEGIN IMMEDIATE").unwrap();
    stdin.write_all(b"two\n").unwrap();
    let mut looks = 0..600;
    while publisher.try_wait().unwrap().is_none() {
        assert!(looks.next().is_some(), "it waits for more");
        thread::sleep(Duration::from_millis(100));
    }
    let ran = Ran::of(publisher.wait_with_output().unwrap());
    ran.expect(5, &args);
    assert!(ran.stderr.contains("1 record"), "{}", ran.stderr);
    drop(stdin);
    drop(bus);
    assert_eq!(kim.done(&["read", "s"]), "one");
}

#[cfg(unix)]
#[test]
fn publishing_ends_when_nobody_reads_what_is_stored() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let mut publisher = kim.start(&["pub", "s", "-l", "--acks"]);
    let mut stdin = publisher.stdin.take().unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(acks.next().unwrap().unwrap(), "1");
    drop(acks);
    stdin.write_all(b"two\n").unwrap();
    assert_eq!(publisher.wait().unwrap().code(), Some(0));
    assert_eq!(kim.done(&["read", "s"]), "one\ntwo");
}
