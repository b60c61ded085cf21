//! A program that runs to its end, or until it has said nothing for too long: one that hangs must not
//! take the whole of the gate with it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// What a program came to.
pub(crate) struct Ran {
    pub(crate) is_success: bool,
    pub(crate) time: Duration,
    /// All that it said and, where it was ended, what was running then.
    pub(crate) text: String,
}

/// Runs a program with what it says in a file, which is removed afterwards. It is killed with all that
/// it started once the file has not grown for `silence`.
pub(crate) fn run(mut command: Command, file: &Path, silence: Duration) -> anyhow::Result<Ran> {
    let output = File::create(file).with_context(|| format!("writing {}", file.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let (mut said, mut heard_at) = (0, begun);
    let ending = loop {
        if let Some(status) = child.try_wait()? {
            break Ok(status.success());
        }
        let length = output.metadata()?.len();
        if length != said {
            (said, heard_at) = (length, Instant::now());
        }
        if heard_at.elapsed() >= silence {
            break Err(end(&mut child)?);
        }
        sleep(LOOK);
    };
    let mut text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
    fs::remove_file(file)?;
    if let Err(running) = &ending {
        let seconds = silence.as_secs();
        text +=
            &format!("\nIt said nothing for {seconds} s and was ended. Running were:\n{running}");
    }
    Ok(Ran {
        is_success: ending.unwrap_or(false),
        time: begun.elapsed(),
        text,
    })
}

/// Kills a program and all that it started, and says what these were.
fn end(child: &mut Child) -> anyhow::Result<String> {
    let group = child.id().to_string();
    let list = Command::new("ps")
        .args(["-A", "-o", "pgid=,pid=,etime=,args="])
        .output();
    // Without `ps` there is less to go by, and no other harm.
    let list = list.map_or_else(|_| Vec::new(), |output| output.stdout);
    let list = String::from_utf8_lossy(&list);
    let is_of_it = |line: &&str| line.split_whitespace().next() == Some(&group);
    let running: Vec<&str> = list.lines().filter(is_of_it).collect();
    let kill = format!("kill -9 -{group}");
    Command::new("sh").args(["-c", &kill]).status()?;
    child.wait()?;
    Ok(running.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, silence: Duration) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, &folder.path().join("said"), silence).unwrap()
    }

    #[test]
    fn what_it_says_and_how_it_ends_are_told() {
        let ran = run_shell("echo out; echo err >&2; exit 3", Duration::from_secs(600));
        assert!(!ran.is_success);
        assert_eq!(ran.text, "out\nerr\n");
        assert!(run_shell("true", Duration::from_secs(600)).is_success);
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let script = "sleep 12345 & echo $!; wait";
        let ran = run_shell(script, Duration::from_secs(1));
        assert!(!ran.is_success);
        assert!(ran.text.contains("said nothing"), "{}", ran.text);
        let started = ran.text.lines().next().unwrap();
        let is_gone = || {
            let status = fs::read_to_string(format!("/proc/{started}/status"));
            status.map_or(true, |status| status.contains("State:\tZ"))
        };
        // It was told to, and ends when it is its turn.
        for _ in 0..1_200 {
            if is_gone() {
                return;
            }
            sleep(LOOK);
        }
        panic!("{started} lives");
    }

    #[test]
    fn one_that_goes_on_saying_something_goes_on() {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; sleep 1; done";
        assert!(run_shell(script, Duration::from_secs(11)).is_success);
    }
}
