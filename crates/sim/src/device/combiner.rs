//! Asking key nodes: what drives the engine's combiner. What they do not give is asked of others.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{
    AskerInput, Combiner, CombinerEvent, CombinerInput, CombinerLimits, CombinerOutput,
};
use sealcast_protocol::{
    KeyNode, NodeAnswer, NodeRefusal, NodeReplyTo, NodeRequest, RequestId, Segment, SessionId,
    Unverified, Verified, Want, sign,
};

use super::Acting;
use super::asker::Todo;
use crate::around::Stop;
use crate::lies::{Lie, Told};
use crate::violation::Violation;

/// What asks key nodes in the name of a device.
#[derive(Debug)]
pub(super) struct Combining {
    pub(super) machine: Combiner,
    /// What is asked for whatever the log says, and key nodes have not given up.
    explicit: BTreeSet<Want>,
    /// Requests to which answers may still be taken.
    open: BTreeMap<RequestId, Open>,
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    segments: Vec<Segment>,
    /// Nodes that may speak, by their index.
    silent: BTreeSet<u8>,
    /// Nodes whose false peppers were taken.
    peppers: BTreeSet<KeyNode>,
}

impl Combining {
    pub(super) fn new() -> Self {
        Self {
            machine: Combiner::new(CombinerLimits::default()),
            explicit: BTreeSet::new(),
            open: BTreeMap::new(),
        }
    }

    /// Whether a request awaits a word of a node.
    fn awaits(&self, request: &RequestId, index: u8) -> bool {
        let open = self.open.get(request);
        open.is_some_and(|of| of.silent.contains(&index))
    }

    /// Who must be named when this many segments of a session have opened: those whose false peppers
    /// were among the answers that opened them.
    fn close(&mut self, session: SessionId, opened: usize) -> BTreeSet<KeyNode> {
        let (closed, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, of)| of.session == session);
        self.open = open;
        let first = closed.values().next().map(|of| of.segments.clone());
        let is_one =
            |of: &Open| of.segments.len() == opened && Some(&of.segments) == first.as_ref();
        match closed.values().all(is_one) {
            true => closed.into_values().flat_map(|of| of.peppers).collect(),
            false => BTreeSet::new(),
        }
    }
}

