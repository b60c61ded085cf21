//! Homes and a bus in one folder, put back as they were for each run, and what must hold after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealcast::{
    BusUrl, Error, GrantStatus, Home, InitOptions, Interval, Passphrase, State, Stream,
    StreamOptions, UserId,
};
use sealcast_bus::{Bus, FileBus, Offset, Topic};
use sealcast_crash::Sent;
use sealcast_protocol::StreamTopics;
use tokio::runtime::{Builder, Runtime};

use crate::play::{CLEAR, grant};

/// Alice owns the stream `s`; bob and carol have joined it and hold no grant.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
    pub(crate) bob: UserId,
    pub(crate) carol: UserId,
    pub(crate) topic: String,
}

/// What went wrong.
pub(crate) type Fault = String;

pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm");
        let folder = folder.unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let live = folder.path().join("live");
        fs::create_dir(&live).unwrap();
        let (bob, carol, topic) = runtime().block_on(async {
            let home = async |name: &str| {
                let options = InitOptions {
                    name: Some(name.parse().unwrap()),
                    bus: Some(BusUrl::file(&live.join("bus")).unwrap()),
                    passphrase: Passphrase::None,
                };
                Home::init(&live.join(name), options).await.unwrap()
            };
            let (alice, bob, carol) = (home("alice").await, home("bob").await, home("carol").await);
            let options = StreamOptions::default();
            let stream = alice.create_stream(&"s".parse().unwrap(), options).await;
            let stream = stream.unwrap();
            bob.join(stream.ticket(), None).await.unwrap();
            carol.join(stream.ticket(), None).await.unwrap();
            let topic = StreamTopics(stream.id()).data();
            (bob.user(), carol.user(), topic)
        });
        copy_folder(&live, &folder.path().join("kept"));
        Self {
            folder,
            bob,
            carol,
            topic,
        }
    }

    /// The folder that is played in. Its path is in the tickets.
    pub(crate) fn live(&self) -> PathBuf {
        self.folder.path().join("live")
    }

    /// A file beside it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn others(&self) -> (UserId, UserId) {
        (self.bob, self.carol)
    }

    /// Puts everything back to where it began.
    pub(crate) fn begin_again(&self) {
        fs::remove_dir_all(self.live()).unwrap();
        copy_folder(&self.folder.path().join("kept"), &self.live());
    }

    /// What is wrong after a run in which so much was acknowledged and handed to the bus. `may_repeat`
    /// says whether a bus that failed may have been handed the same again.
    pub(crate) fn fault(
        &self,
        acks: &[String],
        sent: &mut Sent,
        may_repeat: bool,
    ) -> Result<(), Fault> {
        self.nothing_in_clear(&self.live())?;
        runtime().block_on(self.looked_at(acks, sent, may_repeat))
    }

    async fn looked_at(
        &self,
        acks: &[String],
        sent: &mut Sent,
        may_repeat: bool,
    ) -> Result<(), Fault> {
        let alice = self.stream("alice").await?;
        self.go_on(&alice, acks).await.map_err(told)?;
        let (home, stream) = &alice;
        holds(stream.alarms().is_empty(), "alarms")?;
        let findings = home.doctor().await.map_err(told)?;
        // Nobody makes backups here.
        let problems = findings.iter().filter(|of| of.is_problem);
        let bad: Vec<_> = problems
            .filter(|of| !of.text.contains("in this home alone"))
            .collect();
        holds(bad.is_empty(), &format!("doctor: {bad:?}"))?;
        self.holds_grants(stream, acks).await?;
        for reader in ["alice", "bob"] {
            let (_home, stream) = self.stream(reader).await?;
            let opened = opened(&stream, may_repeat).await;
            let complete = opened.and_then(|opened| complete(&opened, acks));
            complete.map_err(|fault| format!("{reader}: {fault}"))?;
            holds(stream.alarms().is_empty(), &format!("{reader}: alarms"))?;
        }
        if acks.iter().any(|ack| ack == "carol out") {
            let (_home, stream) = self.stream("carol").await?;
            let opened = texts(&stream).await.map_err(told)?.0;
            holds(!opened.contains(&"after".to_owned()), "carol reads on")?;
        }
        sent.extend(&self.topic, &self.items().await.map_err(told)?);
        holds(sent.reused().is_empty(), &format!("{:?}", sent.reused()))
    }

    async fn stream(&self, name: &str) -> Result<(Home, Stream), Fault> {
        let opened = async {
            let home = Home::open(&self.live().join(name), None).await?;
            let stream = home.stream(&"s".parse().unwrap()).await?;
            Ok::<_, Error>((home, stream))
        };
        let opened = opened.await;
        opened.map_err(|error| format!("{name}: {}", told(error)))
    }

    /// The home goes on: bob is granted, and one more is published.
    async fn go_on(&self, (_, stream): &(Home, Stream), acks: &[String]) -> Result<(), Error> {
        if !acks.iter().any(|ack| ack.starts_with("grant ")) {
            grant(stream, self.bob).await?;
        }
        stream.publish(format!("{CLEAR} after").as_bytes()).await?;
        stream.sync().await
    }

    async fn holds_grants(&self, stream: &Stream, acks: &[String]) -> Result<(), Fault> {
        let who = stream.who().await.map_err(told)?;
        let counts = |of: &&sealcast::GrantInfo| of.status != GrantStatus::Revoked;
        let counting: BTreeSet<_> = who
            .iter()
            .filter(counts)
            .map(|of| of.id.to_string())
            .collect();
        for id in acks.iter().filter_map(|ack| ack.strip_prefix("grant ")) {
            holds(counting.contains(id), &format!("the grant {id} is lost"))?;
        }
        let is_out = acks.iter().any(|ack| ack == "carol out");
        let has_carol = who.iter().filter(counts).any(|of| of.user == self.carol);
        holds(!(is_out && has_carol), "the revocation is lost")
    }

    /// What lies on the data topic.
    async fn items(&self) -> Result<Vec<Vec<u8>>, Error> {
        let bus = FileBus::open(self.live().join("bus")).await?;
        let topic = Topic::new(&self.topic).unwrap();
        let items = bus.read(&topic, Offset(0), usize::MAX).await?;
        Ok(items.into_iter().map(|item| item.payload).collect())
    }

    fn nothing_in_clear(&self, folder: &Path) -> Result<(), Fault> {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.nothing_in_clear(&path)?;
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let is_clear = bytes.windows(CLEAR.len()).any(|of| of == CLEAR.as_bytes());
            holds(!is_clear, &format!("in clear: {}", path.display()))?;
        }
        Ok(())
    }
}

