//! People with homes of their own below one scratch folder, who run the real program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
#[cfg(target_os = "linux")]
use std::sync::Mutex;
use std::thread;

use rusqlite::{Connection, params};
use serde_json::Value;
use tempfile::TempDir;

#[cfg(target_os = "linux")]
use crate::agent::Serving;
use crate::kinds::{EmptyBus, Kind};

/// An age key of the tests, public and secret half.
pub(crate) const KEY: (&str, &str) = (
    "age16h4ytxhr67wk50w7e8wxysar8m6rdnw5utgnjwwsh3vrt5ruw57qt08u9v",
    "AGE-SECRET-KEY-1A6QTV4H5XZWFVHTT4X384VFXJT9J7E6PJH2XFW5X6UM3S4NVY2NQ63FPX7",
);
/// Another one.
pub(crate) const OTHER_KEY: (&str, &str) = (
    "age1wwvysdg99jv9mmqf9jykduj52ae0y0jvjnzeentk2m72g8ugdvzse6mmvx",
    "AGE-SECRET-KEY-1HSSRRQNPQFLZTCJYMCDJU3A6NL0FZPH2SPG4QRDMPQWNH34EFTLSFMUSRP",
);

/// The scratch folder, and the shared bus; one of files is `bus` in it.
pub(crate) struct Rig {
    // Ended before the folder is removed.
    #[cfg(target_os = "linux")]
    keeper: Mutex<Option<Keeper>>,
    dir: TempDir,
    bus: EmptyBus,
}

/// Somebody, in most tests without a grant, whose agent keeps what a bus forgets.
#[cfg(target_os = "linux")]
struct Keeper {
    person: Person,
    agent: Serving,
}

/// Somebody with a home.
#[derive(Clone)]
pub(crate) struct Person {
    folder: PathBuf,
    home: PathBuf,
    passphrase_file: Option<String>,
    environment: Vec<(&'static str, String)>,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

#[cfg(target_os = "linux")]
impl Keeper {
    fn start(mut person: Person) -> Self {
        let serves = ("SEALCAST_BUS_HISTORY", "serve".to_owned());
        person.environment.push(serves);
        let agent = Serving::start(&person, &[]);
        Self { person, agent }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), Kind::File)
    }

    /// A small one that may lie in memory, where waiting for the disk takes no time.
    pub(crate) fn small() -> Self {
        Self::on(Kind::File)
    }

