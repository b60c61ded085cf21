//! What the program has handled is gone from its memory while it still runs (fault 18).
//!
//! Each command is stopped where it waits, and all of its memory is searched for the secrets that
//! went through it. That the search would find them is shown by what is still on its way.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealcast_traces::{Needles, Stopped, Trace, full_pipe, is_idle, search_memory};

use crate::agent::{Serving, until_followed_by};
use crate::rig::{Person, Ran, Rig};

/// How often a command is looked at before what it was to do counts as not done.
const LOOKS: usize = 200;
/// How often it is asked whether it waits before it counts as one that never does.
const QUESTIONS: usize = 2_000_000;

#[test]
fn lines_are_gone_once_they_are_published() {
    let scene = Scene::new();
    let mut child = scene.owner.start(&["pub", "s", "-l"]);
    let lines: Vec<String> = (0..300).map(|_| secret()).collect();
    let mut stdin = child.stdin.take().unwrap();
    for line in &lines {
        writeln!(stdin, "{line}").unwrap();
    }
    // The last line is not whole yet, so that it must be here still.
    let begun = secret();
    stdin.write_all(begun.as_bytes()).unwrap();
    assert_eq!(scene.published(300), lines);
    until_found(&child, &needles_of(&[&begun]));
    until_gone(&child, &scene.needles(&lines));
    writeln!(stdin).unwrap();
    drop(stdin);
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).code, 0);
}

#[test]
fn a_message_is_gone_once_it_is_published() {
    let scene = Scene::new();
    let (in_file, typed, named) = (secret(), secret(), secret());
    let file = scene.rig.file("message", in_file.as_bytes());
    let publish = |args: &[&str], input: &str, number: usize| {
        let (said, stderr) = full_pipe().unwrap();
        let mut command = scene.owner.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        // It must not keep the pipe open.
        drop(command);
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        scene.published(number);
        (child, said)
    };
    let from_file = publish(&["pub", "s", "-f", &file], "", 1);
    until_gone(&from_file.0, &scene.needles(&[&in_file]));
    end(from_file);
    let from_input = publish(&["pub", "s"], &typed, 2);
    until_gone(&from_input.0, &scene.needles(&[&typed]));
    end(from_input);
    // The arguments of a program are the system's, and stay as long as it runs.
    let from_argument = publish(&["pub", "s", "-m", &named], "", 3);
    until_gone(&from_argument.0, &scene.needles(&[&typed]));
    until_found(&from_argument.0, &needles_of(&[&named]));
    end(from_argument);
}

