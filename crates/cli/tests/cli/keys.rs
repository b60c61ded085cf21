//! Keys in files: handed over, taken in, refused.

use std::fs;

use crate::rig::{KEY, OTHER_KEY, Person, Rig};

/// An owner whose stream hands out no keys on the bus, a reader who has joined, and the reader's
/// identity file.
fn apart(rig: &Rig) -> (Person, Person, String) {
    let (alice, bob) = (rig.person("alice"), rig.person("bob"));
    let ticket = alice.done(&["stream", "create", "lab", "--share", "manual"]);
    bob.done(&["join", &ticket]);
    (alice, bob, rig.file("bob.key", KEY.1.as_bytes()))
}

fn export(alice: &Person, file: &str, more: &[&str]) {
    let args = ["keys", "export", "lab", "-o", file, "--recipient", KEY.0];
    alice.done(&[&args, more].concat());
}

#[test]
fn keys_agreed_on_before_the_first_message_open_it_and_nothing_on_the_bus_does() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    let eve = rig.person("eve");
    eve.done(&["join", &alice.done(&["ticket", "lab"])]);
    alice.done(&["rekey", "lab"]);
    export(&alice, "lab.keys", &[]);
    bob.done(&["keys", "import", "lab.keys", "--identity", &key]);
    let announced = rig.items(&alice.topic("keys"), 0).len();
    alice.done(&["pub", "lab", "-m", "first"]);
    assert_eq!(bob.done(&["read", "lab"]), "first");
    eve.refused(3, &["read", "lab"]);
    assert_eq!(announced, 1, "the session record");
    assert_eq!(rig.items(&alice.topic("keys"), 0).len(), announced);
    let again = bob.json(&["keys", "import", "lab.keys", "--identity", &key]);
    assert_eq!(again.1[0]["new_keys"], 0);
}

#[test]
fn an_exported_interval_opens_to_the_millisecond_and_nothing_else() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    let lines = "2026-03-01T00:00:00.999Z\tbefore\n2026-03-01T00:00:01.000Z\tfirst\n\
                 2026-03-01T00:00:01.999Z\tlast\n2026-03-01T00:00:02.000Z\tbehind\n";
    alice.done_with(&["pub", "lab", "-l", "--backfill"], lines.as_bytes());
    alice.done(&["pub", "lab", "-m", "live"]);
    let interval = [
        "--from",
        "2026-03-01T00:00:01Z",
        "--until",
        "2026-03-01T00:00:02Z",
    ];
    export(&alice, "second.keys", &interval);
    bob.done(&["keys", "import", "second.keys", "--identity", &key]);
    assert_eq!(bob.opened(&["read", "lab"]), ["first", "last"]);
    assert_eq!(bob.count("sealed", &["read", "lab"]), 3);
    // What it does not have it cannot hand on.
    bob.refused(
        7,
        &[
            &["keys", "export", "lab", "-o", "more.keys"][..],
            &["--recipient", KEY.0, "--from", "-1h"],
        ]
        .concat(),
    );
    let on = [
        "keys",
        "export",
        "lab",
        "-o",
        "on.keys",
        "--recipient",
        KEY.0,
    ];
    bob.done(&on);
    let carol = rig.person("carol");
    carol.done(&["join", &alice.done(&["ticket", "lab"])]);
    carol.done(&["keys", "import", "on.keys", "--identity", &key]);
    assert_eq!(carol.opened(&["read", "lab"]), ["first", "last"]);
}

#[test]
fn an_export_until_now_holds_what_was_published_and_nothing_later() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["pub", "lab", "-m", "before"]);
    export(&alice, "now.keys", &["--until", "now"]);
    alice.done(&["pub", "lab", "-m", "after"]);
    bob.done(&["keys", "import", "now.keys", "--identity", &key]);
    assert_eq!(bob.opened(&["read", "lab"]), ["before"]);
}

