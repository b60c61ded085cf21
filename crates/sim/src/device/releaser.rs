//! Being a key node: what drives the engine's releaser, and what one does that lies.

use std::collections::VecDeque;

use sealcast_engine::{
    ControlTopic, Releaser, ReleaserInput, ReleaserLimits, ReleaserOutput, answer_request,
};
use sealcast_protocol::{
    AuditChain, AuditEntry, KeyNode, NodeRefusal, NodeRequest, UserId, Verified, sign,
};

use super::Acting;
use crate::around::Stop;
use crate::lies::{Liar, Lie, Told};
use crate::plant::Plant;
use crate::violation::Violation;

/// How long after it looked into its inbox a node looks again, where something is there, and how long it
/// waits behind what failed.
const LOOK_MS: u64 = 100;
const PAUSE_MS: u64 = 5_000;

/// What a key node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Honest,
    Liar,
}

/// What releases keys in the name of a device.
#[derive(Debug)]
pub(crate) struct Releasing {
    machine: Releaser,
    todo: VecDeque<ReleaserOutput>,
    inbox: String,
    inbox_at: u64,
    read_at: u64,
    ticked_at: u64,
    paused_until: Option<u64>,
    /// What was said last, for one that says it again.
    said: Option<Vec<u8>>,
    /// What is to be kept when the answer has left, for a planted fault.
    late: Vec<AuditEntry>,
}

impl Releasing {
    /// The topic that it reads.
    pub(crate) fn inbox(&self) -> &str {
        &self.inbox
    }

    /// When it has something to do, where so many items lie in its inbox.
    pub(crate) fn next_at(&self, skew_ms: i64, items: usize) -> Option<u64> {
        if self.paused_until.is_some() {
            return self.paused_until;
        }
        let timeout = self.machine.next_timeout();
        let timeout = timeout.map(|at| at.0.saturating_add_signed(-skew_ms));
        let look = (self.inbox_at < items as u64).then_some(self.read_at + LOOK_MS);
        let next = timeout.into_iter().chain(look).min();
        next.map(|at| at.max(self.ticked_at + 1))
    }
}

