//! Programs that run, are stopped for a while, and die.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealcast_crash::Chance;

use super::world::World;
use crate::rig::Person;

/// How long anything may take before it counts as stuck, however busy the machine is.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How often is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(3);
/// How long a program is stopped, at most. Others wait for what it holds, longer than this.
const STOPPED_MS_MAX: u64 = 1_500;

/// What happens to a program that would end by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lives,
    Killed(Duration),
    Told(Duration),
    Stopped(Duration, Duration),
}

impl Fate {
    /// More often than not it lives.
    pub(super) fn draw(chance: &mut Chance, within_ms: u64) -> Self {
        let after = Duration::from_millis(chance.below(within_ms));
        match chance.below(10) {
            0..3 => Self::Killed(after),
            3 => Self::Told(after),
            4..6 => Self::Stopped(after, stop_for(chance)),
            _ => Self::Lives,
        }
    }
}

/// For how long to stop a program.
pub(super) fn stop_for(chance: &mut Chance) -> Duration {
    Duration::from_millis(chance.below(STOPPED_MS_MAX))
}

/// A running program, whose lines come as they are printed.
pub(super) struct Running {
    pub(super) what: String,
    child: Child,
    lines: Receiver<String>,
    said: PathBuf,
}

/// What comes next of a program.
pub(super) enum Next {
    Line(String),
    Nothing,
    End,
}

/// How a program ended: its exit code, unless it was killed, and what it said.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) lines: Vec<String>,
    pub(super) said: String,
}

impl Running {
    pub(super) fn start(world: &World, person: &Person, args: &[&str]) -> Self {
        let number = world.next_number();
        let said = world.folder("said").join(format!("{number:06}"));
        let mut command = person.command(args);
        command.stdin(Stdio::piped());
        command.stderr(File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let name = person.home().file_name().unwrap().to_string_lossy();
        let what = format!("{number:06} {name}: {} ({})", args.join(" "), child.id());
        world.note(&format!("{what} begins"));
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
                // What has no end was not said: the program died over it.
                if line.pop() == Some('\n') && sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self {
            what,
            child,
            lines,
            said,
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr so far.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Whether it took this on stdin.
    pub(super) fn takes(&mut self, text: &str) -> bool {
        let stdin = self.child.stdin.as_mut();
        stdin.is_some_and(|stdin| stdin.write_all(text.as_bytes()).is_ok())
    }

    /// Tells it that there is no more on stdin.
    pub(super) fn close(&mut self) {
        self.child.stdin = None;
    }

    pub(super) fn next(&self, within: Duration) -> Next {
        match self.lines.recv_timeout(within) {
            Ok(line) => Next::Line(line),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    fn signal(&self, signal: Signal) {
        // It is not waited for yet, so the number is still its own.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(super) fn kill(&self, world: &World) {
        world.note(&format!("{} is killed", self.what));
        world.tally.kills.add(1);
        self.signal(Signal::KILL);
    }

    /// Asks it to end.
    pub(super) fn tell(&self, world: &World) {
        world.note(&format!("{} is told to end", self.what));
        world.tally.told.add(1);
        self.signal(Signal::TERM);
    }

    /// Lets it do nothing for a while.
    pub(super) fn stop(&self, world: &World, time: Duration) {
        world.note(&format!("{} is stopped for {time:?}", self.what));
        world.tally.stops.add(1);
        self.signal(Signal::STOP);
        thread::sleep(time);
        self.signal(Signal::CONT);
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Lets its fate come over it, and waits until it has ended.
    pub(super) fn meet(mut self, world: &World, fate: Fate) -> Result<Ended, String> {
        let since = Instant::now();
        let mut fate = fate;
        loop {
            if let Some(status) = self.has_ended() {
                return self.ended(world, status);
            }
            let age = since.elapsed();
            if age > PATIENCE {
                return Err(self.stuck("it does not end"));
            }
            match fate {
                Fate::Killed(after) if age >= after => {
                    self.kill(world);
                    fate = Fate::Lives;
                }
                Fate::Told(after) if age >= after => {
                    self.tell(world);
                    fate = Fate::Lives;
                }
                Fate::Stopped(after, time) if age >= after => {
                    self.stop(world, time);
                    fate = Fate::Lives;
                }
                Fate::Lives | Fate::Killed(_) | Fate::Told(_) | Fate::Stopped(..) => {
                    thread::sleep(LOOK);
                }
            }
        }
    }

    /// What there is to know of a program that was to get on and does not.
    pub(super) fn stuck(&self, why: &str) -> String {
        let of = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(path).unwrap_or_default()
        };
        let status = of("status");
        let state = status.lines().find(|line| line.starts_with("State"));
        format!(
            "stuck: {}: {why} within {PATIENCE:?}; {state:?}, waits in {:?}; it said: {}",
            self.what,
            of("wchan"),
            self.said()
        )
    }

    fn ended(self, world: &World, status: ExitStatus) -> Result<Ended, String> {
        let (code, said) = (status.code(), self.said());
        world.note(&format!("{} ended: {status}", self.what));
        // No internal error, panic or alarm is ever in order.
        let is_bad = code == Some(1) || said.contains("panicked") || said.contains("\"alarm\"");
        if is_bad || said.contains("alarm:") {
            return Err(format!("{}: {status}: {said}", self.what));
        }
        let lines = self.lines.iter().collect();
        Ok(Ended { code, lines, said })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _is_dead = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}
