//! A copy of the sources to plant faults in.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// A test that runs longer than this hangs, which is one way to notice a fault.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The sources as they are now, committed or not, and a target folder beside them.
pub(crate) struct Copy {
    sources: PathBuf,
    target: PathBuf,
}

/// What became of a test.
pub(crate) enum Outcome {
    Passed,
    Failed,
    Hung,
    DidNotBuild,
    RanNothing,
}

impl Outcome {
    pub(crate) fn is_caught(&self) -> bool {
        match self {
            Self::Failed | Self::Hung => true,
            Self::Passed | Self::DidNotBuild | Self::RanNothing => false,
        }
    }

    pub(crate) fn says(&self) -> &'static str {
        match self {
            Self::Passed => "NOT CAUGHT",
            Self::Failed => "caught",
            Self::Hung => "caught: the test did not end",
            Self::DidNotBuild => "DOES NOT BUILD, so nothing was shown",
            Self::RanNothing => "RAN NO TEST, so nothing was shown",
        }
    }
}

impl Copy {
    pub(crate) fn make(root: &Path, folder: &Path) -> anyhow::Result<Self> {
        let copy = Self {
            sources: folder.join("sources"),
            target: folder.join("target"),
        };
        let list = Command::new("git")
            .current_dir(root)
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .output()
            .context("git")?;
        ensure!(list.status.success(), "`git ls-files` failed");
        if copy.sources.exists() {
            fs::remove_dir_all(&copy.sources)?;
        }
        let list = String::from_utf8(list.stdout)?;
        for name in list.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), copy.sources.join(name));
            if !from.is_file() {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::copy(&from, &to).with_context(|| name.to_owned())?;
        }
        Ok(copy)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sources.join(name)
    }

    /// Builds and runs a test, by the arguments of `cargo test`.
    pub(crate) fn test(&self, arguments: &str) -> anyhow::Result<Outcome> {
        let (build, _) = arguments.split_once(" -- ").unwrap_or((arguments, ""));
        let mut cargo = self.cargo(build);
        if !cargo
            .arg("--no-run")
            .stderr(Stdio::null())
            .status()?
            .success()
        {
            return Ok(Outcome::DidNotBuild);
        }
        let printed = self.target.join("printed");
        let mut test = self.cargo(arguments);
        test.stdout(fs::File::create(&printed)?)
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = test.spawn()?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => {
                    // The test is a child of cargo, in the group of which cargo is the first.
                    let group = format!("-{}", child.id());
                    Command::new("kill").args(["-9", "--", &group]).status()?;
                    child.wait()?;
                    return Ok(Outcome::Hung);
                }
                None => sleep(LOOK_EVERY),
            }
        };
        // A test that aborts prints no such line.
        let printed = fs::read_to_string(&printed)?;
        let has_run = printed.lines().any(|line| {
            line.strip_prefix("running ")
                .is_some_and(|rest| !rest.starts_with("0 "))
        });
        Ok(match (has_run, status.success()) {
            (false, _) => Outcome::RanNothing,
            (true, true) => Outcome::Passed,
            (true, false) => Outcome::Failed,
        })
    }

    fn cargo(&self, arguments: &str) -> Command {
        let mut cargo = crate::cargo(&self.sources);
        cargo
            .arg("test")
            .args(arguments.split_whitespace())
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null());
        cargo
    }
}
