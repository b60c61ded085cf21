//! `cargo xtask conformance`: mosquitto's own tests of a broker, at the broker itself and through a proxy before it.
//!
//! They come with the source of the version that Debian has, and nothing of them is changed: where they look for the
//! broker there is `conformance/mosquitto.py`, which starts the one that is installed, behind a proxy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use crate::gate::watched;

const SOURCE: &str =
    "http://deb.debian.org/debian/pool/main/m/mosquitto/mosquitto_2.0.11.orig.tar.gz";
const DIGEST: &str = "7b36a7198bce85cf31b132f5c6ee36dcf5dadf86fb768501eb1e11ce95d4f78a";
const FOLDER: &str = "mosquitto-2.0.11";
const IN_ITS_PLACE: &str = include_str!("conformance/mosquitto.py");
/// How long a script may say nothing: what it says, it says at its end.
const SILENCE: Duration = Duration::from_secs(150);
/// How often one is begun anew for that the broker was not there in time.
const STARTS_MAX: u32 = 10;
/// The first port of those that scripts are told: systems hand out higher ones.
const PORTS: u16 = 20_000;
/// So many are kept for each way; a script takes three at most.
const PORTS_OF_WAY: u16 = 1_000;
const PORTS_OF_SCRIPT: u16 = 3;

/// What is passed whatever becomes of the rest, in a proxy that says no limit of its own.
const RULES: &str = "packet_max = \"256 MiB\"\n\
    [[rule]]\ntopics = \"$SYS/#\"\ndo = \"pass\"\n\
    [[rule]]\ntopics = \"$CONTROL/#\"\ndo = \"pass\"\n\
    [[rule]]\ntopics = \"#\"\n";

/// By which way scripts reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Pass,
    Both,
}

impl Way {
    const ALL: [Self; 3] = [Self::Direct, Self::Pass, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pass => "pass",
            Self::Both => "both",
        }
    }

    fn rules(self) -> String {
        let rest = match self {
            Self::Direct | Self::Pass => "do = \"pass\"\n",
            Self::Both => "stream = \"s\"\ndo = \"both\"\n",
        };
        format!("{RULES}{rest}")
    }
}

/// A script, and how many ports it wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Script {
    ports: u16,
    name: String,
}

/// Those that the list of mosquitto's names.
fn scripts(list: &str) -> Vec<Script> {
    let lines = list.lines().filter_map(|line| {
        let (ports, name) = line.trim().strip_prefix('(')?.split_once(", './")?;
        Some(Script {
            ports: ports.parse().ok()?,
            name: name.strip_suffix(".py'),")?.to_owned(),
        })
    });
    lines.collect()
}

/// Whether a script is about what a broker does for clients: not about itself as one of another's, TLS with certificates of
/// its own, or its plugins, which would have to be compiled.
fn is_of_clients(name: &str, text: &str) -> bool {
    !name.starts_with("06-bridge") && !name.starts_with("08-") && !text.contains(".so\\n")
}

/// Those about what a broker does for clients, of some names where any are given.
fn wanted(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<Script>> {
    let all = scripts(&fs::read_to_string(folder.join("test.py"))?);
    let mut wanted = Vec::new();
    for script in all {
        // One is listed that is not there.
        let Ok(text) = fs::read_to_string(folder.join(format!("{}.py", script.name))) else {
            continue;
        };
        let is_named = names.is_empty() || names.iter().any(|of| script.name.starts_with(of));
        if is_named && is_of_clients(&script.name, &text) {
            wanted.push(script);
        }
    }
    Ok(wanted)
}

/// Runs them by each way, those of some names where any are given, and prints which do not end alike.
pub(crate) fn run(root: &Path, names: &[&str]) -> anyhow::Result<()> {
    let folder = root.join("target/conformance");
    fs::create_dir_all(&folder)?;
    let archive = fetch(&folder)?;
    let mut cargo = crate::cargo(root);
    cargo.args(["build", "-q", "--all-features", "-p", "sealcast-cli"]);
    must(&mut cargo)?;
    let sealcast = root.join("target/debug/sealcast");
    let stages = Way::ALL.map(|way| Stage::new(way, &folder, &archive, &sealcast));
    let stages = stages.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let scripts = wanted(&stages[0].folder.join("test/broker"), names)?;
    ensure!(!scripts.is_empty(), "there is no such script");
    let passed = thread::scope(|scope| {
        let ways: Vec<_> = stages
            .iter()
            .map(|stage| scope.spawn(|| stage.run_all(&scripts)))
            .collect();
        let ways = ways.into_iter().map(|way| match way.join() {
            Ok(passed) => passed,
            Err(_) => Err(anyhow!("a panic")),
        });
        ways.collect::<anyhow::Result<Vec<_>>>()
    })?;
    print(&scripts, &passed);
    Ok(())
}

fn print(scripts: &[Script], passed: &[Vec<bool>]) {
    println!("\n| script | direct | pass | both |\n|---|---|---|---|");
    for (index, script) in scripts.iter().enumerate() {
        let row: Vec<_> = passed.iter().map(|way| way[index]).collect();
        if row.contains(&true) && row.contains(&false) {
            let words = row.iter().map(|of| if *of { "yes" } else { "no" });
            println!(
                "| {} | {} |",
                script.name,
                words.collect::<Vec<_>>().join(" | ")
            );
        }
    }
    for (way, passed) in Way::ALL.iter().zip(passed) {
        let count = passed.iter().filter(|of| **of).count();
        println!("{}: {count} of {}", way.name(), scripts.len());
    }
}

/// The source, fetched where it is not there.
fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    let archive = folder.join("mosquitto.tar.gz");
    if !archive.exists() {
        let mut curl = Command::new("curl");
        must(curl.args(["-sSfL", "-o"]).arg(&archive).arg(SOURCE))?;
    }
    let output = Command::new("sha256sum").arg(&archive).output()?;
    let digest = String::from_utf8_lossy(&output.stdout);
    ensure!(
        digest.starts_with(DIGEST),
        "{}: another archive",
        archive.display()
    );
    Ok(archive)
}