pub(crate) fn told(error: Error) -> Fault {
    format!("{error}: {error:?}")
}

fn holds(is_so: bool, says: &str) -> Result<(), Fault> {
    match is_so {
        true => Ok(()),
        false => Err(says.to_owned()),
    }
}

/// What a stream's history opens, in order, and what else is told.
async fn texts(stream: &Stream) -> Result<(Vec<String>, Vec<State>), Error> {
    let mut reader = stream.read(Interval::ALL).await?;
    let (mut texts, mut noticed) = (Vec::new(), Vec::new());
    while let Some(delivery) = reader.next().await? {
        match delivery.payload {
            Some(text) => {
                let text = String::from_utf8(text.into_vec()).unwrap();
                texts.push(text.replace(CLEAR, "").trim().to_owned());
            }
            None => noticed.push(delivery.state),
        }
    }
    Ok((texts, noticed))
}

async fn opened(stream: &Stream, may_repeat: bool) -> Result<Vec<String>, Fault> {
    let (texts, noticed) = texts(stream).await.map_err(told)?;
    let is_fine = |state: &State| match state {
        State::Gap => true,
        State::Replay => may_repeat,
        State::Opened | State::Sealed | State::Rejected | State::Branch | State::Fork => false,
    };
    holds(noticed.iter().all(is_fine), &format!("told: {noticed:?}"))?;
    Ok(texts)
}

/// Every acknowledged record is there, each once and in order, and what was published last.
fn complete(opened: &[String], acks: &[String]) -> Result<(), Fault> {
    let says = |what: &str| format!("{what}: {opened:?} of {acks:?}");
    let records = acks.iter().filter_map(|ack| ack.strip_prefix("record "));
    let wanted: Vec<_> = records.flat_map(|record| record.split(' ')).collect();
    let mut found = opened.iter();
    let is_there = |wanted: &&str| found.any(|text| text == *wanted);
    holds(wanted.iter().all(is_there), &says("a record is missing"))?;
    let different: BTreeSet<_> = opened.iter().collect();
    holds(
        different.len() == opened.len(),
        &says("a record came twice"),
    )?;
    holds(
        opened.last().is_some_and(|last| last == "after"),
        &says("it does not go on"),
    )
}
