//! A new device and what it is told, by another program than this one.

use std::time::Duration;

use sealcast::{InitOptions, Joined, Joining, Passphrase};
use sealcast_bus::{Bus as _, Topic};
use sealcast_engine::{Identity, consented_card};
use sealcast_protocol::{
    CardList, ListBody, ListBytes, PairingCode, PairingItem, Position, StreamId, Ticket, Welcome,
    WelcomeStream, sign, wrap_welcome,
};

use crate::rig::{Rig, name};

const NOW: Position = Position(1_790_000_000_000);

fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// The welcome of a user's first device to the one that left these items, with these tickets.
fn welcome(
    of: &Identity,
    code: PairingCode,
    items: &[PairingItem],
    tickets: &[Ticket],
) -> PairingItem {
    let request = code.request(items).unwrap();
    let card = consented_card(&of.user(), request, items, Position::END).unwrap();
    let mut list = CardList::new(of.user());
    let root = of.root().unwrap();
    let entries = [of.card(NOW), ListBody::Card(card.clone().into())].map(|body| {
        let entry = list.append(root, NOW, body).unwrap();
        ListBytes(entry.wire().to_vec())
    });
    let streams = tickets.iter().map(|ticket| WelcomeStream {
        name: ticket.name().clone(),
        ticket: ticket.to_string(),
    });
    let welcome = Welcome {
        version: 1,
        user: of.user(),
        giver: of.device(),
        device: card.device,
        name: String::new(),
        list: entries.to_vec(),
        streams: streams.collect(),
        contacts: Vec::new(),
        devices: Vec::new(),
    };
    let welcome = sign(of.signing(), welcome).unwrap();
    wrap_welcome(&mut rng(), &welcome, request).unwrap()
}

/// The first device may know buses that this program does not.
#[tokio::test]
async fn a_new_device_does_without_streams_on_buses_that_it_does_not_know() {
    let rig = Rig::small();
    let first = Identity::generate(&mut rng());
    let options = InitOptions {
        name: None,
        bus: Some(rig.bus_url()),
        passphrase: Passphrase::None,
    };
    let folder = rig.path("phone");
    let mut joining = Joining::begin(&folder, options, Some(first.user()))
        .await
        .unwrap();
    joining.join(Duration::ZERO).await.unwrap();
    let code = joining.code();
    let items = rig.items(&code.topic()).await;
    let items: Vec<_> = items.iter().map(|item| code.open(item).unwrap()).collect();
    let ticket = |bus: &str, called: &str| {
        let id = StreamId([called.len() as u8; 32]);
        Ticket::new(bus, id, first.user(), name(called)).unwrap()
    };
    let tickets = [
        ticket(&rig.bus_url().to_string(), "here"),
        ticket("carrier-pigeon:loft", "elsewhere"),
    ];
    let welcome = code.seal(&mut rng(), &welcome(&first, code, &items, &tickets));
    let topic = Topic::new(&code.topic()).unwrap();
    rig.bus().await.append(&topic, vec![welcome]).await.unwrap();
    let Joined::Done(phone) = joining.join(Duration::ZERO).await.unwrap() else {
        panic!("it was welcomed");
    };
    let names: Vec<_> = phone
        .streams()
        .unwrap()
        .into_iter()
        .map(|of| of.name)
        .collect();
    assert_eq!(names, [name("here")]);
}