fn must(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "failed: {command:?}");
    Ok(())
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It did not wait until the broker was there.
    NotBegun,
}

impl Outcome {
    fn of(is_success: bool, text: &str) -> Self {
        match (is_success, text.contains(", in start_broker")) {
            (true, _) => Self::Passed,
            (false, true) => Self::NotBegun,
            (false, false) => Self::Failed,
        }
    }
}

/// A copy of the scripts, in which one way is gone.
struct Stage {
    way: Way,
    folder: PathBuf,
    sealcast: PathBuf,
    homes: AtomicU32,
}

impl Stage {
    fn new(way: Way, folder: &Path, archive: &Path, sealcast: &Path) -> anyhow::Result<Self> {
        let folder = folder.join(way.name());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mut tar = Command::new("tar");
        must(tar.arg("-xzf").arg(archive).arg("-C").arg(&folder))?;
        let folder = folder.join(FOLDER);
        let place = folder.join("src/mosquitto");
        fs::write(&place, IN_ITS_PLACE)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            way,
            folder,
            sealcast: sealcast.to_owned(),
            homes: AtomicU32::new(0),
        })
    }

    /// Which of them pass.
    fn run_all(&self, scripts: &[Script]) -> anyhow::Result<Vec<bool>> {
        let mut port = PORTS + PORTS_OF_WAY * self.way as u16;
        let mut passed = Vec::with_capacity(scripts.len());
        for script in scripts {
            passed.push(self.passes(script, port)?);
            port += PORTS_OF_SCRIPT;
        }
        Ok(passed)
    }

    /// Whether one passes. They do not wait for long, and the machine may be busy: so it is tried twice, and once more for each time
    /// that they did not wait until the broker was there.
    fn passes(&self, script: &Script, port: u16) -> anyhow::Result<bool> {
        let (mut is_again, mut starts) = (false, 0);
        loop {
            match self.run(script, port)? {
                Outcome::Passed => return Ok(true),
                Outcome::NotBegun if starts < STARTS_MAX => starts += 1,
                Outcome::NotBegun | Outcome::Failed if is_again => return Ok(false),
                Outcome::NotBegun | Outcome::Failed => is_again = true,
            }
        }
    }

    /// What one that fails says is left beside the scripts.
    fn run(&self, script: &Script, port: u16) -> anyhow::Result<Outcome> {
        // A folder of its own: the proxy of the one before may not have ended yet.
        let number = self.homes.fetch_add(1, Ordering::Relaxed);
        let home = self.folder.join(format!("home-{number}"));
        self.home(&home)?;
        let ports = (port..port + script.ports).map(|of| of.to_string());
        let sealcast = match self.way {
            Way::Direct => Path::new(""),
            Way::Pass | Way::Both => &self.sealcast,
        };
        let mut command = Command::new("python3");
        command.arg(format!("./{}.py", script.name)).args(ports);
        command.current_dir(self.folder.join("test/broker"));
        command
            .env("CONFORMANCE_SEALCAST", sealcast)
            .env("CONFORMANCE_HOME", &home)
            .env("CONFORMANCE_RULES", self.way.rules());
        let says = self.folder.join(format!("{}.log", script.name));
        let ran = watched::run(command, &says, SILENCE)?;
        let outcome = Outcome::of(ran.is_success, &ran.text);
        if outcome != Outcome::Passed {
            fs::write(says, ran.text)?;
        }
        Ok(outcome)
    }

    /// A home with a stream, in which nothing has happened.
    fn home(&self, home: &Path) -> anyhow::Result<()> {
        for words in [
            &["init", "--name", "x", "--no-passphrase"][..],
            &["stream", "create", "s"],
        ] {
            let mut sealcast = Command::new(&self.sealcast);
            sealcast.arg("--home").arg(home).args(words);
            must(sealcast.stdout(Stdio::null()).stderr(Stdio::null()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_those_that_are_listed_and_not_left_out() {
        let list = "tests = [\n    (1, './01-a.py'),\n    #(1, './02-b.py'),\n\n    (2, './03-c.py'),\n    ]\n";
        let of = |ports, name: &str| Script {
            ports,
            name: name.to_owned(),
        };
        assert_eq!(scripts(list), [of(1, "01-a"), of(2, "03-c")]);
        let late = "  File \"mosq_test.py\", line 67, in start_broker\n";
        assert_eq!(Outcome::of(false, late), Outcome::NotBegun);
        assert_eq!(Outcome::of(false, "FAIL"), Outcome::Failed);
        assert_eq!(Outcome::of(true, late), Outcome::Passed);
        assert!(is_of_clients("01-a", "socket.socket()"));
        for (name, text) in [
            ("06-bridge-a", ""),
            ("08-ssl-a", ""),
            ("09-a", "write(\"plugin c/auth.so\\n\")"),
        ] {
            assert!(!is_of_clients(name, text), "{name}");
        }
    }
}
