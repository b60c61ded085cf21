//! Many MQTT clients through one proxy, and the same clients on the broker itself.

mod round;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sealcast_brokers::free_port;
use sealcast_brokers::mosquitto::Server;
use tokio::runtime::Runtime;

use crate::clock;
use crate::contest::Spread;
use crate::latency::Tail;
use crate::report::{self, Page};
use crate::scene::Scene;
use round::{CLIENTS, Heard, LEN, RATE};

/// The argument that asks for it; for how many seconds follows.
pub(crate) const CROWD: &str = "crowd";

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/CROWD.md");
/// From so many seconds on the figures are kept, and must be good.
const KEPT_FROM: u64 = 60;
/// Both ways take turns.
const ROUNDS: u64 = 3;
const RATE_MIN: f64 = 0.6;
const MEMORY_MAX_MIB: f64 = 128.0;
/// More than that from the first round to the last is not bounded.
const GROWTH_MAX_MIB: f64 = 16.0;
/// How long a proxy has to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);

/// What was heard in all rounds of one way.
#[derive(Default)]
struct Way {
    rates: Vec<f64>,
    latencies: Vec<f64>,
}

impl Way {
    fn note(&mut self, mut heard: Heard) {
        self.rates.push(heard.rate);
        self.latencies.append(&mut heard.latencies);
    }
}

/// The proxy, and what it had of memory after each round.
struct Proxy {
    child: Child,
    address: String,
    memory: Vec<f64>,
}

/// Has the clients publish for so long both ways, and says what came of it.
pub(crate) fn run(runtime: &Runtime, seconds: u64) -> anyhow::Result<String> {
    // Each client is two files for the proxy, and one for everybody else.
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, raised)?;
    let broker = Server::start();
    let is_glance = seconds < KEPT_FROM;
    let scene = Scene::set(None, 0, LEN, is_glance)?;
    let mut proxy = Proxy::start(&scene, broker.port())?;
    let direct = format!("127.0.0.1:{}", broker.port());
    let lasting = Duration::from_secs(seconds) / ROUNDS as u32;
    let [mut alone, mut through] = [Way::default(), Way::default()];
    for number in 1..=ROUNDS {
        let heard = runtime.block_on(round::run(&direct, lasting))?;
        crate::tell(&format!("round {number}, directly: {heard}"));
        alone.note(heard);
        let heard = runtime.block_on(round::run(&proxy.address, lasting))?;
        crate::tell(&format!("round {number}, through the proxy: {heard}"));
        through.note(heard);
        proxy.look()?;
    }
    let memory = proxy.end()?;
    let ratios = through.rates.iter().zip(&alone.rates);
    let ratio = Spread::of(ratios.map(|(own, base)| own / base).collect());
    let text = page(seconds, (alone, through), &ratio, &memory);
    if !is_glance {
        let (first, last) = (memory[0], memory[memory.len() - 1]);
        ensure!(
            ratio.median >= RATE_MIN && last <= MEMORY_MAX_MIB && last - first <= GROWTH_MAX_MIB,
            "through the proxy {:.2} of the rate, {first:.0} MiB after the first round and {last:.0} after \
             the last\n{text}",
            ratio.median
        );
        fs::write(RESULTS, &text)?;
    }
    Ok(text)
}

impl Proxy {
    /// Starts one that seals and opens all that the clients say.
    fn start(scene: &Scene, broker: u16) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port());
        let config = scene.path("proxy.toml");
        let text = format!(
            "listen = \"{address}\"\nupstream = \"mqtt://127.0.0.1:{broker}\"\nlog = \"warn\"\n\n\
             [[rule]]\ntopics = \"crowd/#\"\nstream = \"kitchen\"\ndo = \"both\"\n"
        );
        fs::write(&config, text)?;
        let mut command = scene.command("alice", &["proxy", "mqtt"]);
        let child = command.arg(&config).stdin(Stdio::null()).spawn()?;
        let (mut proxy, begun) = (
            Self {
                child,
                address,
                memory: Vec::new(),
            },
            Instant::now(),
        );
        while TcpStream::connect(&proxy.address).is_err() {
            ensure!(proxy.child.try_wait()?.is_none(), "the proxy has ended");
            ensure!(begun.elapsed() < BEGIN_WITHIN, "the proxy does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(proxy)
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let status = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        self.memory.push(clock::memory_of(&status, "VmHWM")?);
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<Vec<f64>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        ensure!(self.child.wait()?.success(), "the proxy failed");
        Ok(std::mem::take(&mut self.memory))
    }
}

impl Drop for Proxy {
    /// Where something failed, it does not go on alone.
    fn drop(&mut self) {
        let _is_gone = self.child.kill().is_err();
    }
}

fn page(seconds: u64, (alone, through): (Way, Way), ratio: &Spread, memory: &[f64]) -> String {
    let mut page = Page::default();
    page.title("A thousand MQTT clients through one proxy");
    let command = format!("cargo run --release -p sealcast-bench -- {CROWD} {seconds}");
    report::provenance(&mut page, &command);
    page.head(&[
        "",
        "messages a second",
        "times the rate",
        "median ms",
        "99 of 100 ms",
    ]);
    for (name, way, times) in [
        ("on the broker", alone, "1".to_owned()),
        ("through the proxy", through, ratio.to_string()),
    ] {
        let tail = Tail::of(String::new(), way.latencies);
        let [median, p99] = [tail.median, tail.p99].map(|ms| format!("{ms:.1}"));
        page.row(&[&name, &Spread::of(way.rates), &times, &median, &p99]);
    }
    let most: Vec<_> = memory.iter().map(|mib| format!("{mib:.0}")).collect();
    page.paragraph(&format!(
        "{CLIENTS} clients of MQTT 3.1.1 offer {RATE} messages of {LEN} bytes a second between them, with QoS 1, for {} \
         rounds of {} s each way, and one more receives them all. Broker, clients and proxy share the machine. \
         The proxy seals each message and opens it again for the one that receives. The rate is of what had \
         arrived at the end of a round; what was on its way then was waited for, and nothing was lost. Times run from when a message was due, \
         whether its client was late or not. At the end of each round the proxy had taken {} MiB at most. The command fails where the \
         rate is below {RATE_MIN} of that on the broker, or memory grows.",
        ROUNDS,
        seconds / ROUNDS,
        most.join(", "),
    ));
    page.text().to_owned()
}
