//! Who may read what: grants, revocations, rekey, rotate, tickets.

use crate::kinds::on_every_bus;
use crate::rig::{Person, Rig};

on_every_bus![
    a_grant_from_now_leaves_the_past_shut_also_across_a_rekey,
    after_a_revocation_nothing_new_opens_and_what_was_given_still_does,
    an_interval_that_has_ended_opens_nothing_later,
    rotate_prints_a_cut_between_what_was_and_what_comes,
    a_user_who_has_not_joined_gets_the_keys_later,
    a_publisher_publishes_in_its_own_lane,
    an_admin_grants_on,
    anyone_reads_a_public_stream,
];

fn joined(rig: &Rig, name: &str, ticket: &str) -> Person {
    let person = rig.person(name);
    person.done(&["join", ticket]);
    person
}

#[test]
fn a_ticket_is_one_line_and_joins_under_the_name_one_likes() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "boiler room");
    assert_eq!(ticket.lines().count(), 1);
    assert!(ticket.starts_with("sealcast1:"));
    assert_eq!(alice.done(&["ticket", "boiler room"]), ticket);
    let bob = rig.person("bob");
    assert_eq!(bob.done(&["join", &ticket, "--as", "heat"]), "heat");
    assert!(bob.done(&["stream", "list"]).starts_with("heat"));
    assert_eq!(rig.person("eve").done(&["join", &ticket]), "boiler room");
}

#[test]
fn a_damaged_ticket_is_refused() {
    let rig = Rig::new();
    let (_, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    let cut = &ticket[..ticket.len() - 2];
    for wrong in ["", "hello", "sealcast1:", cut, "sealcast9:AAAA"] {
        bob.refused(2, &["join", wrong]);
    }
    assert_eq!(bob.done(&["stream", "list"]), "");
}

#[test]
fn a_ticket_to_a_bus_that_is_not_there_is_told() {
    let rig = Rig::new();
    let (_, ticket) = rig.owner("alice", "s");
    std::fs::rename(rig.path().join("bus"), rig.path().join("elsewhere")).unwrap();
    let bob = rig.person("bob");
    bob.refused(5, &["join", &ticket]);
    assert_eq!(bob.done(&["stream", "list"]), "", "nothing half-made stays");
}

#[test]
fn a_name_is_taken_once() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    alice.refused(2, &["stream", "create", "s"]);
}

#[test]
fn a_grant_prints_its_id_and_the_interval_that_took_effect() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(&rig, "bob", &ticket);
    let ran = alice.run(&["grant", "s", &bob.id()]);
    let id = ran.expect(0, &["grant"]);
    assert!(
        id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()),
        "{id}"
    );
    assert!(ran.stderr.contains("until no end"), "{}", ran.stderr);
    let (_, who) = alice.json(&["who", "s"]);
    let line = who
        .iter()
        .find(|line| line["grant"] == id.as_str())
        .unwrap();
    let keys: Vec<_> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["from", "grant", "name", "role", "state", "until", "user"]
    );
    assert_eq!(
        (&line["role"], &line["until"]),
        (&"reader".into(), &serde_json::Value::Null)
    );
    assert_eq!(who.iter().filter(|line| line["role"] == "owner").count(), 1);
}

fn a_grant_from_now_leaves_the_past_shut_also_across_a_rekey(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(rig, "bob", &ticket);
    alice.done(&["pub", "s", "-m", "before"]);
    alice.done(&["grant", "s", &bob.id()]);
    alice.done(&["pub", "s", "-m", "after"]);
    alice.done(&["rekey", "s"]);
    alice.done(&["pub", "s", "-m", "after the rekey"]);
    assert_eq!(bob.opened(&["read", "s"]), ["after", "after the rekey"]);
    assert_eq!(bob.count("sealed", &["read", "s"]), 1);
}

fn after_a_revocation_nothing_new_opens_and_what_was_given_still_does(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(rig, "bob", &ticket);
    alice.done(&["contact", "add", "bob", &bob.id()]);
    alice.done(&["grant", "s", "bob", "--from", "start"]);
    alice.done(&["pub", "s", "-m", "given"]);
    assert_eq!(bob.opened(&["read", "s"]), ["given"]);
    alice.done(&["revoke", "s", "bob"]);
    alice.done(&["pub", "s", "-m", "taken"]);
    let ran = bob.run(&["read", "s"]);
    assert_eq!(ran.expect(3, &["read"]), "given");
    let (_, who) = alice.json(&["who", "s"]);
    let states: Vec<_> = who.iter().filter(|line| line["name"] == "bob").collect();
    assert!(
        states.iter().all(|line| line["state"] == "revoked"),
        "{states:?}"
    );
}

#[test]
fn one_grant_is_revoked_by_the_first_letters_of_its_id() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(&rig, "bob", &ticket);
    let grant = alice.done(&["grant", "s", &bob.id()]);
    alice.refused(7, &["revoke", "s", &grant[..7]]);
    alice.refused(7, &["revoke", "s", "00000000"]);
    let (_, lines) = alice.json(&["revoke", "s", &grant[..8]]);
    assert_eq!(lines[0]["grants"], serde_json::json!([grant]));
    alice.done(&["pub", "s", "-m", "after"]);
    assert_eq!(bob.opened(&["read", "s"]), [""; 0]);
}

