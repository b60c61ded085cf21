//! A reader who comes late: the past is granted after the fact, and only that past opens.
//!
//! Run it with `cargo run -p sealcast --example late_reader`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use sealcast::{
    Bound, BusUrl, GrantOptions, Home, InitOptions, Interval, Passphrase, Payload, Roles, State,
    Stream, StreamOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let bus = BusUrl::file(&folder.path().join("bus"))?;
    let alice = Home::init(&folder.path().join("alice"), options(&bus)).await?;
    let bob = Home::init(&folder.path().join("bob"), options(&bus)).await?;

    // Alice publishes. She does not know who will read.
    let kitchen = "kitchen".parse()?;
    let stream = alice
        .create_stream(&kitchen, StreamOptions::default())
        .await?;
    stream.publish(b"20.9 C").await?;
    let from = stream.rotate().await?;
    stream.publish(b"21.5 C").await?;
    let until = stream.rotate().await?;
    stream.publish(b"22.0 C").await?;

    // Bob joins. He sees three messages, and can open none.
    let joined = bob.join(stream.ticket(), None).await?;
    assert_eq!(opened(&joined).await?, Vec::<String>::new());

    // Alice gives him what lies between the two cuts that she made.
    let granted = stream
        .grant(GrantOptions {
            user: bob.user(),
            roles: Roles::READER,
            from: Bound::At(from),
            until: Bound::At(until),
            reshare: false,
        })
        .await?;
    println!(
        "granted {} with {} bytes of keys",
        granted.id, granted.bundle_bytes
    );

    let texts = opened(&joined).await?;
    println!("bob opens {texts:?}");
    assert_eq!(texts, ["21.5 C"]);
    Ok(())
}

async fn opened(stream: &Stream) -> Result<Vec<String>, Box<dyn Error>> {
    let mut reader = stream.read(Interval::ALL).await?;
    let mut texts = Vec::new();
    while let Some(delivery) = reader.next().await? {
        println!("{:?} {:?}", delivery.state, delivery.reason);
        if delivery.state == State::Opened {
            let payload = delivery.payload.map(Payload::into_vec);
            texts.push(String::from_utf8(payload.unwrap_or_default())?);
        }
    }
    Ok(texts)
}

fn options(bus: &BusUrl) -> InitOptions {
    InitOptions {
        name: None,
        bus: Some(bus.clone()),
        passphrase: Passphrase::None,
    }
}
