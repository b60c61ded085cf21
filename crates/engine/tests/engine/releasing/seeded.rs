//! Nodes that are stopped, put back, lied to and liars themselves, as a seed has it: nobody opens what is not
//! theirs, and who is entitled opens it when the faults are over.

use std::collections::BTreeMap;

use rand_core::Rng as _;
use sealcast_crypto::NodeIndex;
use sealcast_protocol::{NodeRequest, SessionId, Verified};

use super::rig::{Asking, Net};
use crate::rig::OWNER;
use crate::rng::Seeded;

/// What may befall a node that is not honest.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Stops,
    StartsAgain,
    /// Its bus shows what it showed a while ago.
    SeesThePast,
    /// Its store is put back to what it was then.
    IsPutBack,
    Lies,
    /// What was asked of it comes once more.
    HearsAgain,
}

const FAULTS: [Fault; 6] = [
    Fault::Stops,
    Fault::StartsAgain,
    Fault::SeesThePast,
    Fault::IsPutBack,
    Fault::Lies,
    Fault::HearsAgain,
];
const THRESHOLD: usize = 3;
const NODES: usize = 5;
const STEPS: usize = 24;

struct Scene {
    net: Net,
    rng: Seeded,
    /// The bus and the nodes' stores as they were before anybody was let in or taken out.
    past: Option<super::rig::Past>,
    readers: Vec<usize>,
    revoked: Vec<usize>,
    texts: Vec<String>,
    asked: Vec<Vec<u8>>,
    /// What readers last asked for of each session.
    caught: BTreeMap<SessionId, Verified<NodeRequest>>,
    met: BTreeMap<&'static str, usize>,
    /// Requests that those forged who are out.
    forged: usize,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut net = Net::new(THRESHOLD as u8, NODES);
        net.publish(&["first"]);
        net.run_nodes();
        Self {
            net,
            rng: Seeded::new(seed),
            past: None,
            readers: Vec::new(),
            revoked: Vec::new(),
            texts: vec!["first".to_owned()],
            asked: Vec::new(),
            caught: BTreeMap::new(),
            met: BTreeMap::new(),
            forged: 0,
        }
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.next_u64() % count as u64).unwrap()
    }

    fn step(&mut self, number: usize) {
        self.net.world.tick(20_000);
        match self.below(6) {
            0 => {
                let text = format!("text {number}");
                self.net.publish(&[&text]);
                self.texts.push(text);
            }
            1 => {
                let reader = self.net.reader_of_all();
                self.readers.push(reader);
            }
            2 if self.readers.len() > 1 => {
                let at = self.below(self.readers.len());
                let out = self.readers.swap_remove(at);
                self.net.world.revoke_user(OWNER, out).unwrap();
                self.revoked.push(out);
                // Each node that is there takes notice before something new is sealed.
                self.net.run_nodes();
                let text = format!("after {number}");
                self.net.publish(&[&text]);
                self.texts.push(text);
            }
            3 => {
                self.past.get_or_insert(self.net.past());
            }
            4 => {
                let fault = FAULTS[self.below(FAULTS.len())];
                // So many are not honest that too few of them are left to open anything by themselves.
                let node = self.below(THRESHOLD - 1);
                self.befall(node, fault);
            }
            _ => self.read(),
        }
        self.nobody_opens_what_came_after();
    }

    fn befall(&mut self, at: usize, fault: Fault) {
        *self.met.entry(name(fault)).or_default() += 1;
        match fault {
            Fault::Stops => self.net.nodes[at].is_up = false,
            Fault::StartsAgain => {
                self.net.nodes[at].is_up = true;
                self.net.restart(at);
            }
            Fault::SeesThePast => self.net.nodes[at].sees = self.past.clone(),
            Fault::IsPutBack => {
                if let Some(past) = &self.past {
                    self.net.put_back(at, past);
                }
            }
            Fault::Lies => self.net.nodes[at].lies = true,
            Fault::HearsAgain => {
                for wire in self.asked.clone() {
                    let peer = self.net.nodes[at].peer;
                    self.net.put_in_inbox(peer, &wire);
                }
                self.net.run_nodes();
            }
        }
    }

    /// Somebody asks, whoever may or not.
    fn read(&mut self) {
        let all: Vec<_> = self.readers.iter().chain(&self.revoked).copied().collect();
        if all.is_empty() {
            return;
        }
        let reader = all[self.below(all.len())];
        self.ask(reader);
        if self.revoked.contains(&reader) {
            self.force(reader);
        }
    }

    /// As an honest program does.
    fn ask(&mut self, reader: usize) {
        let mut asking = Asking::new(&mut self.net, reader);
        while asking.combiner.open_requests() > 0 {
            asking.step(&mut self.net);
        }
        for asked in asking.sent {
            self.asked.push(asked.wire().to_vec());
            self.caught.insert(asked.body().session, asked);
        }
    }

    /// One who is out asks all nodes for whatever others asked for, past its own log: those that are honest give it
    /// nothing, and so it has too little of everything.
    fn force(&mut self, out: usize) {
        let is_honest = |index: NodeIndex| usize::from(index.get()) >= THRESHOLD;
        for caught in self.caught.clone().values() {
            let forged = self.net.forge(out, caught, |of| of.heads.clear());
            let gave: Vec<_> = forged.answers().iter().map(|(of, _)| *of).collect();
            assert!(!gave.iter().any(|of| is_honest(*of)), "{gave:?} gave {out}");
            assert_eq!(forged.opened(&self.net), 0);
            self.forged += 1;
        }
    }

    /// One who is in gets by the same requests all that there is.
    fn force_as(&mut self, reader: usize) {
        for caught in self.caught.clone().values() {
            let forged = self.net.forge(reader, caught, |of| of.heads.clear());
            let whole = caught.body().segments.len();
            assert_eq!(forged.opened(&self.net), whole, "reader {reader}");
        }
    }

    fn nobody_opens_what_came_after(&mut self) {
        for reader in self.revoked.clone() {
            let opened = self.net.world.opened(reader);
            let late = opened.iter().find(|of| of.starts_with("after"));
            let mine = late.map(|of| self.is_after_its_end(reader, of));
            assert_ne!(mine, Some(true), "{opened:?}");
        }
    }

    /// Whether a text was sealed when this reader was out already: it never opened it then.
    fn is_after_its_end(&self, reader: usize, text: &str) -> bool {
        let last = self.revoked.iter().position(|of| *of == reader).unwrap();
        let mut texts = self.texts.iter().filter(|of| of.starts_with("after"));
        texts.position(|of| of == text).unwrap() >= last
    }

    /// The faults are over: every reader opens all, and nobody else more than before.
    fn end(mut self) -> (BTreeMap<&'static str, usize>, usize) {
        for at in 0..NODES {
            let node = &mut self.net.nodes[at];
            (node.is_up, node.lies, node.sees) = (true, false, None);
            self.net.restart(at);
        }
        self.net.world.tick(3_600_000);
        for reader in self.readers.clone() {
            self.ask(reader);
            let opened = self.net.world.opened(reader);
            assert_eq!(opened, self.texts, "reader {reader}");
        }
        for out in self.revoked.clone() {
            self.force(out);
        }
        self.nobody_opens_what_came_after();
        if let Some(reader) = self.readers.first().copied() {
            self.force_as(reader);
        }
        (self.met, self.forged)
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Stops => "stops",
        Fault::StartsAgain => "starts again",
        Fault::SeesThePast => "sees the past",
        Fault::IsPutBack => "is put back",
        Fault::Lies => "lies",
        Fault::HearsAgain => "hears again",
    }
}

#[test]
fn whatever_befalls_too_few_nodes_gives_nothing_away_and_keeps_nobody_out() {
    let (mut met, mut forged) = (BTreeMap::<_, usize>::new(), 0);
    for seed in 0..16 {
        let mut scene = Scene::new(seed);
        for number in 0..STEPS {
            scene.step(number);
        }
        let (faults, tried) = scene.end();
        for (fault, count) in faults {
            *met.entry(fault).or_default() += count;
        }
        forged += tried;
    }
    assert_eq!(met.len(), FAULTS.len(), "{met:?}");
    assert!(forged > 0);
}