    /// The same with a bus of some kind.
    pub(crate) fn on(kind: Kind) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::in_folder(dir.unwrap(), kind)
    }

    fn in_folder(dir: TempDir, kind: Kind) -> Self {
        Self {
            dir,
            bus: EmptyBus::of(kind),
            #[cfg(target_os = "linux")]
            keeper: Mutex::default(),
        }
    }

    /// The URL of the shared bus, as the people have it.
    pub(crate) fn bus_url(&self) -> &str {
        &self.bus.url
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes the bus where it is a folder. A server goes on for others.
    pub(crate) fn take_bus_away(&self) {
        if self.bus_url().starts_with("file:") {
            std::fs::remove_dir_all(self.path().join("bus")).unwrap();
        }
    }

    /// Somebody whose home is not made yet.
    pub(crate) fn stranger(&self, name: &str) -> Person {
        Person {
            folder: self.path().to_owned(),
            home: self.path().join(name),
            passphrase_file: None,
            environment: self.bus.environment.clone(),
        }
    }

    /// Somebody with a home on the shared bus.
    pub(crate) fn person(&self, name: &str) -> Person {
        let person = self.stranger(name);
        person.done(&[
            "init",
            "--name",
            name,
            "--bus",
            self.bus_url(),
            "--no-passphrase",
        ]);
        person
    }

    /// An owner with a stream, and its ticket.
    pub(crate) fn owner(&self, name: &str, stream: &str) -> (Person, String) {
        let owner = self.person(name);
        let ticket = owner.done(&["stream", "create", stream]);
        self.have_kept(&ticket);
        (owner, ticket)
    }

    /// Where the bus needs somebody for it, what is published in a stream from now on is kept.
    pub(crate) fn have_kept(&self, ticket: &str) {
        #[cfg(target_os = "linux")]
        if self.bus.needs_keeper {
            let mut keeper = self.keeper.lock().unwrap();
            let keeper = keeper.get_or_insert_with(|| Keeper::start(self.person("keeper")));
            keeper.person.done(&["join", ticket]);
            keeper.agent.wait_for("stream attended to");
        }
    }

    /// Where the bus needs somebody for it, somebody hands out from now on what there was of their streams.
    pub(crate) fn have_served(&self, person: &Person) {
        #[cfg(target_os = "linux")]
        if self.bus.needs_keeper {
            let mut keeper = Keeper::start(person.clone());
            keeper.agent.wait_for("stream attended to");
            *self.keeper.lock().unwrap() = Some(keeper);
        }
    }

    /// Appends bytes to a topic of the shared bus, as anyone can who may write there.
    pub(crate) fn append(&self, topic: &str, payload: &[u8]) {
        let bus = self.bus();
        let (id, next) = topic_of(&bus, topic);
        let insert = "INSERT INTO item (key, payload) VALUES (?1, ?2)";
        bus.execute(insert, params![(id << 40) + next, payload])
            .unwrap();
        bus.execute(
            "UPDATE topic SET next_offset = ?1 WHERE id = ?2",
            [next + 1, id],
        )
        .unwrap();
    }

    /// The last item of a topic of the shared bus.
    pub(crate) fn last(&self, topic: &str) -> Vec<u8> {
        let bus = self.bus();
        let (id, next) = topic_of(&bus, topic);
        let select = "SELECT payload FROM item WHERE key = ?1";
        bus.query_row(select, [(id << 40) + next - 1], |row| row.get(0))
            .unwrap()
    }

    /// Takes the last item of a topic away, as a bus does that loses it.
    pub(crate) fn drop_last(&self, topic: &str) {
        let bus = self.bus();
        let (id, next) = topic_of(&bus, topic);
        bus.execute("DELETE FROM item WHERE key = ?1", [(id << 40) + next - 1])
            .unwrap();
        bus.execute(
            "UPDATE topic SET next_offset = ?1 WHERE id = ?2",
            [next - 1, id],
        )
        .unwrap();
    }

    /// How many items there ever were in a topic of the shared bus.
    pub(crate) fn count(&self, topic: &str) -> i64 {
        let count = "SELECT coalesce(max(next_offset), 0) FROM topic WHERE name = ?1";
        let count = self.bus().query_row(count, [topic], |row| row.get(0));
        count.unwrap()
    }

    /// Takes out an item from among others.
    pub(crate) fn make_hole(&self, topic: &str, offset: i64) {
        let bus = self.bus();
        let (id, _) = topic_of(&bus, topic);
        let sql = "DELETE FROM item WHERE key = ?1";
        assert_eq!(bus.execute(sql, [(id << 40) + offset]).unwrap(), 1);
    }

    /// The items of a topic of the shared bus, from an offset on.
    pub(crate) fn items(&self, topic: &str, from: usize) -> Vec<Vec<u8>> {
        let bus = self.bus();
        let (id, next) = topic_of(&bus, topic);
        let select = "SELECT payload FROM item WHERE key >= ?1 AND key < ?2 ORDER BY key";
        let mut select = bus.prepare(select).unwrap();
        let first = (id << 40) + i64::try_from(from).unwrap();
        let rows = select.query_map([first, (id << 40) + next], |row| row.get(0));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Makes the bus take no item of a topic.
    pub(crate) fn refuse(&self, topic: &str) {
        let trigger = format!(
            "CREATE TRIGGER refused BEFORE INSERT ON item WHEN NEW.key >> 40 = \
             (SELECT id FROM topic WHERE name = '{topic}') \
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        );
        self.bus().execute_batch(&trigger).unwrap();
    }

    /// Makes the bus take all again.
    pub(crate) fn refuse_nothing(&self) {
        self.bus().execute_batch("DROP TRIGGER refused").unwrap();
    }

    /// How many things were sent on ephemeral topics, and are not forgotten.
    pub(crate) fn sent(&self) -> i64 {
        let count = "SELECT count(*) FROM sent";
        self.bus().query_row(count, [], |row| row.get(0)).unwrap()
    }

    /// Leaves the folder behind and says where it is.
    pub(crate) fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.path()
    }

    fn bus(&self) -> Connection {
        Connection::open(self.path().join("bus/bus.db")).unwrap()
    }

    /// Writes a file below the folder and names it.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The id of a topic and the offset of its next item.
fn topic_of(bus: &Connection, topic: &str) -> (i64, i64) {
    let find = "SELECT id, next_offset FROM topic WHERE name = ?1";
    bus.query_row(find, [topic], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

impl Person {
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The same person, whose home has a passphrase.
    pub(crate) fn with_passphrase_file(self, file: &str) -> Self {
        Self {
            passphrase_file: Some(file.to_owned()),
            ..self
        }
    }

    /// The same person, whose environment says more of servers.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_environment(mut self, more: &[(&'static str, String)]) -> Self {
        self.environment.extend_from_slice(more);
        self
    }

    /// A command in this home, without a terminal and without anybody's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealcast"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env_remove("SEALCAST_PASSPHRASE_FILE")
            .env("SEALCAST_HOME", &self.home)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(file) = &self.passphrase_file {
            command.env("SEALCAST_PASSPHRASE_FILE", file);
        }
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs with something on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.start(args);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A refusal may come before all was read.
        let writer = thread::spawn(move || stdin.write_all(&input).is_ok());
        let ran = Ran::of(child.wait_with_output().unwrap());
        writer.join().unwrap();
        ran
    }

    /// Runs, insists on exit code 0, and returns what was printed, trimmed. A server that was not reached is
    /// given another half minute, once: on a busy machine one now and then does not answer for so long.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        match ran.code == 5 && ran.stderr.contains("cannot be reached") {
            true => self.run(args).expect(0, args),
            false => ran.expect(0, args),
        }
    }

    /// Like [`done`](Self::done), with something on standard input.
    pub(crate) fn done_with(&self, args: &[&str], input: &[u8]) -> String {
        self.run_with(args, input).expect(0, args)
    }

    /// Runs, insists on an exit code and an empty stdout, and returns what was said.
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.expect(code, args), "", "{args:?}");
        ran.stderr
    }

    /// Runs with `--json`; the exit code and the lines.
    pub(crate) fn json(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let ran = self.run(&[args, &["--json"]].concat());
        let lines = ran
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let values = lines.map(|line| serde_json::from_slice(line).unwrap());
        (ran.code, values.collect())
    }

    /// The texts that a reading opens.
    pub(crate) fn opened(&self, args: &[&str]) -> Vec<String> {
        let (_, lines) = self.json(args);
        let opened = lines.iter().filter(|line| line["state"] == "opened");
        opened
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    }

    /// How many lines of a reading have a state.
    pub(crate) fn count(&self, state: &str, args: &[&str]) -> usize {
        let (_, lines) = self.json(args);
        lines.iter().filter(|line| line["state"] == state).count()
    }

    /// The topic that holds the envelopes of this person's only stream.
    pub(crate) fn data_topic(&self) -> String {
        self.topic("data")
    }

    /// A topic of this person's only stream.
    pub(crate) fn topic(&self, name: &str) -> String {
        let (_, streams) = self.json(&["stream", "list"]);
        format!("s/{}/{name}", streams[0]["stream"].as_str().unwrap())
    }

    /// What every envelope of this person's only stream says of itself.
    pub(crate) fn envelopes(&self, rig: &Rig) -> Vec<Value> {
        let items = rig.items(&self.data_topic(), 0);
        let inspect = |item: &Vec<u8>| {
            let printed = self.done_with(&["inspect", "--json"], item);
            serde_json::from_str(&printed).unwrap()
        };
        items.iter().map(inspect).collect()
    }

    /// What `doctor` finds to be a problem.
    pub(crate) fn problems(&self) -> Vec<String> {
        let (code, lines) = self.json(&["doctor"]);
        assert_eq!(code, 0, "{lines:?}");
        let problems = lines.iter().filter(|line| line["problem"] == true);
        problems
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn id(&self) -> String {
        self.done(&["id"])
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Insists on an exit code and returns what was printed, trimmed.
    pub(crate) fn expect(&self, code: i32, args: &[&str]) -> String {
        assert_eq!(self.code, code, "{args:?}: {}", self.stderr);
        assert_ne!(code, 1, "{args:?}: an internal error is never expected");
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}
