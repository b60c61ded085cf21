//! One contestant in one round: publishing, reading and following.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::clear::{CLIENT, EACH, SUBSCRIBE};
use super::{Broker, LINE, Place, Way};
use crate::scene::{Scene, Took, watch};

/// How long a follower has to begin.
const SETTLE: Duration = Duration::from_secs(1);

/// One way of publishing and reading, at a place of its own.
pub(super) struct Contestant {
    pub(super) broker: Broker,
    pub(super) place: Place,
    pub(super) scene: Scene,
    pub(super) lines: u64,
    pub(super) way: Way,
}

impl Contestant {
    /// Has a server that stores nothing keep what is published for the reader, as it does for the home of Bob since
    /// he joined.
    pub(super) fn subscribe(&self) -> anyhow::Result<()> {
        if !self.way.is_sealed() && !self.broker.has_past() {
            watch(self.client(SUBSCRIBE), Stdio::null())?;
        }
        Ok(())
    }

    pub(super) fn publish(&self) -> anyhow::Result<Took> {
        watch(self.publishing(), self.scene.lines()?)
    }

    /// Subscribes to what is stored or kept for it, while nobody publishes.
    pub(super) fn read(&self) -> anyhow::Result<Took> {
        self.all(watch(self.subscribing(), Stdio::null())?)
    }

    /// Publishes while another process follows: from the first line on its way in to the last one
    /// out.
    pub(super) fn follow(&self) -> anyhow::Result<Took> {
        let following = self.subscribing();
        let following = thread::spawn(move || watch(following, Stdio::null()));
        thread::sleep(SETTLE);
        let begun = Instant::now();
        self.publish()?;
        let followed = following.join();
        let mut took = followed.map_err(|_| anyhow::anyhow!("following failed"))??;
        took.wall = begun.elapsed();
        self.all(took)
    }

    fn all(&self, took: Took) -> anyhow::Result<Took> {
        let expected = self.lines * (LINE as u64 + 1);
        ensure!(took.stdout == expected, "{} bytes came", took.stdout);
        Ok(took)
    }

    fn subscribing(&self) -> Command {
        if !self.way.is_sealed() {
            return self.client("read");
        }
        let count = self.lines.to_string();
        let arguments = ["sub", "kitchen", "--from", "start", "--count", &count];
        self.scene.command("bob", &arguments)
    }

    fn publishing(&self) -> Command {
        match self.way {
            Way::Sealed => self.scene.command("alice", &["pub", "kitchen", "-l"]),
            Way::SealedEach => {
                let mut command = this_program();
                command.arg(EACH);
                command.args(["alice", "passphrase"].map(|name| self.scene.path(name)));
                command
            }
            Way::Frames | Way::Packed | Way::Each | Way::EachByLibrary => self.client("publish"),
        }
    }

    /// This program as a client that seals nothing. It opens a home, too, as everybody does.
    fn client(&self, what: &str) -> Command {
        let home = if what == "publish" { "alice" } else { "bob" };
        let mut command = this_program();
        command.args([CLIENT, what, self.broker.word()]);
        command.args([&self.place.url, &self.place.name]);
        command.args([self.way.word(), &self.lines.to_string()]);
        command.args([home, "passphrase"].map(|name| self.scene.path(name)));
        command
    }
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap_or_default())
}