impl Acting<'_> {
    pub(super) fn as_node(&self) -> KeyNode {
        let (user, device) = self.device.who();
        KeyNode { user, device }
    }

    /// Takes up where the audit ends, on a device that is a node.
    pub(super) fn begin_releasing(&mut self) -> Result<(), Stop> {
        if self.device.node.is_none() {
            return Ok(());
        }
        let mut chain = AuditChain::new(self.around.stream, self.as_node());
        let mut kept = Vec::new();
        let key = self.device.identity.signing().verifying_key();
        for wire in self.device.home.audit()? {
            let entry = chain.take(&wire, &key);
            let entry = entry.map_err(|_| Violation::Odd("an audit that does not hold"))?;
            kept.push(entry.body().clone());
        }
        if self.around.plant == Some(Plant::ForgetAudit) {
            kept.clear();
        }
        let inbox = self.device.identity.device().inbox_topic();
        self.run.releasing = Some(Releasing {
            machine: Releaser::new(ReleaserLimits::default(), self.now(), chain, kept),
            todo: VecDeque::new(),
            inbox_at: 0,
            read_at: 0,
            ticked_at: 0,
            paused_until: None,
            said: None,
            late: Vec::new(),
            inbox,
        });
        self.go_on_releasing()
    }

    /// Time has passed, or something lies in the inbox.
    pub(crate) fn tick_releasing(&mut self) -> Result<(), Stop> {
        let now = self.around.now;
        let Some(of) = &mut self.run.releasing else {
            return Ok(());
        };
        (of.ticked_at, of.paused_until) = (now, None);
        let (inbox, at) = (of.inbox.clone(), of.inbox_at);
        let read = self.read_requests(&inbox, at);
        self.release_with(ReleaserInput::Tick);
        match read.and_then(|()| self.go_on_releasing()) {
            Err(Stop::Unreachable | Stop::Refused(_)) => {
                if let Some(of) = &mut self.run.releasing {
                    of.paused_until = Some(now + PAUSE_MS);
                }
                Ok(())
            }
            done => done,
        }
    }

    fn read_requests(&mut self, inbox: &str, at: u64) -> Result<(), Stop> {
        if let Some(of) = &mut self.run.releasing {
            of.read_at = self.around.now;
        }
        for item in self.around.read(self.device.at, inbox, at, usize::MAX)? {
            self.release_with(ReleaserInput::Item(&item.bytes));
            if let Some(of) = &mut self.run.releasing {
                of.inbox_at = item.offset + 1;
            }
        }
        Ok(())
    }

    /// Hands something in, and notes what is to be done about it.
    fn release_with(&mut self, input: ReleaserInput<'_>) {
        let (now, run) = (self.now(), &mut *self.run);
        if let Some(of) = &mut run.releasing {
            of.machine.handle(now, &run.view, input);
        }
    }

    fn go_on_releasing(&mut self) -> Result<(), Stop> {
        loop {
            let Some(of) = &mut self.run.releasing else {
                return Ok(());
            };
            of.todo
                .extend(std::iter::from_fn(|| of.machine.poll_output()));
            let Some(output) = of.todo.pop_front() else {
                return Ok(());
            };
            if let Err(stop) = self.release_step(&output) {
                if let Some(of) = &mut self.run.releasing {
                    of.todo.push_front(output);
                }
                return Err(stop);
            }
        }
    }

    fn release_step(&mut self, output: &ReleaserOutput) -> Result<(), Stop> {
        match output {
            ReleaserOutput::ReadLog => {
                if self.around.plant != Some(Plant::StaleLog) {
                    self.sync()?;
                }
                let is_whole = self.run.lost.is_empty();
                self.release_with(ReleaserInput::LogRead { is_whole });
                Ok(())
            }
            ReleaserOutput::ReadList(user) => self.read_list_for_release(*user),
            ReleaserOutput::Keep(entry) => self.keep_audit(entry),
            ReleaserOutput::Release(asked) => {
                match self.device.node {
                    Some(Nature::Liar) => self.lie(asked)?,
                    Some(Nature::Honest) | None => self.release_keys(asked)?,
                }
                let of = self.run.releasing.as_mut();
                let late = of.map(|of| std::mem::take(&mut of.late));
                late.iter()
                    .flatten()
                    .try_for_each(|entry| self.put_audit(entry))
            }
            ReleaserOutput::Refuse(refusal, _) => self.refuse(refusal),
        }
    }

    fn read_list_for_release(&mut self, user: UserId) -> Result<(), Stop> {
        let of = ControlTopic::Devices(user);
        let name = of.name(self.around.stream);
        for item in self.around.read(self.device.at, &name, 0, usize::MAX)? {
            self.run.view.handle(&of, &item.bytes);
        }
        self.run.view.settle();
        self.release_with(ReleaserInput::Learned);
        Ok(())
    }

    fn keep_audit(&mut self, entry: &AuditEntry) -> Result<(), Stop> {
        let of = self.run.releasing.as_mut();
        if let Some(of) = of.filter(|_| self.around.plant == Some(Plant::AnswerFirst)) {
            of.late.push(entry.clone());
            return Ok(());
        }
        self.invariant_refused_for_a_reason(entry)?;
        self.put_audit(entry)
    }

    fn put_audit(&mut self, entry: &AuditEntry) -> Result<(), Stop> {
        self.effect("keep an audit entry")?;
        let signed = sign(self.device.identity.signing(), entry.clone());
        let signed = signed.map_err(|_| Violation::Odd("an audit entry"))?;
        match self.device.home.put_audit(entry.seq, signed.wire())? {
            true => Ok(()),
            false => Err(Violation::Odd("two audit entries with one number").into()),
        }
    }

    fn release_keys(&mut self, asked: &Verified<NodeRequest>) -> Result<(), Stop> {
        self.invariant_released_by_right(asked.body())?;
        let (view, identity) = (&self.run.view, &self.device.identity);
        let answer = answer_request(view, identity, &mut self.around.rng, asked);
        let Some(answer) = answer else {
            return Ok(());
        };
        let inbox = asked.body().device.inbox_topic();
        let wire = answer.wire().to_vec();
        self.around.append(self.device.at, &inbox, &[wire])?;
        self.around.count_asking("released by a node");
        self.note(format_args!(
            "releases {} segments to {}",
            asked.body().segments.len(),
            asked.body().device
        ));
        let me = self.as_node();
        match self.around.ground.said.released(me, asked.body()) {
            true => Ok(()),
            false => Err(self.wrongly("to one request twice")),
        }
    }

    /// Whoever lies does as the others do up to here, and then says something else.
    fn lie(&mut self, asked: &Verified<NodeRequest>) -> Result<(), Stop> {
        let lie = Lie::draw(self.around);
        let by = self.device.at;
        self.around.fault(lie.name(), format_args!("by d{by}"));
        let Some(share) = self.run.view.share(&asked.body().deal) else {
            return Ok(());
        };
        let (node, index) = (self.as_node(), share.index().get());
        let key = self.device.identity.signing();
        let says = Liar { node, share, key }.says(self.around, asked, lie);
        let before = self.run.releasing.as_ref();
        let before = before.and_then(|of| of.said.clone());
        let says = says.or_else(|| before.filter(|_| lie == Lie::Replay));
        let Some(wire) = says else {
            return Ok(());
        };
        let told = Told {
            lie,
            node,
            index,
            request: asked.body().request,
        };
        if lie != Lie::Replay {
            self.around.ground.said.lied(&wire, told);
        }
        if let Some(of) = &mut self.run.releasing {
            of.said = Some(wire.clone());
        }
        let inbox = asked.body().device.inbox_topic();
        self.around.append(self.device.at, &inbox, &[wire])
    }

    fn refuse(&mut self, refusal: &NodeRefusal) -> Result<(), Stop> {
        let inbox = refusal.to.asker.inbox_topic();
        let signed = sign(self.device.identity.signing(), refusal.clone());
        let signed = signed.map_err(|_| Violation::Odd("a refusal of a node"))?;
        self.around
            .append(self.device.at, &inbox, &[signed.wire().to_vec()])?;
        self.around.count_asking("refused by a node");
        self.note(format_args!("refuses: {:?}", refusal.reason));
        Ok(())
    }
}
