//! A key node that lies, as a process of its own in the home of one that does not.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use sealcast_liar::{Liar, Lie};

use super::{Running, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

const HOME: &str = "SEALCAST_TEST_LIAR";
const BUS: &str = "SEALCAST_TEST_LIAR_BUS";
const LIE: &str = "SEALCAST_TEST_LIE";
/// Before what it says among what tests print.
const SAYS: &str = "@liar ";

/// A node that lies until this is dropped.
struct Lying(Child, BufReader<ChildStdout>);

impl Drop for Lying {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Lying {
    fn start(rig: &Rig, node: &Person, lie: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["key_nodes::liar::a_process_lies", "--exact", "--nocapture"])
            .env(HOME, node.home())
            .env(BUS, rig.path().join("bus"))
            .env(LIE, lie)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut lying = Self(child, said);
        lying.wait_for("listens");
        lying
    }

    fn wait_for(&mut self, what: &str) {
        let Self(_, said) = self;
        let mut lines = said.lines().map(Result::unwrap);
        let said = lines.find_map(|line| Some(line.split_once(SAYS)?.1.to_owned()));
        assert_eq!(said.as_deref(), Some(what));
    }
}

/// What the process does; of itself this test does nothing.
#[test]
fn a_process_lies() {
    let Some(home) = env::var_os(HOME) else {
        return;
    };
    let bus = env::var_os(BUS).unwrap();
    let lie = match env::var(LIE).unwrap().as_str() {
        "share" => Lie::Share,
        _ => Lie::Pepper,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async {
        let liar = Liar::open(Path::new(&home), Path::new(&bus), lie).await?;
        liar.run(|what| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{SAYS}{what}").unwrap();
        })
        .await
    });
    panic!("it lies no more: {ended:?}");
}

/// A reader reads with one node that lies and one that does not, and a third that comes when the lie is told.
fn read_with_a_liar(lie: &str) {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let mut lying = Lying::start(&rig, &nodes[1], lie);
    let _first = Running::start(&nodes[0]);
    let reading = bob.start(&["read", "plant"]);
    lying.wait_for("lied");
    let _second = Running::start(&nodes[2]);
    let read = crate::rig::Ran::of(reading.wait_with_output().unwrap());
    assert_eq!((read.code, read.stdout.as_slice()), (0, &b"one\n"[..]));
    assert!(read.stderr.contains(&names(&nodes[1])), "{}", read.stderr);
    for honest in [&nodes[0], &nodes[2]] {
        assert!(!read.stderr.contains(&honest.id()), "{}", read.stderr);
    }
}

fn names(liar: &Person) -> String {
    format!("of {} released something false", liar.id())
}

#[test]
fn a_node_that_answers_with_another_share_is_named_and_the_others_open_it() {
    read_with_a_liar("share");
}

#[test]
fn so_is_one_whose_pepper_is_another() {
    read_with_a_liar("pepper");
}

#[test]
fn with_too_few_honest_nodes_nothing_opens_and_who_lies_is_named() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 2);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let _lying = Lying::start(&rig, &nodes[1], "share");
    let _honest = Running::start(&nodes[0]);
    let read = bob.run(&["read", "plant"]);
    assert_eq!((read.code, read.stdout.as_slice()), (3, &b""[..]));
    assert!(read.stderr.contains(&names(&nodes[1])), "{}", read.stderr);
    let why = "Of the 2 key nodes that are needed 1 released.";
    assert!(read.stderr.contains(why), "{}", read.stderr);

    let status = bob.json(&["stream", "keynodes", "status", "plant"]).1;
    let said = |of: &Person| {
        let nodes = status[0]["nodes"].as_array().unwrap();
        let line = nodes.iter().find(|line| line["user"] == of.id().as_str());
        line.unwrap()["answers"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (said(&nodes[0]), said(&nodes[1])),
        ("yes".into(), "falsely".into())
    );
}
