//! The memory of a running program.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::process::Child;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{Needles, Trace};

/// A child that stands still, so that its memory is of one moment. Goes on when dropped.
///
/// What is searched is what a core dump of it would hold: every mapping that can be read, stacks,
/// heaps and files included. The registers of its threads are not.
#[derive(Debug)]
pub struct Stopped(Pid);

impl Stopped {
    /// Stops a child and waits until it stands.
    ///
    /// # Errors
    ///
    /// Fails when it has ended.
    pub fn new(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::STOP)?;
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED)?;
        match stopped {
            Some((_, status)) if status.stopped() => Ok(Self(pid)),
            Some(_) | None => Err(io::Error::other("it ended")),
        }
    }

    /// Searches all of its memory.
    ///
    /// # Errors
    ///
    /// Fails when the system does not show it.
    pub fn search(&self, needles: &Needles) -> io::Result<Vec<Trace>> {
        search_memory(self.0.as_raw_pid(), needles)
    }
}

/// Whether every thread of a child waits for something: input, a timer, room in a pipe.
///
/// # Errors
///
/// Fails when it has ended.
pub fn is_idle(child: &Child) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{}/task", child.id()))? {
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else {
            // This thread has ended meanwhile.
            return Ok(false);
        };
        // The name before it may hold anything.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        match state {
            Some('S') => (),
            Some('Z' | 'X') => return Err(io::Error::other("it ended")),
            Some(_) | None => return Ok(false),
        }
    }
    Ok(true)
}

/// Searches the memory of a process that does nothing now.
///
/// # Errors
///
/// Fails when the system does not show it.
pub fn search_memory(process: i32, needles: &Needles) -> io::Result<Vec<Trace>> {
    let folder = format!("/proc/{process}");
    let maps = fs::read_to_string(format!("{folder}/maps"))?;
    let memory = File::open(format!("{folder}/mem"))?;
    let mut traces = Vec::new();
    let mut bytes = Vec::new();
    for line in maps.lines() {
        let Some((from, until)) = readable(line) else {
            continue;
        };
        bytes.resize((until - from) as usize, 0);
        match memory.read_exact_at(&mut bytes, from) {
            Ok(()) => traces.extend(needles.search(line, &bytes)),
            // What the kernel maps of its own, and the end of a file that has grown shorter.
            Err(_) if line.contains('/') || line.contains("[v") => (),
            Err(error) => return Err(error),
        }
    }
    Ok(traces)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The addresses of a mapping that can be read: `from-until perms offset device inode name`.
fn readable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, until) = range.split_once('-')?;
    let parse = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with('r')
        .then_some((parse(from)?, parse(until)?))
}
