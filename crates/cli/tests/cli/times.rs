//! Times: every form, and intervals to the millisecond.

use crate::rig::{Person, Rig};

/// Eight hours of a day long past, a record on the hour.
const HOURS: [&str; 8] = ["00", "01", "02", "03", "04", "05", "06", "07"];

fn backfilled(rig: &Rig) -> (Person, String) {
    let (alice, ticket) = rig.owner("alice", "s");
    let lines: String = HOURS
        .iter()
        .map(|hour| format!("2024-05-06T{hour}:00:00Z\tat {hour}\n"))
        .collect();
    alice.done_with(&["pub", "s", "-l", "--backfill"], lines.as_bytes());
    (alice, ticket)
}

#[test]
fn a_backfill_is_sealed_at_its_own_times() {
    let rig = Rig::new();
    let (alice, _) = backfilled(&rig);
    let (code, lines) = alice.json(&["read", "s"]);
    assert_eq!(code, 0);
    let times: Vec<_> = lines
        .iter()
        .map(|line| line["time"].as_str().unwrap())
        .collect();
    let expected = HOURS.map(|hour| format!("2024-05-06T{hour}:00:00.000Z"));
    assert_eq!(times, expected);
}

#[test]
fn reading_an_interval_takes_in_its_beginning_and_leaves_out_its_end() {
    let rig = Rig::new();
    let (alice, _) = backfilled(&rig);
    for (from, until, texts) in [
        (
            "2024-05-06T02:00:00Z",
            "2024-05-06T04:00:00Z",
            &["at 02", "at 03"][..],
        ),
        (
            "2024-05-06T02:00:00.001Z",
            "2024-05-06T04:00:00.001Z",
            &["at 03", "at 04"],
        ),
        (
            "2024-05-06T07:00:00+02:00",
            "2024-05-06T08:00:00+02:00",
            &["at 05"],
        ),
        ("2024-05-05", "2024-05-06", &[]),
        ("start", "2024-05-06T01:00:00Z", &["at 00"]),
        ("2024-05-06T07:00:00Z", "now", &["at 07"]),
        (
            "-9999w",
            "+1h",
            &[
                "at 00", "at 01", "at 02", "at 03", "at 04", "at 05", "at 06", "at 07",
            ],
        ),
    ] {
        let args = ["read", "s", "--from", from, "--until", until];
        assert_eq!(alice.opened(&args), texts, "{from} {until}");
    }
}

#[test]
fn relative_times_read_what_was_published_lately() {
    let rig = Rig::new();
    let (alice, _) = backfilled(&rig);
    alice.done(&["pub", "s", "-m", "just now"]);
    assert_eq!(alice.opened(&["read", "s", "--from", "-10m"]), ["just now"]);
    assert_eq!(
        alice.opened(&["read", "s", "--from", "-1w", "--until", "+30d"]),
        ["just now"]
    );
}

#[test]
fn intervals_that_are_none_are_refused() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    alice.refused(2, &["read", "s", "--from", "now", "--until", "-1h"]);
    alice.refused(
        2,
        &["grant", "s", &alice.id(), "--from", "-1h", "--until", "-2h"],
    );
    alice.refused(2, &["read", "s", "--from", "2024-02-30"]);
    alice.refused(2, &["read", "s", "--from", "2024-02-03T10:00:00"]);
}

#[test]
fn a_backfill_that_is_out_of_order_or_ahead_names_its_line() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    for (lines, line) in [
        ("2024-01-02\ta\n2024-01-01\tb\n", "line 2"),
        ("2024-01-02\ta\nnonsense\tb\n", "line 2"),
        ("2024-01-02 no tab\n", "line 1"),
        ("9024-01-02\tfar ahead\n", "line 1"),
    ] {
        let args = ["pub", "s", "-l", "--backfill"];
        let ran = alice.run_with(&args, lines.as_bytes());
        ran.expect(2, &args);
        assert!(ran.stderr.contains(line), "{lines:?}: {}", ran.stderr);
    }
    alice.refused(2, &["pub", "s", "--backfill"]);
}

#[test]
fn a_late_grant_opens_exactly_its_interval() {
    let rig = Rig::new();
    let (alice, ticket) = backfilled(&rig);
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    let ran = bob.run(&["read", "s"]);
    assert_eq!(ran.expect(3, &["read"]), "");
    assert!(
        ran.stderr.contains("8 messages sealed: no grant of yours"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(&bob.id()), "{}", ran.stderr);

    let from_until = [
        "--from",
        "2024-05-06T02:00:00.001Z",
        "--until",
        "2024-05-06T05:00:00.001Z",
    ];
    alice.done(&[&["grant", "s", &bob.id()][..], &from_until].concat());
    assert_eq!(bob.opened(&["read", "s"]), ["at 03", "at 04", "at 05"]);
    assert_eq!(bob.count("sealed", &["read", "s"]), 5);
    assert_eq!(bob.run(&["read", "s"]).code, 3);
    bob.done(&[&["read", "s"][..], &from_until].concat());
}

#[test]
fn readers_who_pool_their_keys_get_the_union_only() {
    let rig = Rig::new();
    let (alice, ticket) = backfilled(&rig);
    let mut pooled = Vec::new();
    for (name, from, until) in [("bob", "01", "03"), ("eve", "05", "06")] {
        let reader = rig.person(name);
        reader.done(&["join", &ticket]);
        let (from, until) = (
            format!("2024-05-06T{from}:00:00Z"),
            format!("2024-05-06T{until}:00:00Z"),
        );
        alice.done(&[
            "grant",
            "s",
            &reader.id(),
            "--from",
            &from,
            "--until",
            &until,
        ]);
        pooled.extend(reader.opened(&["read", "s"]));
    }
    assert_eq!(pooled, ["at 01", "at 02", "at 05"]);
}