impl Acting<'_> {
    /// Asks key nodes, where the stream has them; false where it has none, or where no session is named.
    pub(super) fn ask_nodes(&mut self, want: Want, is_explicit: bool) -> bool {
        let is_for_nodes =
            self.run.view.state().key_nodes().is_some() && want.session != Want::EVERY_SESSION;
        if is_for_nodes {
            if is_explicit {
                self.run.asking.nodes.explicit.insert(want);
            }
            let Want {
                lane,
                session,
                interval,
            } = want;
            let missing = CombinerInput::Missing {
                lane,
                session,
                interval,
            };
            let _nothing_said = self.hand_to_nodes(missing);
        }
        is_for_nodes
    }

    /// Waits for something no more.
    pub(super) fn unwant_of_nodes(&mut self, want: &Want) {
        self.run.asking.nodes.explicit.remove(want);
    }

    /// Hands something in, and notes what is to be done about it. Returns what is told.
    pub(super) fn hand_to_nodes(&mut self, input: CombinerInput<'_>) -> Vec<CombinerEvent> {
        let (now, run) = (self.now(), &mut *self.run);
        let machine = &mut run.asking.nodes.machine;
        machine.handle(now, &run.view, input);
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
        let mut told = Vec::new();
        for output in outputs {
            match output {
                CombinerOutput::Tell(event) => told.push(event),
                CombinerOutput::Done(_) => (),
                CombinerOutput::Leave {
                    lane,
                    session,
                    interval,
                } => self.leave(Want {
                    lane,
                    session,
                    interval,
                }),
                output @ (CombinerOutput::Draw
                | CombinerOutput::Sign(_)
                | CombinerOutput::Send(..)
                | CombinerOutput::Take(_)
                | CombinerOutput::Reread(_)) => {
                    if let CombinerOutput::Send(asked, _) = &output {
                        self.note_asked(asked);
                    }
                    self.run.asking.todo.push_back(Todo::Nodes(output));
                }
            }
        }
        for event in &told {
            self.note_of_nodes(event);
        }
        told
    }

    /// What key nodes do not give is asked of others.
    fn leave(&mut self, want: Want) {
        let (lane, session, interval) = (want.lane, want.session, want.interval);
        let view = &self.run.view;
        let (records, deals) = (view.segment_records(&session), view.deals().count());
        self.note(format_args!(
            "leaves {session} to others: of it {records} records are held, and {deals} deals are known"
        ));
        let input = match self.run.asking.nodes.explicit.remove(&want) {
            true => AskerInput::Want(want),
            false => AskerInput::Missing {
                lane,
                session,
                interval,
            },
        };
        self.ask_others(input);
    }

    fn note_of_nodes(&mut self, event: &CombinerEvent) {
        self.note(format_args!("asking nodes: {event:?}"));
        let kind = match event {
            CombinerEvent::Asked { .. } => "request to nodes",
            CombinerEvent::Liar(_) => "lie that was named",
            CombinerEvent::Refused(..) => "refusal of a node that came",
            CombinerEvent::Released { .. } => "session that nodes opened",
            CombinerEvent::Failed { session, .. } => {
                let _nobody = self.run.asking.nodes.close(*session, 0);
                "session that nodes did not open"
            }
            CombinerEvent::Awaited(_) | CombinerEvent::Silent(_) | _ => return,
        };
        self.around.count_asking(kind);
    }

    /// Does one of the things that [`hand_to_nodes`](Self::hand_to_nodes) noted.
    pub(super) fn perform_for_nodes(&mut self, output: CombinerOutput) -> Result<(), Stop> {
        match output {
            CombinerOutput::Draw => {
                let ready = self.sync().and_then(|()| self.follow_inbox());
                if let Err(stop) = ready {
                    let draw = Todo::Nodes(CombinerOutput::Draw);
                    self.run.asking.todo.push_front(draw);
                    return Err(stop);
                }
                let drawn = self.draw();
                self.hand_to_nodes(CombinerInput::Drawn(drawn));
                Ok(())
            }
            CombinerOutput::Sign(body) => {
                let asked = sign(self.device.identity.signing(), *body);
                let asked = asked.map_err(|_| Violation::Odd("a request to nodes"))?;
                self.hand_to_nodes(CombinerInput::Signed(Box::new(asked)));
                Ok(())
            }
            CombinerOutput::Send(asked, devices) => {
                for device in devices {
                    let wire = asked.wire().to_vec();
                    self.around
                        .append(self.device.at, &device.inbox_topic(), &[wire])?;
                }
                Ok(())
            }
            CombinerOutput::Take(released) => {
                self.run.asking.todo.push_front(Todo::Keep);
                self.run.view.take_released(released);
                Ok(())
            }
            CombinerOutput::Reread(records) => {
                self.run.view.forget_false(&records);
                self.sync()?;
                self.hand_to_nodes(CombinerInput::Reread);
                Ok(())
            }
            CombinerOutput::Leave { .. } | CombinerOutput::Done(_) | CombinerOutput::Tell(_) => {
                Err(Violation::Odd("what was noted at once").into())
            }
        }
    }

    fn note_asked(&mut self, asked: &Verified<NodeRequest>) {
        let body = asked.body();
        let open = Open {
            session: body.session,
            segments: body.segments.clone(),
            silent: body.nodes.iter().copied().collect(),
            peppers: BTreeSet::new(),
        };
        self.run.asking.nodes.open.insert(body.request, open);
    }

    /// An item of the inbox came.
    ///
    /// Invariants: whoever lies so that it shows is named, and nobody else is.
    pub(super) fn hear_nodes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let lie = self.around.ground.said.lie(bytes);
        let nodes = &self.run.asking.nodes;
        let lie = lie.filter(|lie| nodes.awaits(&lie.request, lie.index) && lie.lie != Lie::Name);
        let told = self.hand_to_nodes(CombinerInput::InboxItem(bytes));
        let named: BTreeSet<_> = told.iter().filter_map(named).collect();
        self.note_spoken(bytes, lie);
        let mut due: BTreeSet<_> = lie
            .filter(|lie| lie.lie.is_certain())
            .map(|lie| lie.node)
            .into_iter()
            .collect();
        for event in &told {
            if let CombinerEvent::Released { session, segments } = event {
                due.append(&mut self.run.asking.nodes.close(*session, *segments));
            }
        }
        let device = self.device.at;
        if let Some(node) = due.difference(&named).next() {
            let node = node.device;
            return Err(Violation::LiarUnnamed { device, node }.into());
        }
        let said = &self.around.ground.said;
        match named.iter().find(|node| !said.is_liar(node)) {
            Some(node) => Err(Violation::HonestNamed {
                device,
                node: node.device,
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Notes whose word was taken, and which of them may be a lie that shows later.
    fn note_spoken(&mut self, bytes: &[u8], lie: Option<Told>) {
        let is_foreign = |told: Told| told.lie == Lie::Name;
        if self.around.ground.said.lie(bytes).is_some_and(is_foreign) {
            return;
        }
        let Some(to) = reply_to(bytes) else {
            return;
        };
        if let Some(open) = self.run.asking.nodes.open.get_mut(&to.request) {
            open.silent.remove(&to.index);
            let pepper = lie.filter(|of| of.lie == Lie::Pepper);
            open.peppers.extend(pepper.map(|of| of.node));
        }
    }
}

fn named(event: &CombinerEvent) -> Option<KeyNode> {
    if let CombinerEvent::Liar(node) = event {
        Some(*node)
    } else {
        None
    }
}

fn reply_to(bytes: &[u8]) -> Option<NodeReplyTo> {
    let answer = Unverified::<NodeAnswer>::decode(bytes);
    let refusal = Unverified::<NodeRefusal>::decode(bytes);
    let answer = answer.map(|of| of.claims().to).ok();
    answer.or_else(|| refusal.map(|of| of.claims().to).ok())
}
