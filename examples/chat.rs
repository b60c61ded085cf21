//! Two people talk: a stream with two publishers, each with a lane of its own.
//!
//! Run it with `cargo run -p sealcast --example chat`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use sealcast::{
    Bound, BusUrl, GrantOptions, Home, InitOptions, Passphrase, Payload, Position, Roles, State,
    Stream, StreamOptions, Subscription, UserId,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let bus = BusUrl::file(&folder.path().join("bus"))?;
    let alice = Home::init(&folder.path().join("alice"), options("alice", &bus)?).await?;
    let bob = Home::init(&folder.path().join("bob"), options("bob", &bus)?).await?;

    let at_alice = alice
        .create_stream(&"tea".parse()?, StreamOptions::default())
        .await?;
    let at_bob = bob.join(at_alice.ticket(), None).await?;
    at_alice.grant(speaks_and_reads(bob.user())).await?;
    at_bob.sync().await?;

    let mut alice_hears = at_alice.subscribe(None).await?;
    let mut bob_hears = at_bob.subscribe(None).await?;
    say(&at_alice, "Tea?").await?;
    hear(&mut bob_hears, "Tea?").await?;
    say(&at_bob, "In five minutes.").await?;
    hear(&mut alice_hears, "Tea?").await?;
    hear(&mut alice_hears, "In five minutes.").await?;
    Ok(())
}

async fn say(stream: &Stream, text: &str) -> Result<(), Box<dyn Error>> {
    stream.publish(text.as_bytes()).await?;
    Ok(())
}

async fn hear(subscription: &mut Subscription, text: &str) -> Result<(), Box<dyn Error>> {
    let heard = subscription.next().await?;
    assert_eq!((heard.state, heard.reason), (State::Opened, None));
    let payload = String::from_utf8(heard.payload.map(Payload::into_vec).unwrap_or_default())?;
    println!(
        "{}: {payload}",
        heard
            .publisher
            .map(|user| user.to_string())
            .unwrap_or_default()
    );
    assert_eq!(payload, text);
    Ok(())
}

fn speaks_and_reads(user: UserId) -> GrantOptions {
    GrantOptions {
        user,
        roles: Roles::READER.with(Roles::PUBLISHER),
        from: Bound::Now,
        until: Bound::At(Position::END),
        reshare: false,
    }
}

fn options(name: &str, bus: &BusUrl) -> Result<InitOptions, Box<dyn Error>> {
    Ok(InitOptions {
        name: Some(name.parse()?),
        bus: Some(bus.clone()),
        passphrase: Passphrase::None,
    })
}
