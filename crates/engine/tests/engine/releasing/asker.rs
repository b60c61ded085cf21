//! Somebody who asks key nodes.

use sealcast_engine::{
    Combiner, CombinerEvent, CombinerInput, CombinerLimits, CombinerOutput, Event,
};
use sealcast_protocol::{Interval, KeyNode, NodeRequest, Verified, sign};

use super::rig::Net;

/// A device that asks key nodes.
pub(super) struct Asking {
    peer: usize,
    pub(super) combiner: Combiner,
    pub(super) told: String,
    pub(super) sent: Vec<Verified<NodeRequest>>,
    /// How much of what was missing key nodes are done with.
    pub(super) done: usize,
    pub(super) left: usize,
}

impl Asking {
    /// Begins with all that does not open.
    pub(super) fn new(net: &mut Net, peer: usize) -> Self {
        Self::with(CombinerLimits::default(), net, peer)
    }

    pub(super) fn with(limits: CombinerLimits, net: &mut Net, peer: usize) -> Self {
        let mut asking = Self {
            peer,
            combiner: Combiner::new(limits),
            told: String::new(),
            sent: Vec::new(),
            done: 0,
            left: 0,
        };
        asking.miss_all(net);
        asking
    }

    /// Tells of all that does not open.
    pub(super) fn miss_all(&mut self, net: &mut Net) {
        for event in net.world.events(self.peer, Interval::ALL) {
            if let Event::Sealed { header, user, .. } = event {
                let missing = CombinerInput::Missing {
                    lane: user,
                    session: header.session,
                    interval: Interval {
                        from: header.position,
                        until: header.position.after(1),
                    },
                };
                let view = &net.world.peers[self.peer].view;
                self.combiner.handle(net.world.now, view, missing);
            }
        }
        self.drain(net);
    }

    /// Lets the nodes do what there is to do, and takes in what they say; or waits.
    pub(super) fn step(&mut self, net: &mut Net) {
        net.run_nodes();
        let items = net.news_of(self.peer);
        if items.is_empty() {
            let at = self.combiner.next_timeout().unwrap();
            net.world.now = net.world.now.max(at);
        }
        let now = net.world.now;
        for item in &items {
            let view = &net.world.peers[self.peer].view;
            self.combiner
                .handle(now, view, CombinerInput::InboxItem(item));
        }
        let view = &net.world.peers[self.peer].view;
        self.combiner.handle(now, view, CombinerInput::Tick);
        self.drain(net);
    }

    /// Tells that time has passed.
    pub(super) fn tick(&mut self, net: &mut Net) {
        let view = &net.world.peers[self.peer].view;
        self.combiner
            .handle(net.world.now, view, CombinerInput::Tick);
        self.drain(net);
    }

    pub(super) fn drain(&mut self, net: &mut Net) {
        let mut rereads = false;
        loop {
            let now = net.world.now;
            let Some(output) = self.combiner.poll_output() else {
                if !std::mem::take(&mut rereads) {
                    break;
                }
                net.world.sync(self.peer);
                let view = &net.world.peers[self.peer].view;
                self.combiner.handle(now, view, CombinerInput::Reread);
                continue;
            };
            match output {
                CombinerOutput::Draw => {
                    let drawn = CombinerInput::Drawn(net.draw());
                    let view = &net.world.peers[self.peer].view;
                    self.combiner.handle(now, view, drawn);
                }
                CombinerOutput::Sign(body) => {
                    let of = &net.world.peers[self.peer];
                    let asked = sign(of.identity.signing(), *body).unwrap();
                    let signed = CombinerInput::Signed(Box::new(asked));
                    self.combiner.handle(now, &of.view, signed);
                }
                CombinerOutput::Send(asked, devices) => {
                    for device in devices {
                        net.world.put(&device.inbox_topic(), asked.wire());
                    }
                    self.sent.push(*asked);
                }
                CombinerOutput::Take(released) => {
                    net.world.peers[self.peer].view.take_released(released);
                }
                CombinerOutput::Reread(records) => {
                    net.world.peers[self.peer].view.forget_false(&records);
                    rereads = true;
                }
                CombinerOutput::Leave { .. } => {
                    self.told.push_str("left to others\n");
                    self.left += 1;
                }
                CombinerOutput::Done(_) => self.done += 1,
                CombinerOutput::Tell(event) => {
                    let line = self.line(net, event);
                    self.told.push_str(&line);
                }
            }
        }
    }

    fn line(&self, net: &Net, event: CombinerEvent) -> String {
        let number = |node: &KeyNode| {
            let mut nodes = 0..net.nodes.len();
            nodes.find(|at| net.key_node(*at) == *node).unwrap() + 1
        };
        match event {
            CombinerEvent::Asked { nodes, segments } => {
                format!("asked {nodes} nodes for {segments} segments\n")
            }
            CombinerEvent::Liar(node) => format!("node {} lies\n", number(&node)),
            CombinerEvent::Refused(node, reason) => {
                format!("node {} refuses: {reason:?}\n", number(&node))
            }
            CombinerEvent::Awaited(at) => format!("awaited {}\n", at.0),
            CombinerEvent::Released { segments, .. } => format!("{segments} segments\n"),
            // Tests are about what comes of it.
            CombinerEvent::Silent(_) => String::new(),
            CombinerEvent::Failed { why, .. } => format!("failed: {why:?}\n"),
            _ => unreachable!(),
        }
    }
}
