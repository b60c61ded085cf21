//! The two machines of one who lacks keys: key nodes are asked first, others for what they do not give.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealcast_engine::{
    Asker, AskerInput, AskerOutput, Combiner, CombinerEvent, CombinerInput, CombinerLimits,
    CombinerOutput, FalseRecords, Released,
};
use sealcast_protocol::{DeviceId, Interval, NodeRequest, SessionId, UserId, Verified, Want, sign};

use super::AskingOptions;
use super::asker::{Input, draw, interval_around};
use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;

/// What is remembered of what somebody waits for, at most. What is lost is told again when it is missed
/// again.
const TOLD_MAX: usize = 16_384;

pub(super) struct Machines {
    asker: Asker,
    combiner: Combiner,
    /// What somebody asks for, whatever the access log says, and key nodes have not given up.
    explicit: BTreeSet<Want>,
    /// What key nodes alone are asked for.
    unlocks: BTreeSet<Want>,
    left: VecDeque<Want>,
}

/// What is to be done.
pub(super) enum Out {
    Asker(AskerOutput),
    Nodes(NodesOutput),
    /// Key nodes are done with it, and nobody else is to be asked.
    Left(Want),
}

/// What is to be done about key nodes.
pub(super) enum NodesOutput {
    Draw,
    Sign(Box<NodeRequest>),
    Send(Box<Verified<NodeRequest>>, Vec<DeviceId>),
    Take(Released),
    Reread(FalseRecords),
    Tell(CombinerEvent),
}

impl Machines {
    pub(super) fn new(options: &AskingOptions) -> Self {
        Self {
            asker: Asker::new(options.limits()),
            combiner: Combiner::new(options.node_limits()),
            explicit: BTreeSet::new(),
            unlocks: BTreeSet::new(),
            left: VecDeque::new(),
        }
    }

    pub(super) fn has_wants(&self) -> bool {
        self.asker.wants() > 0 || self.combiner.open_requests() > 0
    }

    pub(super) fn open_requests(&self) -> usize {
        self.asker.open_requests() + self.combiner.open_requests()
    }

    pub(super) fn next_timeout(&self) -> Option<sealcast_protocol::Position> {
        let both = [self.asker.next_timeout(), self.combiner.next_timeout()];
        both.into_iter().flatten().min()
    }

    pub(super) fn hand_in(&mut self, core: &Core, input: Input) {
        let now = core.now();
        match input {
            Input::Want(want) => {
                if self.ask_nodes(core, want) {
                    self.explicit.insert(want);
                } else {
                    self.asker.handle(now, &core.view(), AskerInput::Want(want));
                }
            }
            Input::Unwant(want) => {
                self.explicit.remove(&want);
                self.asker
                    .handle(now, &core.view(), AskerInput::Unwant(want));
            }
            Input::Unlock(want) => match self.ask_nodes(core, want) {
                true => drop(self.unlocks.insert(want)),
                false => self.left.push_back(want),
            },
            Input::Missing(missing) => self.miss(core, missing),
            Input::Opened(session, position) => {
                let opened = AskerInput::Opened { session, position };
                self.asker.handle(now, &core.view(), opened);
            }
            Input::Draw => {
                let drawn = AskerInput::Drawn(draw());
                self.asker.handle(now, &core.view(), drawn);
            }
            Input::DrawForNodes => {
                let drawn = CombinerInput::Drawn(draw());
                self.combiner.handle(now, &core.view(), drawn);
            }
            Input::Signed(asked) => {
                let signed = CombinerInput::Signed(asked);
                self.combiner.handle(now, &core.view(), signed);
            }
            Input::InboxItems(items) => {
                for item in items {
                    let view = core.view();
                    let nodes = CombinerInput::InboxItem(&item.payload);
                    self.combiner.handle(now, &view, nodes);
                    let others = AskerInput::InboxItem(&item.payload);
                    self.asker.handle(now, &view, others);
                }
            }
            Input::Reread => {
                self.combiner
                    .handle(now, &core.view(), CombinerInput::Reread);
            }
            Input::Tick => {
                self.combiner.handle(now, &core.view(), CombinerInput::Tick);
                self.asker.handle(now, &core.view(), AskerInput::Tick);
            }
        }
    }

