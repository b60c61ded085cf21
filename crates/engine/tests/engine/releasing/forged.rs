//! Requests that no honest asker makes, and what comes of them.

use sealcast_crypto::{NodeIndex, Quorum, SEALED_SEGMENT_LEN, SecretBytes, UnwrapKey};
use sealcast_engine::OneUse;
use sealcast_protocol::{
    AuditEvent, Deal, DealId, NodeAnswer, NodeRefusal, NodeRefusalReason, NodeRequest,
    SegmentRecords, Unverified, Verified,
};

use super::rig::Net;

/// What a device asked for itself, and what came.
pub(super) struct Forged {
    pub(super) asked: Verified<NodeRequest>,
    /// Unwraps the answers.
    pub(super) key: UnwrapKey,
    /// All that came into its inbox meanwhile.
    pub(super) items: Vec<Vec<u8>>,
}

impl Net {
    /// Has a device ask all nodes for what another one asked for, with a change: under its own name and signature,
    /// with a key of its own, whatever its log says that it may read.
    pub(super) fn forge(
        &mut self,
        peer: usize,
        caught: &Verified<NodeRequest>,
        change: impl FnOnce(&mut NodeRequest),
    ) -> Forged {
        self.world.sync(peer);
        self.inbox(peer);
        let OneUse { request, key } = self.draw();
        let nodes = u8::try_from(self.nodes.len()).unwrap();
        let asked = self.renewed(peer, caught, 0, |of| {
            of.request = request;
            of.key = key.wrap_key().as_bytes().to_vec();
            of.nodes = (1..=nodes).collect();
            change(of);
        });
        for at in 0..self.nodes.len() {
            self.put_in_inbox(self.nodes[at].peer, asked.wire());
        }
        self.run_nodes();
        let items = self.inbox(peer);
        Forged { asked, key, items }
    }
}

impl Forged {
    /// What nodes gave as reasons, the first one first.
    pub(super) fn refusals(&self) -> Vec<NodeRefusalReason> {
        let all = self.items.iter();
        let refusals = all.filter_map(|item| Unverified::<NodeRefusal>::decode(item).ok());
        let own = refusals.filter(|of| of.claims().to.answers(&self.asked));
        own.map(|of| of.claims().reason).collect()
    }

    /// What nodes released.
    pub(super) fn answers(&self) -> Vec<(NodeIndex, SecretBytes)> {
        let all = self.items.iter();
        let answers = all.filter_map(|item| Unverified::<NodeAnswer>::decode(item).ok());
        let own = answers.filter(|of| of.claims().to.answers(&self.asked));
        let opened = own.map(|of| {
            let answer = of.claims();
            let index = NodeIndex::new(answer.to.index).unwrap();
            (index, answer.open(&self.asked, &self.key).unwrap())
        });
        opened.collect()
    }

    /// How many of the records that are on the bus open with what nodes released.
    pub(super) fn opened(&self, net: &Net) -> usize {
        let asked = self.asked.body();
        let keys = net.world.keys().iter();
        let mut deals = keys
            .clone()
            .filter_map(|item| Unverified::<Deal>::decode(item).ok());
        let deal = deals.find(|of| DealId::from(of.digest()) == asked.deal);
        let dealing = deal.unwrap().claims().dealing().unwrap();
        let secret = dealing.commitments()[0];
        let records = keys.filter_map(|item| Unverified::<SegmentRecords>::decode(item).ok());
        let records = records.filter(|of| {
            let of = of.claims();
            of.session == asked.session && of.secret == secret
        });
        let records: Vec<_> = records.flat_map(|of| of.claims().records.clone()).collect();
        let sealed = asked.segments.iter().map(|segment| {
            let record = records.iter().find(|of| of.segment == *segment);
            record.map_or([0; SEALED_SEGMENT_LEN], |of| of.sealed)
        });
        let sealed: Vec<_> = sealed.collect();
        let mut quorum = Quorum::new(dealing, asked.labels());
        for (index, answer) in self.answers() {
            // Of a node that lies nothing is taken.
            let _ = quorum.take(index, answer.expose());
        }
        let opened = quorum.open(&sealed);
        opened.map_or(0, |of| of.keys.iter().flatten().count())
    }

    /// Sees to it that each node refused it for this reason, and kept an entry of that.
    pub(super) fn assert_refused(&self, net: &Net, reason: NodeRefusalReason) {
        assert_eq!(self.refusals(), vec![reason; net.nodes.len()]);
        assert_eq!(self.items.len(), net.nodes.len());
        assert_eq!(self.opened(net), 0);
        for node in &net.nodes {
            let event = &node.audit.last().unwrap().event;
            assert!(
                matches!(event, AuditEvent::Refused(_, why) if *why == reason),
                "{event:?}"
            );
            let digest = event.request().map(|of| of.asked);
            assert_eq!(digest, Some(*self.asked.digest().as_bytes()));
        }
    }
}
