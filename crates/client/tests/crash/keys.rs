//! The test of the test: a message key that seals two plaintexts is found out.

use sealcast_crash::Sent;
use sealcast_crypto::SecretBytes;
use sealcast_engine::{ControlTopic, Identity, Lane, Publisher, StreamView, genesis};
use sealcast_protocol::{CardList, Draft, Position, SessionKind, Sharing};

/// Randomness that a restored machine draws again.
struct Same(u8);

impl rand_core::TryRng for Same {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from(self.0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from(self.0))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(self.0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Same {}

/// Seals two texts with the same lane, each in a process of its own that draws its instance so.
fn sealed_twice(first: u8, second: u8) -> Sent {
    let now = Position(1_800_000_000_000);
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let identity = Identity::generate(&mut rng);
    let mut list = CardList::new(identity.user());
    let card = list
        .append(identity.root().unwrap(), now, identity.card(now))
        .unwrap();
    let (stream, entry) = genesis(&identity, &mut rng, now, Sharing::Active, false).unwrap();
    let mut view = StreamView::new(stream, identity.user(), &identity);
    view.handle(&ControlTopic::Devices(identity.user()), card.wire());
    view.handle(
        &ControlTopic::Access(identity.user(), identity.device()),
        entry.wire(),
    );
    view.settle();
    let publisher = Publisher::new(stream, &identity, &mut rng);
    let new = publisher
        .start_session(&mut rng, now, now, SessionKind::Live, &view)
        .unwrap();
    let root = SecretBytes::from(new.root.expose().to_vec());
    view.restore_root(new.session, &root);
    view.handle(&ControlTopic::Keys, new.record.wire());
    view.settle();
    let lane = Lane {
        session: new.session,
        is_announced: true,
        ..Lane::default()
    };
    let mut sent = Sent::default();
    for (instance, text) in [(first, "one"), (second, "two")] {
        let mut publisher = Publisher::new(stream, &identity, &mut Same(instance));
        let draft = [Draft::Single(text.as_bytes())];
        let sealed = publisher
            .seal(now, &mut lane.clone(), &view, &draft)
            .unwrap();
        sent.add("data", &sealed.envelopes[0].bytes);
    }
    sent
}

#[test]
fn a_copied_lane_with_a_copied_instance_is_found_out_as_a_key_used_twice() {
    assert_eq!(sealed_twice(7, 7).reused().len(), 1);
}

#[test]
fn a_copied_lane_alone_uses_no_key_twice() {
    assert!(sealed_twice(7, 8).reused().is_empty());
    assert_eq!(sealed_twice(7, 8).count(), 2);
}

#[test]
fn the_check_takes_a_header_to_be_as_long_as_it_is() {
    let with = |at: usize| {
        let mut envelope = vec![1; sealcast_crypto::HEADER_LEN + 100];
        envelope[at] = 2;
        let mut sent = Sent::default();
        sent.add("data", &vec![1; envelope.len()]);
        sent.add("data", &envelope);
        sent.reused().len()
    };
    assert_eq!(with(sealcast_crypto::HEADER_LEN - 1), 0);
    assert_eq!(with(sealcast_crypto::HEADER_LEN), 1);
}
