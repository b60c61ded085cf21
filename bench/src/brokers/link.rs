//! A link of so many bits a second in each direction, between servers and clients of one machine.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the link carries each way, as `tc` and a reader write it.
const RATE: &str = "1gbit";
pub(super) const SAYS: &str = "1 Gbit/s";

/// A network of its own with one interface, which is slowed.
pub(super) struct Link {
    name: String,
}

impl Link {
    /// Lays a link; it takes root and `iproute2`.
    pub(super) fn lay() -> anyhow::Result<Self> {
        let link = Self {
            name: format!("sealcast-bench-{}", std::process::id()),
        };
        run("ip", &["netns", "add", &link.name])?;
        link.on(|| {
            run("ip", &["link", "set", "lo", "up"])?;
            let lo = ["qdisc", "add", "dev", "lo", "root"];
            run(
                "tc",
                &[&lo[..], &["handle", "1:", "htb", "default", "1"]].concat(),
            )?;
            for class in ["1:1", "1:2"] {
                let class = [
                    "class", "add", "dev", "lo", "parent", "1:", "classid", class,
                ];
                let rate = ["htb", "rate", RATE, "burst", "128kb", "cburst", "128kb"];
                let quantum = ["quantum", "60000"];
                run("tc", &[&class[..], &rate, &quantum].concat())?;
            }
            // Both ends have one address, but servers listen below the ports from which Linux has
            // clients call.
            let filter = [
                "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip",
            ];
            let is_answer = [
                "u32", "match", "u16", "0", "0x8000", "at", "20", "flowid", "1:2",
            ];
            run("tc", &[&filter[..], &is_answer].concat())
        })?;
        Ok(link)
    }

    /// Does something on the link, with whatever processes and threads it starts.
    pub(super) fn on<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let network = File::open(Path::new("/run/netns").join(&self.name))?;
        let there = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let done = thread::scope(|scope| scope.spawn(there).join());
        done.map_err(|_| anyhow!("what was done on a link failed"))?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _is_gone = run("ip", &["netns", "delete", &self.name]).is_ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let what = || format!("`{program} {}`", arguments.join(" "));
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("{}: is iproute2 installed?", what()))?;
    ensure!(status.success(), "{} failed: a link takes root", what());
    Ok(())
}
