//! Which topics a stream has, without a list of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use sealcast_bus::{Bus, Offset, Topic};
use sealcast_crypto::leaving_no_trace;
use sealcast_engine::{ControlTopic, Identity, StreamView};
use sealcast_protocol::{StreamTopics, Ticket};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::{Core, READ_BYTES, lock};
use crate::error::Error;
use crate::home::topic;

/// The order in which topics are copied: whatever an item rests on lies in a topic of a lower rank, or
/// of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    List,
    Chain,
    Keys,
    Data,
}

/// Who knows the topics.
#[derive(Debug)]
pub(super) enum Guide {
    /// A stream that a home has opened.
    Core(Arc<Core>),
    /// The stream of a ticket, as a bus shows it.
    Survey(Survey),
}

impl Guide {
    pub(super) fn topics(&self) -> Result<Vec<(Rank, Topic)>, Error> {
        let (stream, wanted) = match self {
            Self::Core(core) => (core.id(), core.view().wanted()),
            Self::Survey(survey) => (survey.ticket.stream(), survey.wanted()),
        };
        let control = wanted.iter().map(|of| {
            let rank = match of {
                ControlTopic::Devices(_) => Rank::List,
                ControlTopic::Access(..) => Rank::Chain,
                ControlTopic::Keys => Rank::Keys,
            };
            (rank, of.name(stream))
        });
        let all = control.chain([(Rank::Data, StreamTopics(stream).data())]);
        all.map(|(rank, name)| Ok((rank, topic(&name)?))).collect()
    }

    /// Looks whether there are more topics.
    pub(super) async fn learn(&self) -> Result<(), Error> {
        match self {
            Self::Core(core) => core.sync().await,
            Self::Survey(survey) => survey.read_on().await,
        }
    }

    /// Looks for more at once where what was copied from a topic may name some. A survey is taken
    /// when it is asked for, and not between.
    pub(super) async fn learn_of(&self, of: &Topic) -> Result<(), Error> {
        match self {
            Self::Core(core) if *of != core.data_topic()? => core.sync().await,
            Self::Core(_) | Self::Survey(_) => Ok(()),
        }
    }
}

/// Finds the topics of a stream from its ticket, by reading lists and chains until none names another
/// (`docs/decisions/0004-discovery-without-listing.md`). It is nobody, and holds no key.
#[derive(Debug)]
pub(super) struct Survey {
    ticket: Ticket,
    bus: Arc<dyn Bus>,
    view: Arc<Mutex<StreamView>>,
    places: tokio::sync::Mutex<BTreeMap<Topic, Offset>>,
}

impl Survey {
    pub(super) fn new(ticket: Ticket, bus: Arc<dyn Bus>) -> Self {
        let (stream, owner) = (ticket.stream(), ticket.owner());
        let view = leaving_no_trace(|| {
            let nobody = Identity::generate(&mut clock::rng());
            StreamView::new(stream, owner, &nobody)
        });
        Self {
            ticket,
            bus,
            view: Arc::new(Mutex::new(view)),
            places: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the bus has shown how the stream begins.
    pub(super) fn has_begun(&self) -> bool {
        lock(&self.view).state().has_begun()
    }

    fn wanted(&self) -> Vec<ControlTopic> {
        let view = lock(&self.view);
        let nobody = ControlTopic::Devices(view.me().0);
        let mut wanted = view.wanted();
        wanted.retain(|of| *of != nobody);
        wanted
    }

    pub(super) async fn read_on(&self) -> Result<(), Error> {
        let mut places = self.places.lock().await;
        let mut read = BTreeSet::new();
        loop {
            let logs = self.wanted().into_iter();
            let logs = logs.filter(|of| *of != ControlTopic::Keys);
            let new: Vec<_> = logs.filter(|of| !read.contains(of)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for of in new {
                self.read_topic(of, &mut places).await?;
                read.insert(of);
            }
        }
    }

    async fn read_topic(
        &self,
        of: ControlTopic,
        places: &mut BTreeMap<Topic, Offset>,
    ) -> Result<(), Error> {
        let on_bus = topic(&of.name(self.ticket.stream()))?;
        let end = self.bus.end(&on_bus).await?;
        let mut at = places.get(&on_bus).copied().unwrap_or_default();
        while at < end {
            let items = self.bus.read(&on_bus, at, READ_BYTES).await?;
            let Some(last) = items.last() else { break };
            at = Offset(last.offset.0.saturating_add(1));
            let view = self.view.clone();
            let taken = off_thread(move || {
                let mut view = lock(&view);
                items
                    .iter()
                    .for_each(|item| view.handle(&of, &item.payload));
                view.settle();
                // Nothing of it is kept.
                while view.poll_output().is_some() {}
            });
            taken.await?;
            places.insert(on_bus.clone(), at);
        }
        Ok(())
    }
}