    /// Asks key nodes, where the stream has them; false where it has none, or where no session is named.
    fn ask_nodes(&mut self, core: &Core, want: Want) -> bool {
        let view = core.view();
        let has_room = self.explicit.len().max(self.unlocks.len()) < TOLD_MAX;
        let is_for_nodes =
            view.state().key_nodes().is_some() && want.session != Want::EVERY_SESSION && has_room;
        if is_for_nodes {
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
            self.combiner.handle(core.now(), &view, missing);
        }
        is_for_nodes
    }

    /// Tells of what is missing, to those who ask others once for each thing that would be asked for.
    fn miss(&mut self, core: &Core, missing: VecDeque<Want>) {
        let mut told = BTreeMap::<(UserId, SessionId), Vec<Interval>>::new();
        for want in missing {
            if self.ask_nodes(core, want) {
                continue;
            }
            let (lane, session, interval) = (want.lane, want.session, want.interval);
            let told = told.entry((lane, session)).or_default();
            if told.iter().any(|of| of.covers(&interval)) {
                continue;
            }
            let view = core.view();
            let (me, device) = view.me();
            let readable = view.state().readable(&me, &device, &lane);
            told.extend(interval_around(&readable, interval.from));
            let missing = AskerInput::Missing {
                lane,
                session,
                interval,
            };
            self.asker.handle(core.now(), &view, missing);
        }
    }

    /// The next thing to do. What key nodes do not give goes on to those who ask others.
    pub(super) fn poll_output(&mut self, core: &Core) -> Option<Out> {
        while let Some(output) = self.combiner.poll_output() {
            match output {
                CombinerOutput::Draw => return Some(Out::Nodes(NodesOutput::Draw)),
                CombinerOutput::Sign(body) => return Some(Out::Nodes(NodesOutput::Sign(body))),
                CombinerOutput::Send(asked, to) => {
                    return Some(Out::Nodes(NodesOutput::Send(asked, to)));
                }
                CombinerOutput::Take(released) => {
                    return Some(Out::Nodes(NodesOutput::Take(released)));
                }
                CombinerOutput::Reread(records) => {
                    return Some(Out::Nodes(NodesOutput::Reread(records)));
                }
                CombinerOutput::Done(want) => {
                    self.explicit.remove(&want);
                    self.settle_unlock(want);
                }
                CombinerOutput::Leave {
                    lane,
                    session,
                    interval,
                } => self.leave(
                    core,
                    Want {
                        lane,
                        session,
                        interval,
                    },
                ),
                CombinerOutput::Tell(event) => {
                    return Some(Out::Nodes(NodesOutput::Tell(event)));
                }
            }
        }
        if let Some(want) = self.left.pop_front() {
            return Some(Out::Left(want));
        }
        self.asker.poll_output().map(Out::Asker)
    }

    /// Tells whom key nodes alone were asked for that they are done with it; false where they were asked for others.
    fn settle_unlock(&mut self, want: Want) -> bool {
        let is_unlock = self.unlocks.remove(&want);
        self.left.extend(is_unlock.then_some(want));
        is_unlock
    }

    fn leave(&mut self, core: &Core, want: Want) {
        if self.settle_unlock(want) {
            return;
        }
        let (lane, session, interval) = (want.lane, want.session, want.interval);
        let input = match self.explicit.remove(&want) {
            true => AskerInput::Want(want),
            false => AskerInput::Missing {
                lane,
                session,
                interval,
            },
        };
        self.asker.handle(core.now(), &core.view(), input);
    }
}

impl AskingOptions {
    fn node_limits(&self) -> CombinerLimits {
        let timeout_ms = self.key_request_timeout.as_millis();
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(u64::MAX);
        let limits = CombinerLimits::default();
        CombinerLimits {
            node_timeout_ms: limits.node_timeout_ms.min(timeout_ms),
            key_request_timeout_ms: timeout_ms,
            max_key_requests_per_second: self.max_key_requests_per_second,
            ..limits
        }
    }
}

impl Core {
    pub(super) async fn sign_node_request(
        &self,
        body: NodeRequest,
    ) -> Result<Verified<NodeRequest>, Error> {
        let home = self.home.clone();
        let asked = off_thread(move || sign(home.identity.signing(), body)).await?;
        asked.map_err(|_| Error::Internal("a request to key nodes is odd"))
    }

    pub(super) async fn put_into_inbox(&self, device: DeviceId, wire: &[u8]) -> Result<(), Error> {
        let inbox = topic(&device.inbox_topic())?;
        self.bus.append(&inbox, Vec::from([wire.to_vec()])).await?;
        Ok(())
    }
}