/// Fault 11: an imported session never becomes the one that is sealed with, whoever drew it.
#[test]
fn nothing_is_sealed_with_an_imported_session() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["grant", "lab", &bob.id(), "--role", "reader,publisher"]);
    alice.done(&["backup", "alice.age", "--recipient", KEY.0]);
    alice.done(&["rekey", "lab"]);
    export(&alice, "lab.keys", &[]);
    bob.done(&["keys", "import", "lab.keys", "--identity", &key]);
    let again = rig.stranger("again");
    again.done(&[
        "restore",
        "alice.age",
        "--identity",
        &key,
        "--no-passphrase",
    ]);
    again.done(&["keys", "import", "lab.keys", "--identity", &key]);
    alice.done(&["pub", "lab", "-m", "of alice"]);
    bob.done(&["pub", "lab", "-m", "of bob"]);
    again.done(&["pub", "lab", "-m", "again of alice"]);
    let envelopes = alice.envelopes(&rig);
    let sessions: Vec<_> = envelopes.iter().map(|of| &of["session"]).collect();
    assert_eq!(sessions.len(), 3);
    assert_ne!(sessions[0], sessions[1], "bob seals with his own");
    assert_ne!(
        sessions[0], sessions[2],
        "the same device seals with a new one"
    );
    assert_eq!(bob.opened(&["read", "lab"])[..2], ["of alice", "of bob"]);
}

#[test]
fn keys_of_a_stream_that_was_not_joined_are_refused_with_its_name() {
    let rig = Rig::new();
    let (alice, _, key) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    export(&alice, "lab.keys", &[]);
    let carol = rig.person("carol");
    let said = carol.refused(7, &["keys", "import", "lab.keys", "--identity", &key]);
    assert!(
        said.contains("lab (") && said.contains("sealcast join"),
        "{said}"
    );
}

#[test]
fn each_recipient_opens_the_file_and_nobody_else_does() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    let other = rig.file(
        "other.key",
        format!("# a comment\n\n{}\n", OTHER_KEY.1).as_bytes(),
    );
    let both = format!("{}\n{}\n", OTHER_KEY.1, KEY.1);
    let both = rig.file("both.key", both.as_bytes());
    export(&alice, "one.keys", &[]);
    export(&alice, "two.keys", &["--recipient", OTHER_KEY.0, "--armor"]);
    for (file, identity) in [
        ("two.keys", &other),
        ("two.keys", &key),
        ("one.keys", &both),
    ] {
        bob.done(&["keys", "import", file, "--identity", identity]);
    }
    let said = bob.refused(6, &["keys", "import", "one.keys", "--identity", &other]);
    assert!(said.contains("--identity"), "{said}");
    bob.refused(2, &["keys", "import", "one.keys"]);
    bob.refused(
        2,
        &["keys", "import", "one.keys", "--file-passphrase", &key],
    );
    let not_a_key = rig.file("not.key", b"AGE-SECRET-KEY-1\n");
    bob.refused(2, &["keys", "import", "one.keys", "--identity", &not_a_key]);
    alice.refused(
        2,
        &[
            "keys",
            "export",
            "lab",
            "-o",
            "x",
            "--recipient",
            "age1nobody",
        ],
    );
    let text = fs::read(rig.path().join("two.keys")).unwrap();
    assert!(text.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
    let read = ["keys", "import", "-", "--identity", &other];
    bob.done_with(&read, &text);
}

#[test]
fn the_passphrase_of_the_file_opens_it_and_another_does_not() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    let right = rig.file("right", b"correct horse\n");
    let wrong = rig.file("wrong", b"correct house\n");
    let odd = rig.file("odd", b"\xff\xfe\n");
    let export = [
        "keys",
        "export",
        "lab",
        "-o",
        "lab.keys",
        "--file-passphrase",
    ];
    alice.refused(2, &[&export[..], &[&odd]].concat());
    // The very words of who knows no other passphrase.
    let plain = [
        "keys",
        "export",
        "lab",
        "-o",
        "plain.keys",
        "--passphrase-file",
    ];
    let ran = alice.run(&[&plain[..], &[&right]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is taken for the file"),
        "{}",
        ran.stderr
    );
    let import = ["keys", "import", "plain.keys", "--file-passphrase"];
    let said = bob.refused(6, &[&import[..], &[&wrong]].concat());
    assert!(said.contains("wrong passphrase"), "{said}");
    bob.refused(2, &["keys", "import", "plain.keys", "--identity", &key]);
    bob.refused(2, &["keys", "import", "plain.keys"]);
    bob.done(&[&import[..], &[&right]].concat());
}

