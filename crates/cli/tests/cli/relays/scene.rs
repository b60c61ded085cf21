//! Two proxies before a broker, clients on both sides of them, the same clients at the broker itself, and what is done to
//! all of them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealcast_brokers::mosquitto::Server;
use sealcast_brokers::{Proxy as Way, Tap, free_port};
use sealcast_crash::Chance;
use sealcast_traces::Needles;
use tokio::runtime::Runtime;

use super::judge::Ledger;
use crate::rig::{Person, Rig};

/// What every message has in it, and nothing else.
const SECRET: &str = "furnace at 871 degrees";
/// What a client has on its way at most, in either direction; `clients.py` says the same.
pub(super) const WINDOW: u64 = 10;
/// How long anything may take, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(10);
/// How long a way is closed at most, and a broker or proxy gone beyond what its start takes.
const AWAY_MS_MAX: u64 = 400;

/// What is done to proxies, ways and broker; to those who are at the broker itself, the nearest to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blow {
    BrokerRestarted,
    /// On the way from the proxy of those who publish, or of those who receive.
    UpstreamCut(Side),
    ProxyKilled(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Publishing,
    Receiving,
}

impl Blow {
    pub(super) const ALL: [Self; 5] = [
        Self::BrokerRestarted,
        Self::UpstreamCut(Side::Publishing),
        Self::UpstreamCut(Side::Receiving),
        Self::ProxyKilled(Side::Publishing),
        Self::ProxyKilled(Side::Receiving),
    ];
}

/// Everybody.
pub(super) struct Scene {
    pub(super) sealed: Company,
    pub(super) direct: Company,
    gateway: Post,
    desk: Post,
    /// From a proxy to the broker, and from clients to it.
    ways: [Way; 4],
    tap: Tap,
    server: Server,
    /// How often a message was seen between proxies and broker.
    seen: usize,
    _runtime: Runtime,
    // Removed last.
    pub(super) rig: Rig,
}

impl Scene {
    pub(super) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (rig, server) = (Rig::small(), Server::start_with(&config()));
        let (tap, tapped) = Tap::before(server.port());
        let ways = [tapped, tapped, server.port(), server.port()];
        let ways = ways.map(|port| runtime.block_on(Way::before(port)));
        // The bus is on the same broker, so that it is away when that is.
        let bus = format!("mqtt://127.0.0.1:{tapped}/sealed?topics=plant/sealed/#");
        let [alice, bob] = ["alice", "bob"].map(|name| {
            let person = rig.stranger(name);
            person.done(&["init", "--name", name, "--bus", &bus, "--no-passphrase"]);
            person
        });
        let ticket = alice.done(&["stream", "create", "s"]);
        bob.done(&["join", &ticket]);
        alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
        let gateway = Post::new(&rig, &alice, "gateway", "seal", ways[0].port());
        let desk = Post::new(&rig, &bob, "desk", "open", ways[1].port());
        Self {
            sealed: Company::new("sealed", gateway.port, desk.port),
            direct: Company::new("direct", ways[2].port(), ways[3].port()),
            gateway,
            desk,
            ways,
            tap,
            server,
            seen: 0,
            _runtime: runtime,
            rig,
        }
    }

    /// Deals a blow, to both companies alike.
    pub(super) fn strike(&mut self, blow: Blow, chance: &mut Chance) {
        let away = Duration::from_millis(chance.below(AWAY_MS_MAX));
        let (proxy, [upstream, direct]) = match blow {
            Blow::BrokerRestarted => {
                self.server.stop();
                thread::sleep(away);
                return self.server.restart();
            }
            Blow::UpstreamCut(Side::Publishing) | Blow::ProxyKilled(Side::Publishing) => {
                (&self.gateway, [&self.ways[0], &self.ways[2]])
            }
            Blow::UpstreamCut(Side::Receiving) | Blow::ProxyKilled(Side::Receiving) => {
                (&self.desk, [&self.ways[1], &self.ways[3]])
            }
        };
        direct.cut();
        match blow {
            Blow::ProxyKilled(_) => proxy.kill(),
            Blow::BrokerRestarted | Blow::UpstreamCut(_) => upstream.cut(),
        }
        thread::sleep(away);
        upstream.open();
        direct.open();
    }

    /// What was doubled so far: direct and through proxies, of QoS 1 and 2 each.
    pub(super) fn doubled(&self) -> [u64; 4] {
        let of = |company: &Company, qos| company.ledger().count(qos).doubled;
        let (direct, sealed) = (&self.direct, &self.sealed);
        [of(direct, 1), of(direct, 2), of(sealed, 1), of(sealed, 2)]
    }

    /// Searches what passed between proxies and broker since it was done last.
    pub(super) fn look(&mut self) {
        let mut needles = Needles::new();
        needles.add(SECRET, SECRET.as_bytes());
        self.seen += needles.search("upstream", &self.tap.take()).len();
    }

    /// What is wrong with what the broker saw, and with what the proxies said.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.seen > 0 {
            faults.push(format!(
                "{} messages were seen on the way to the broker",
                self.seen
            ));
        }
        for said in [&self.gateway, &self.desk].map(Post::said) {
            if said.contains("panicked") || said.contains(SECRET) {
                faults.push(said);
            }
        }
        faults
    }
}