#[test]
fn what_was_read_is_gone_once_it_is_printed() {
    let scene = Scene::new();
    let reader = scene.rig.person("lee");
    reader.done(&["join", &scene.ticket]);
    let lines: Vec<String> = (0..300).map(|_| secret()).collect();
    scene
        .owner
        .done_with(&["pub", "s", "-l"], lines.join("\n").as_bytes());
    let until = [
        "grant",
        "s",
        &reader.id(),
        "--from",
        "start",
        "--until",
        "now",
    ];
    scene.owner.done(&until);
    // It cannot be opened, and that is said at the end.
    scene.owner.done(&["pub", "s", "-m", "later"]);
    let (said, stderr) = full_pipe().unwrap();
    let mut command = reader.command(&["read", "s"]);
    let mut child = command.stderr(stderr).spawn().unwrap();
    drop(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for line in &lines {
        let mut printed = String::new();
        stdout.read_line(&mut printed).unwrap();
        assert_eq!(printed.trim_end(), line);
    }
    until_gone(&child, &needles_of(&lines));
    drop(said);
    child.wait().unwrap();
}

#[test]
fn what_a_follower_heard_is_gone_once_it_is_printed() {
    let scene = Scene::new();
    let texts: Vec<String> = (0..300).map(|_| secret()).collect();
    scene
        .owner
        .done_with(&["pub", "s", "-l"], texts.join("\n").as_bytes());
    let binary: [u8; 64] = draw();
    let file = scene.rig.file("binary", &binary);
    scene.owner.done(&["pub", "s", "-f", &file]);
    for args in [&[][..], &["--json"]] {
        let (reader, stdout) = full_pipe().unwrap();
        let mut command = scene
            .owner
            .command(&[&["sub", "s", "--from", "start"], args].concat());
        let mut child = command.stdout(stdout).spawn().unwrap();
        drop(command);
        until_found(&child, &needles_of(&texts[..1]));
        let mut printed = skip_filling(reader);
        for text in &texts {
            let mut line = String::new();
            printed.read_line(&mut line).unwrap();
            assert!(line.contains(text), "{line}");
        }
        let mut line = Vec::new();
        let shown = STANDARD.encode(binary);
        while !has(&line, &binary) && !has(&line, shown.as_bytes()) {
            assert_ne!(printed.read_until(b'\n', &mut line).unwrap(), 0);
        }
        let mut needles = scene.needles(&texts);
        needles.add("binary", &binary);
        until_gone(&child, &needles);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn what_was_followed_through_an_agent_is_gone_from_both() {
    let scene = Scene::new();
    let serving = Serving::of_stream(&scene.owner, &[]);
    let texts: Vec<String> = (0..300).map(|_| secret()).collect();
    let (reader, stdout) = full_pipe().unwrap();
    let mut command = scene.owner.command(&["sub", "s"]);
    let mut child = command.stdout(stdout).spawn().unwrap();
    drop(command);
    until_followed_by(&scene.owner, 1);
    scene
        .owner
        .done_with(&["pub", "s", "-l"], texts.join("\n").as_bytes());
    until_found(&child, &needles_of(&texts[..1]));
    let mut printed = skip_filling(reader);
    for text in &texts {
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), text);
    }
    let needles = scene.needles(&texts);
    until_gone(&child, &needles);
    until_gone(&serving.child, &needles);
    child.kill().unwrap();
    child.wait().unwrap();
    serving.stop();
}

#[test]
fn what_goes_wrong_is_told_without_secrets() {
    let scene = Scene::new();
    let (wrong, payload) = (secret(), secret());
    let file = scene.rig.file("wrong", wrong.as_bytes());
    let long = scene.rig.file("long", wrong.repeat(200).as_bytes());
    let backfill = ["pub", "s", "-l", "--backfill"];
    let mut said = Vec::new();
    for args in [
        &["who", "s", "--passphrase-file", &file][..],
        &["who", "s", "--passphrase-file", &long],
        &["stream", "create", "s"],
        &["pub", "unknown", "-m", &payload],
        &["read", "s", "--from", &payload],
        &["grant", "s", &payload],
        &["join", &format!("sealcast1:{payload}")],
        &backfill,
    ] {
        for args in [args, &[args, &["--json"]].concat()] {
            let mut command = scene.owner.command(args);
            command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // A refusal may come before it was read.
            drop(writeln!(stdin, "no time {payload}"));
            drop(stdin);
            let ran = Ran::of(child.wait_with_output().unwrap());
            assert!(!matches!(ran.code, 0 | 1), "{args:?}: {}", ran.stderr);
            let typed = args.iter().any(|arg| arg.contains(&payload));
            said.extend(ran.stdout);
            // What was typed as an argument may be repeated to whoever typed it.
            if !typed {
                said.extend(ran.stderr.into_bytes());
            }
        }
    }
    let needles = scene.needles(&[wrong, payload]);
    let found = needles.search("what was said", &said);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_passphrase_that_was_typed_is_gone() {
    let scene = Scene::new();
    let message = secret();
    scene.owner.done_with(&["pub", "s"], message.as_bytes());
    let id = scene.rig.path().join("id");
    let program = scene.owner.command(&[]).get_program().to_owned();
    // A terminal of its own, which passes on what is typed.
    let mut terminal = Command::new("script")
        .args([
            "-qec",
            "echo $$ > $ID; exec $PROGRAM sub s --from start --for 120s",
            "/dev/null",
        ])
        .env("ID", &id)
        .env("PROGRAM", program)
        .env("SHELL", "/bin/sh")
        .env("SEALCAST_HOME", scene.owner.home())
        .env_remove("SEALCAST_PASSPHRASE_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let mut shown = Vec::new();
    let mut wait_for = |text: &str| {
        while !has(&shown, text.as_bytes()) {
            let mut some = [0; 256];
            let count = screen.read(&mut some).unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&some[..count]);
        }
    };
    wait_for("Passphrase: ");
    let mut keyboard = terminal.stdin.take().unwrap();
    writeln!(keyboard, "{}", scene.passphrase).unwrap();
    wait_for(&message);
    let id = std::fs::read_to_string(id).unwrap().trim().parse().unwrap();
    let needles = scene.needles(&[&message]);
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        found = search_memory(id, &needles).unwrap();
        if found.is_empty() {
            break;
        }
    }
    // What it was started with is there, so that the search does see it.
    let home = scene.owner.home().to_str().unwrap();
    let control = search_memory(id, &needles_of(&[home]));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    assert!(!control.unwrap().is_empty());
    assert!(found.is_empty(), "{found:#?}");
}

/// An owner with a passphrase and the stream `s`.
struct Scene {
    rig: Rig,
    owner: Person,
    ticket: String,
    passphrase: String,
}

impl Scene {
    fn new() -> Self {
        let rig = Rig::new();
        // So long that what it is read into grows again and again.
        let passphrase = STANDARD.encode(draw::<600>());
        let file = rig.file("passphrase", format!("{passphrase}\n").as_bytes());
        let owner = rig.stranger("kim").with_passphrase_file(&file);
        owner.done(&["init", "--bus", "file:bus"]);
        let ticket = owner.done(&["stream", "create", "s"]);
        Self {
            rig,
            owner,
            ticket,
            passphrase,
        }
    }

    /// Waits until there are so many messages on the bus, and reads them.
    fn published(&self, count: usize) -> Vec<String> {
        let count = count.to_string();
        let args = ["sub", "s", "--from", "start", "--count", &count];
        let read = self.owner.done(&args);
        read.lines().map(str::to_owned).collect()
    }

    /// These secrets and the passphrase.
    fn needles(&self, secrets: &[impl AsRef<[u8]>]) -> Needles {
        let mut needles = needles_of(secrets);
        needles.add("passphrase", self.passphrase.as_bytes());
        needles
    }
}

fn draw<const N: usize>() -> [u8; N] {
    let mut secret = [0; N];
    getrandom::fill(&mut secret).unwrap();
    secret
}

/// A secret that can be typed.
pub(crate) fn secret() -> String {
    STANDARD.encode(draw::<36>())
}

pub(crate) fn needles_of(secrets: &[impl AsRef<[u8]>]) -> Needles {
    let mut needles = Needles::new();
    for (at, secret) in secrets.iter().enumerate() {
        needles.add(format!("secret {at}"), secret.as_ref());
    }
    needles
}

fn has(line: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(line, part).is_some()
}

/// Looks until nothing is found: what was printed or stored is wiped a moment later.
fn until_gone(child: &Child, needles: &Needles) {
    let found = look(child, needles, <[Trace]>::is_empty);
    assert!(found.is_empty(), "{found:#?}");
}

/// Looks until something is found.
fn until_found(child: &Child, needles: &Needles) {
    let found = look(child, needles, |found| !found.is_empty());
    assert!(!found.is_empty(), "the search finds nothing");
}

/// Looks only while the child waits: one that is stopped again and again gets nowhere.
fn look(child: &Child, needles: &Needles, is_enough: fn(&[Trace]) -> bool) -> Vec<Trace> {
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        let mut questions = 0..QUESTIONS;
        assert!(questions.any(|_| is_idle(child).unwrap()), "it never waits");
        found = Stopped::new(child).unwrap().search(needles).unwrap();
        if is_enough(&found) {
            break;
        }
    }
    found
}

/// What comes behind the zeros that a pipe was filled with.
fn skip_filling(reader: PipeReader) -> BufReader<PipeReader> {
    let mut reader = BufReader::new(reader);
    loop {
        let buffer = reader.fill_buf().unwrap();
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let is_over = zeros < buffer.len() || buffer.is_empty();
        reader.consume(zeros);
        if is_over {
            return reader;
        }
    }
}

/// Lets a child say what it has to say, and end.
fn end((mut child, mut said): (Child, PipeReader)) {
    let mut text = Vec::new();
    said.read_to_end(&mut text).unwrap();
    assert!(
        child.wait().unwrap().success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}