fn an_interval_that_has_ended_opens_nothing_later(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(rig, "bob", &ticket);
    alice.done(&["pub", "s", "-m", "within"]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start", "--until", "now"]);
    alice.done(&["pub", "s", "-m", "after"]);
    assert_eq!(bob.opened(&["read", "s"]), ["within"]);
    let (_, who) = alice.json(&["who", "s"]);
    assert!(who.iter().any(|line| line["state"] == "ended"), "{who:?}");
}

fn rotate_prints_a_cut_between_what_was_and_what_comes(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(rig, "bob", &ticket);
    let eve = joined(rig, "eve", &ticket);
    alice.done(&["grant", "s", &eve.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "before"]);
    let cut = alice.done(&["rotate", "s"]);
    assert_eq!(cut.len(), "2026-03-01T00:00:00.000Z".len(), "{cut}");
    alice.done(&["pub", "s", "-m", "after"]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start", "--until", &cut]);
    assert_eq!(bob.opened(&["read", "s"]), ["before"]);
    assert_eq!(eve.opened(&["read", "s"]), ["before", "after"]);
    assert_eq!(alice.opened(&["read", "s", "--until", &cut]), ["before"]);
}

fn a_user_who_has_not_joined_gets_the_keys_later(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    alice.done(&["pub", "s", "-m", "early"]);
    let bob = rig.person("bob");
    let ran = alice.run(&["grant", "s", &bob.id(), "--from", "start"]);
    ran.expect(0, &["grant"]);
    assert!(
        ran.stderr.contains("no device on that bus yet"),
        "{}",
        ran.stderr
    );
    bob.done(&["join", &ticket]);
    let (code, lines) = bob.json(&["read", "s"]);
    assert_eq!(
        (code, lines[0]["reason"].as_str()),
        (3, Some("key-not-here"))
    );
    alice.done(&["who", "s"]);
    alice.done(&["pub", "s", "-m", "later"]);
    assert_eq!(bob.opened(&["read", "s"]), ["early", "later"]);
}

#[test]
fn who_may_not_grant_or_publish_is_told_so() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(&rig, "bob", &ticket);
    let eve = joined(&rig, "eve", &ticket);
    bob.refused(4, &["pub", "s", "-m", "x"]);
    bob.refused(4, &["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["grant", "s", &eve.id()]);
    bob.refused(4, &["revoke", "s", &eve.id()]);
    let (id, admin) = (bob.id(), ["--role", "admin"]);
    for interval in [["--until", "+1d"], ["--from", "now"]] {
        let args = [&["grant", "s", id.as_str()][..], &admin, &interval].concat();
        alice.refused(2, &args);
    }
}

fn a_publisher_publishes_in_its_own_lane(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "chat");
    let bob = joined(rig, "bob", &ticket);
    let roles = ["--role", "reader,publisher", "--from", "start"];
    alice.done(&[&["grant", "chat", &bob.id()][..], &roles].concat());
    alice.done(&["pub", "chat", "-m", "hello"]);
    bob.done(&["pub", "chat", "-m", "hello yourself"]);
    for person in [&alice, &bob] {
        assert_eq!(
            person.opened(&["read", "chat"]),
            ["hello", "hello yourself"]
        );
    }
    let (_, lines) = alice.json(&["read", "chat"]);
    assert_eq!(lines[1]["publisher"], bob.id().as_str());
}

fn an_admin_grants_on(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = joined(rig, "bob", &ticket);
    let eve = joined(rig, "eve", &ticket);
    alice.done(&["pub", "s", "-m", "x"]);
    alice.done(&["grant", "s", &bob.id(), "--role", "admin"]);
    bob.done(&["grant", "s", &eve.id(), "--from", "start"]);
    assert_eq!(eve.opened(&["read", "s"]), ["x"]);
}

fn anyone_reads_a_public_stream(rig: &Rig) {
    let alice = rig.person("alice");
    let ticket = alice.done(&["stream", "create", "weather", "--public"]);
    rig.have_kept(&ticket);
    alice.done(&["pub", "weather", "-m", "sun"]);
    let bob = joined(rig, "bob", &ticket);
    let ran = bob.run(&["read", "weather"]);
    assert_eq!(ran.expect(0, &["read"]), "sun");
}

#[test]
fn unknown_users_are_missing() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    alice.refused(7, &["grant", "s", "nobody"]);
    alice.refused(7, &["revoke", "s", "nobody"]);
    alice.refused(2, &["grant", "s", "sc1qqqq"]);
}

#[test]
fn sessions_are_renewed_after_a_time() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    alice.done(&["stream", "set", "s", "--rekey-every", "7d"]);
    alice.refused(2, &["stream", "set", "s", "--rekey-every", "7"]);
    alice.refused(2, &["stream", "set", "s"]);
    alice.done(&["pub", "s", "-m", "x"]);
    assert_eq!(alice.done(&["read", "s"]), "x");
}
