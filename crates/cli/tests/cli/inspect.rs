//! What is told without keys, and what the program says of itself.

use std::collections::BTreeMap;
use std::fs;

use crate::rig::{KEY, Rig};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_envelope_is_explained_without_home_or_keys() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "five!"]);
    let envelope = rig.last(&kim.data_topic());
    let nobody = rig.stranger("nobody");
    let shown = nobody.done_with(&["inspect"], &envelope);
    for line in [
        "kind          envelope",
        "seq           0",
        "prev          none",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!shown.contains("five"), "{shown}");
    let path = rig.file("envelope", &envelope);
    let text = rig.file("text", format!("{}\n", hex(&envelope)).as_bytes());
    let (_, facts) = nobody.json(&["inspect", &path]);
    assert_eq!(facts, nobody.json(&["inspect", &text]).1);
    let facts = &facts[0];
    assert_eq!(
        (&facts["bytes"], &facts["content_bytes"]),
        (&181.into(), &5.into())
    );
    assert_eq!(facts["session"], hex(&envelope[4..20]));
    assert!(!nobody.home().exists());
}

#[test]
fn a_stream_says_whose_an_envelope_is_and_another_denies_it() {
    let rig = Rig::new();
    let (kim, ticket) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "x"]);
    let envelope = rig.last(&kim.data_topic());
    let lee = rig.person("lee");
    lee.done(&["join", &ticket]);
    lee.done(&["contact", "add", "kim", &kim.id()]);
    lee.done(&["stream", "create", "other"]);
    let judged = |stream: &str, envelope: &[u8]| {
        let path = rig.file("envelope", envelope);
        lee.json(&["inspect", &path, "--stream", stream])
            .1
            .remove(0)
    };
    let facts = judged("s", &envelope);
    assert_eq!(
        (&facts["signed"], &facts["announced"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&facts["publisher"], &facts["name"]),
        (&kim.id().into(), &"kim".into())
    );
    let mut altered = envelope.clone();
    altered[100] ^= 1;
    let forged = judged("s", &altered);
    assert_eq!(forged["signed"], false);
    assert_ne!(forged["hash"], facts["hash"]);
    let elsewhere = judged("other", &envelope);
    assert_eq!(
        (&elsewhere["signed"], &elsewhere["announced"]),
        (&false.into(), &false.into())
    );
    assert_ne!(elsewhere["hash"], facts["hash"]);
    let ticket = rig.file("ticket", ticket.as_bytes());
    lee.refused(2, &["inspect", &ticket, "--stream", "s"]);
}

#[test]
fn everything_that_this_program_writes_is_named() {
    let rig = Rig::new();
    let (kim, ticket) = rig.owner("kim", "s");
    let lee = rig.person("lee");
    lee.done(&["join", &ticket]);
    kim.done(&["pub", "s", "-m", "x"]);
    kim.done(&["grant", "s", &lee.id(), "--from", "start"]);
    kim.done(&["backup", "kim.age", "--recipient", KEY.0]);
    kim.done(&["backup", "text.age", "--recipient", KEY.0, "--armor"]);
    let keys = rig.items(&kim.topic("keys"), 0);
    let secret = rig.file("secret", b"correct horse");
    rig.stranger("pia")
        .done(&["init", "--passphrase-file", &secret]);
    let paths = [
        (rig.file("record", &keys[0]), "session record"),
        (rig.file("bundle", keys.last().unwrap()), "bundle"),
        (rig.file("ticket", ticket.as_bytes()), "ticket"),
        ("kim.age".to_owned(), "age file"),
        ("text.age".to_owned(), "age file"),
        ("kim/store.key".to_owned(), "store key"),
        ("pia/store.key".to_owned(), "store key"),
        ("kim/store.db".to_owned(), "store of a home"),
        ("bus/bus.db".to_owned(), "file bus"),
    ];
    let mut seen = BTreeMap::new();
    for (path, kind) in paths {
        let (code, facts) = kim.json(&["inspect", &path]);
        assert_eq!((code, &facts[0]["kind"]), (0, &kind.into()), "{path}");
        seen.insert(path, facts[0].clone());
    }
    assert_eq!(seen["text.age"]["armored"], true);
    assert_eq!(seen["kim.age"]["opens_with"], "age key");
    assert_eq!(seen["kim/store.key"]["passphrase"], false);
    assert_eq!(seen["pia/store.key"]["passphrase"], true);
    for bytes in [&b""[..], b"hello", &[0; 400]] {
        let path = rig.file("odd", bytes);
        kim.refused(2, &["inspect", &path]);
    }
    kim.refused(7, &["inspect", "no-such-file"]);
}