#[test]
fn the_passphrase_of_a_home_is_not_taken_for_a_file_unless_it_can_mean_nothing_else() {
    let rig = Rig::new();
    let secret = rig.file("secret", b"correct horse\n");
    let kim = rig.stranger("kim");
    kim.done(&["init", "--bus", "file:bus", "--passphrase-file", &secret]);
    kim.done(&["stream", "create", "lab", "--passphrase-file", &secret]);
    kim.done(&["rekey", "lab", "--passphrase-file", &secret]);
    for args in [
        &["keys", "export", "lab", "-o", "lab.keys"][..],
        &["backup", "lab.keys"],
    ] {
        let said = kim.refused(2, &[args, &["--passphrase-file", &secret]].concat());
        assert!(said.contains("--file-passphrase"), "{said}");
        assert!(!rig.path().join("lab.keys").exists());
    }
    let (plain, _) = rig.owner("plain", "lab");
    let mut by_variable = plain.command(&["backup", "plain.age"]);
    by_variable.env("SEALCAST_PASSPHRASE_FILE", &secret);
    assert_eq!(by_variable.status().unwrap().code(), Some(2));
    assert!(!rig.path().join("plain.age").exists());
}

#[test]
fn a_file_that_is_there_stays_unless_it_is_to_be_replaced() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    rig.file("lab.keys", b"something else");
    let args = [
        "keys",
        "export",
        "lab",
        "-o",
        "lab.keys",
        "--recipient",
        KEY.0,
    ];
    let said = alice.refused(2, &args);
    assert!(said.contains("--overwrite"), "{said}");
    let kept = fs::read(rig.path().join("lab.keys")).unwrap();
    assert_eq!(kept, b"something else");
    alice.done(&[&args[..], &["--overwrite"]].concat());
    bob.done(&["keys", "import", "lab.keys", "--identity", &key]);
    rig.file("in-the-way", b"");
    for place in ["no/such/folder.keys", "in-the-way/lab.keys"] {
        let args = ["keys", "export", "lab", "-o", place, "--recipient", KEY.0];
        let said = alice.refused(7, &args);
        assert!(said.contains(place), "{said}");
    }
    fs::create_dir(rig.path().join("folder")).unwrap();
    let args = [
        "keys",
        "export",
        "lab",
        "-o",
        "folder",
        "--recipient",
        KEY.0,
    ];
    alice.refused(2, &[&args[..], &["--overwrite"]].concat());
    #[cfg(unix)]
    {
        let socket = rig.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let args = ["backup", "socket", "--recipient", KEY.0, "--overwrite"];
        let said = alice.refused(2, &args);
        assert!(said.contains("a device"), "{said}");
        assert!(socket.exists());
    }
    let drafts = fs::read_dir(rig.path()).unwrap();
    let mut names = drafts.map(|of| of.unwrap().file_name().into_string().unwrap());
    assert!(names.all(|name| !name.contains(".new-")));
}

