//! A sensor publishes many small records, sealed in frames, and brings in what it measured before.
//!
//! Run it with `cargo run -p sealcast --example sensor`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use sealcast::{BusUrl, Home, InitOptions, Interval, Passphrase, Position, State, StreamOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = InitOptions {
        name: Some("boiler sensor".parse()?),
        bus: Some(BusUrl::file(&folder.path().join("bus"))?),
        passphrase: Passphrase::None,
    };
    let home = Home::init(&folder.path().join("sensor"), options).await?;
    let stream = home
        .create_stream(&"boiler".parse()?, StreamOptions::default())
        .await?;

    // What was measured before sealcast came: one reading a minute, for an hour until now.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let minute = |ago: u64| u64::try_from(now).map(|now| Position(now - ago * 60_000));
    let mut backfill = stream.backfill().await?;
    for ago in (1..=60).rev() {
        backfill
            .send(minute(ago)?, format!("{} C", 60 - ago / 10).as_bytes())
            .await?;
    }
    let before = backfill.finish().await?;

    // What is measured now: records wait at most 20 ms for others, then leave in one envelope.
    let mut publisher = stream.publisher().await?;
    for reading in 0..1_000 {
        publisher
            .send(format!("{}.{} C", 60 + reading % 3, reading % 10).as_bytes())
            .await?;
    }
    let live = publisher.finish().await?;
    println!(
        "{} records brought in, each in an envelope of its own",
        before.records
    );
    println!(
        "{} records published in {} envelopes",
        live.records, live.envelopes
    );

    let mut reader = stream.read(Interval::ALL).await?;
    let mut opened = 0;
    while let Some(delivery) = reader.next().await? {
        assert_eq!(delivery.state, State::Opened);
        opened += 1;
    }
    assert_eq!(opened, before.records + live.records);
    println!("{opened} records read back");
    Ok(())
}