/// A stream's log has the topic of a message before it.
#[test]
fn an_envelope_behind_its_topic_is_explained_with_it() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "five!", "--topic", "plant/7"]);
    let item = rig.last(&kim.data_topic());
    let (whole, bare) = (rig.file("item", &item), rig.file("bare", &item[10..]));
    let inspect = |args: &[&str]| kim.json(&[&["inspect"], args].concat()).1.remove(0);
    let mut facts = inspect(&[&whole]);
    assert_eq!(facts["topic"], "plant/7");
    facts.as_object_mut().unwrap().remove("topic");
    assert_eq!(facts, inspect(&[&bare]));
    let judged = inspect(&[&whole, "--stream", "s"]);
    assert_eq!(judged["signed"], true);
    let named = ["--stream", "s", "--topic", "plant/7"];
    let other = inspect(&[&[&bare[..]], &named[..]].concat());
    assert_eq!(judged["hash"], other["hash"]);
    assert_eq!(inspect(&[&bare, "--stream", "s"])["signed"], false);
    kim.refused(2, &[&["inspect", &whole], &named[..]].concat());
}

#[test]
fn of_a_damaged_file_it_is_not_said_that_nothing_is_needed_to_open_it() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["backup", "kim.age", "--recipient", KEY.0]);
    let good = fs::read(rig.path().join("kim.age")).unwrap();
    let cut = rig.file("cut.age", &good[..100]);
    let shown = kim.done(&["inspect", &cut]);
    assert!(
        shown.contains("opens with    nothing: it is damaged"),
        "{shown}"
    );
    assert_eq!(
        kim.json(&["inspect", &cut]).1[0]["opens_with"],
        serde_json::Value::Null
    );
}

#[test]
fn there_is_a_manual_page_for_each_command_with_its_examples() {
    let rig = Rig::new();
    let nobody = rig.stranger("nobody");
    let (code, pages) = nobody.json(&["man", "pages"]);
    assert_eq!(code, 0);
    for page in &pages {
        let path = page["page"].as_str().unwrap();
        let text = fs::read_to_string(rig.path().join(path)).unwrap();
        assert!(
            text.contains(".SH NAME") && !text.contains('\x1b'),
            "{path}"
        );
        let command = path.trim_start_matches("pages/").trim_end_matches(".1");
        let called = command.replace('-', " ").replace(' ', "[ \\\\-]*");
        assert!(
            !called.is_empty() && text.contains(".SH \"NOTES AND EXAMPLES\""),
            "{path}"
        );
    }
    let help = nobody.done(&["--help"]);
    for command in [
        "keys",
        "backup",
        "restore",
        "inspect",
        "completions",
        "man",
        "pub",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let page = format!("pages/sealcast-{command}.1");
        assert!(pages.iter().any(|of| of["page"] == page.as_str()), "{page}");
    }
    assert!(
        pages
            .iter()
            .any(|of| of["page"] == "pages/sealcast-keys-export.1")
    );
}

#[test]
fn every_shell_gets_a_script_that_names_the_commands() {
    let rig = Rig::new();
    let nobody = rig.stranger("nobody");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = nobody.done(&["completions", shell]);
        for word in ["backup", "inspect", "file-passphrase"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    nobody.refused(2, &["completions", "abacus"]);
}