/// Those who publish and receive at the broker itself, where what is received takes a while to arrive.
pub(super) struct Far {
    pub(super) company: Company,
    _way: Way,
    _server: Server,
    _runtime: Runtime,
}

impl Far {
    pub(super) fn new(away: Duration) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = Server::start_with(&config());
        let way = runtime.block_on(Way::before(server.port()));
        way.slow(64 << 10, away);
        Self {
            company: Company::new("direct", server.port(), way.port()),
            _way: way,
            _server: server,
            _runtime: runtime,
        }
    }

    /// Has them publish until something is late, for as long as anything may take.
    pub(super) fn until_late(&mut self) {
        self.company.go();
        let since = Instant::now();
        let is_late = |of: &Company| of.ledger().count(1).late > 0;
        while !is_late(&self.company) && since.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
        self.company.rest();
    }
}

/// What the broker is told: it has as many messages on their way to a client as a client takes.
fn config() -> String {
    format!("allow_anonymous true\nmax_inflight_messages {WINDOW}")
}

/// A proxy that is started again whenever it ends, as by systemd.
struct Post {
    port: u16,
    said: PathBuf,
    child: Arc<Mutex<Option<Child>>>,
    is_over: Arc<Mutex<bool>>,
}

impl Post {
    fn new(rig: &Rig, person: &Person, name: &str, does: &str, upstream: u16) -> Self {
        let port = free_port();
        let config = format!(
            "listen = \"127.0.0.1:{port}\"\nupstream = \"mqtt://127.0.0.1:{upstream}\"\n\n\
             [[rule]]\ntopics = \"plant/sealed/#\"\nstream = \"s\"\ndo = \"{does}\"\n"
        );
        let config = rig.file(&format!("{name}.toml"), config.as_bytes());
        let said = rig.path().join(format!("{name}.log"));
        File::create(&said).unwrap();
        let (child, is_over) = (Arc::default(), Arc::new(Mutex::new(false)));
        let post = Self {
            port,
            said: said.clone(),
            child: Arc::clone(&child),
            is_over: Arc::clone(&is_over),
        };
        let person = person.clone();
        thread::spawn(move || {
            loop {
                let over = is_over.lock().unwrap();
                if *over {
                    return;
                }
                let log = fs::OpenOptions::new().append(true).open(&said).unwrap();
                let mut command = person.command(&["proxy", "mqtt", &config]);
                command.stdout(Stdio::null()).stderr(log);
                *child.lock().unwrap() = Some(command.spawn().unwrap());
                drop(over);
                while child
                    .lock()
                    .unwrap()
                    .as_mut()
                    .unwrap()
                    .try_wait()
                    .unwrap()
                    .is_none()
                {
                    thread::sleep(LOOK);
                }
            }
        });
        post
    }

    fn kill(&self) {
        if let Some(child) = &mut *self.child.lock().unwrap()
            && child.try_wait().unwrap().is_none()
        {
            kill_process(Pid::from_child(child), Signal::KILL).unwrap();
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        *self.is_over.lock().unwrap() = true;
        if let Some(child) = &mut *self.child.lock().unwrap() {
            let _is_killed = child.kill().is_ok() && child.wait().is_ok();
        }
    }
}

/// Those who publish and those who receive, by one way or the other.
pub(super) struct Company {
    publishers: Crew,
    _subscribers: Crew,
    ledger: Arc<Mutex<Ledger>>,
}

impl Company {
    fn new(name: &str, publishing: u16, receiving: u16) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let subscribers = Crew::start(["subscribe", &receiving.to_string(), name], &ledger);
        subscribers.ready();
        let publishers = Crew::start(["publish", &publishing.to_string(), name], &ledger);
        Self {
            publishers,
            _subscribers: subscribers,
            ledger,
        }
    }

    pub(super) fn go(&mut self) {
        self.publishers.tell("go");
    }

    /// Has them publish nothing more, and waits until all that was acknowledged has arrived, or nothing comes any more.
    pub(super) fn rest(&mut self) {
        for order in ["rest", "more"] {
            self.publishers.tell(order);
            self.publishers.ready();
            let since = Instant::now();
            while !self.ledger.lock().unwrap().is_complete() && since.elapsed() < PATIENCE {
                thread::sleep(LOOK);
            }
        }
    }

    pub(super) fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

/// A program of clients.
struct Crew {
    child: Child,
    orders: ChildStdin,
    news: Receiver<()>,
}

impl Crew {
    fn start(args: [&str; 3], ledger: &Arc<Mutex<Ledger>>) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/relays/clients.py");
        let mut command = Command::new(sealcast_brokers::PYTHON);
        command.arg(script).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, news) = channel();
        let ledger = Arc::clone(ledger);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if !ledger.lock().unwrap().note(&line) && !is_told(&sender) {
                    return;
                }
            }
        });
        Self {
            child,
            orders,
            news,
        }
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn ready(&self) {
        let ready = self.news.recv_timeout(PATIENCE);
        ready.expect("clients come to an end of what they were told");
    }
}

fn is_told(sender: &Sender<()>) -> bool {
    sender.send(()).is_ok()
}

impl Drop for Crew {
    fn drop(&mut self) {
        let _is_killed = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}