#[cfg(unix)]
#[test]
fn files_are_for_their_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new();
    let (alice, _, _) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    rig.file("home.age", b"open to all");
    export(&alice, "lab.keys", &[]);
    alice.done(&["backup", "home.age", "--recipient", KEY.0, "--overwrite"]);
    for file in ["lab.keys", "home.age"] {
        let mode = fs::metadata(rig.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_file_cut_off_or_altered_is_refused_and_brings_in_nothing() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["pub", "lab", "-m", "x"]);
    export(&alice, "lab.keys", &[]);
    let good = fs::read(rig.path().join("lab.keys")).unwrap();
    let places = [
        1,
        good.len() / 3,
        good.len() / 2,
        good.len() - 17,
        good.len() - 1,
    ];
    for at in places {
        rig.file("bad.keys", &good[..at]);
        let code = if at < 20 { 2 } else { 6 };
        bob.refused(code, &["keys", "import", "bad.keys", "--identity", &key]);
        let mut altered = good.clone();
        altered[at] ^= 1;
        rig.file("bad.keys", &altered);
        bob.refused(code, &["keys", "import", "bad.keys", "--identity", &key]);
    }
    rig.file("bad.keys", b"");
    bob.refused(2, &["keys", "import", "bad.keys", "--identity", &key]);
    bob.refused(2, &["keys", "import", &key, "--identity", &key]);
    bob.refused(7, &["keys", "import", "no-such-file", "--identity", &key]);
    bob.refused(3, &["read", "lab"]);
}

/// Files of every version that was ever written are opened; those of a newer one are refused as
/// such. The fixtures were made for the first key of the rig.
#[test]
fn files_of_the_first_version_open_and_newer_ones_are_named() {
    let rig = Rig::new();
    let key = rig.file("key", KEY.1.as_bytes());
    let fixture = |name: &str| format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let kim = rig.stranger("kim");
    let restore = ["restore", &fixture("home-v1.age"), "--identity", &key];
    kim.done(&[&restore[..], &["--no-passphrase"]].concat());
    assert!(kim.done(&["id"]).starts_with("sc1"));
    assert!(kim.done(&["contact", "list"]).starts_with("lee  sc1"));
    let (_, streams) = kim.json(&["stream", "list"]);
    assert_eq!(streams[0]["name"], "boiler");
    let (code, lines) = kim.json(&[
        "keys",
        "import",
        &fixture("keys-v1.age"),
        "--identity",
        &key,
    ]);
    assert_eq!((code, &lines[0]["sessions"]), (0, &2.into()));
    let newer = fixture("newer.age");
    for args in [
        &["keys", "import", &newer][..],
        &["restore", &newer, "--no-passphrase"],
    ] {
        let person = match args[0] {
            "restore" => rig.stranger("lee"),
            _ => rig.stranger("kim"),
        };
        let said = person.refused(6, &[args, &["--identity", &key]].concat());
        assert!(said.contains("newer version of sealcast"), "{said}");
        assert!(said.contains("update this program"), "{said}");
    }
    let age = rig.file("age-v2", b"age-encryption.org/v2\n-> X25519 x\n");
    let said = kim.refused(6, &["keys", "import", &age, "--identity", &key]);
    assert!(said.contains("newer version of age"), "{said}");
}

#[test]
fn keys_and_homes_are_not_taken_for_each_other() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["rekey", "lab"]);
    export(&alice, "lab.keys", &[]);
    alice.done(&["backup", "home.age", "--recipient", KEY.0]);
    let said = bob.refused(2, &["keys", "import", "home.age", "--identity", &key]);
    assert!(said.contains("sealcast restore"), "{said}");
    let new = rig.stranger("new");
    let said = new.refused(
        2,
        &["restore", "lab.keys", "--identity", &key, "--no-passphrase"],
    );
    assert!(said.contains("sealcast keys import"), "{said}");
    assert!(!new.home().exists());
}

#[test]
fn standard_output_takes_the_file_alone() {
    let rig = Rig::new();
    let (alice, bob, key) = apart(&rig);
    alice.done(&["pub", "lab", "-m", "x"]);
    let args = ["keys", "export", "lab", "-o", "-", "--recipient", KEY.0];
    let ran = alice.run(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    bob.done_with(&["keys", "import", "-", "--identity", &key], &ran.stdout);
    assert_eq!(bob.opened(&["read", "lab"]), ["x"]);
    alice.refused(2, &[&args[..], &["--json"]].concat());
}
