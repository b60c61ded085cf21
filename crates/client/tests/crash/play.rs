//! What alice does, on whatever ground, and what is acknowledged.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sealcast::{Bound, Error, GrantOptions, Ground, Home, Interval, Roles, Stream, UserId};
use sealcast_bus::{Bus, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};

/// What every payload begins with, so that it is found where it lies in clear.
pub(crate) const CLEAR: &str = "a text that nobody may see";

/// Called with each thing that was acknowledged.
pub(crate) type Acks<'a> = &'a mut dyn FnMut(String);

/// What is done with an error: `Ok` goes on, `Err` ends the play.
pub(crate) type OnError<'a> = &'a mut dyn FnMut(Error) -> Result<(), Error>;

fn all_to(user: UserId) -> GrantOptions {
    GrantOptions {
        user,
        roles: Roles::READER,
        from: Bound::At(Interval::ALL.from),
        until: Bound::At(Interval::ALL.until),
        reshare: false,
    }
}

pub(crate) async fn grant(stream: &Stream, user: UserId) -> Result<String, Error> {
    Ok(stream.grant(all_to(user)).await?.id.to_string())
}

/// Publishes, one by one and in frames, grants, rekeys, rotates and revokes. Returns the stream.
pub(crate) async fn play(
    home: &Path,
    ground: Ground,
    (bob, carol): (UserId, UserId),
    acks: Acks<'_>,
    on_error: OnError<'_>,
) -> Result<Stream, Error> {
    let stream = loop {
        let opened = async {
            let alice = Home::danger_open_on(home, None, ground.clone()).await?;
            alice.stream(&"s".parse().unwrap()).await
        };
        match opened.await {
            Ok(stream) => break stream,
            Err(error) => on_error(error)?,
        }
    };
    let mut outlive = |done: Result<String, Error>| match done {
        Ok(ack) => {
            acks(ack);
            Ok(())
        }
        Err(error) => on_error(error),
    };
    let say = async |number: &str| {
        let said = stream.publish(format!("{CLEAR} {number}").as_bytes()).await;
        said.map(|_| format!("record {number}"))
    };
    outlive(say("1").await)?;
    outlive(say("2").await)?;
    outlive(grant(&stream, bob).await.map(|id| format!("grant {id}")))?;
    outlive(stream.rekey().await.map(|()| "rekey".to_owned()))?;
    outlive(say("3").await)?;
    outlive(frames(&stream).await)?;
    outlive(stream.rotate().await.map(|_| "rotate".to_owned()))?;
    outlive(say("5").await)?;
    outlive(grant(&stream, carol).await.map(|_| "carol in".to_owned()))?;
    let revoked = stream.revoke_user(carol).await;
    let revoked = match revoked {
        // Where the grant failed there is nothing to take back.
        Err(Error::NoGrant(_)) => Ok("nothing".to_owned()),
        revoked => revoked.map(|_| "carol out".to_owned()),
    };
    outlive(revoked)?;
    outlive(say("6").await)?;
    Ok(stream)
}

async fn frames(stream: &Stream) -> Result<String, Error> {
    let mut publisher = stream.publisher().await?;
    for number in ["4.0", "4.1", "4.2"] {
        publisher
            .send(format!("{CLEAR} {number}").as_bytes())
            .await?;
    }
    publisher.finish().await?;
    Ok("record 4.0 4.1 4.2".to_owned())
}

/// Called with the topic and the payloads of an append, before it is made.
type BeforeAppend = Arc<Mutex<dyn FnMut(&str, &[Vec<u8>]) + Send>>;

/// A bus that tells what is handed to it, whether or not it takes it.
struct Telling {
    inner: Arc<dyn Bus>,
    before: BeforeAppend,
}

/// Tells what is handed to the bus of a ground.
pub(crate) fn telling(
    ground: Ground,
    before: impl FnMut(&str, &[Vec<u8>]) + Send + 'static,
) -> Ground {
    let before: BeforeAppend = Arc::new(Mutex::new(before));
    let wrapped = ground.bus.clone();
    Ground {
        bus: Arc::new(move |inner| {
            let (inner, before) = (wrapped(inner), before.clone());
            Arc::new(Telling { inner, before })
        }),
        ..ground
    }
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telling")
    }
}

impl Bus for Telling {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        (self.before.lock().unwrap())(topic.as_ref(), &payloads);
        self.inner.append(topic, payloads)
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        self.inner.read(topic, from, bytes_max)
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        self.inner.end(topic)
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        self.inner.tail(topics)
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        self.inner.trim(topic, before)
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        self.inner.send(topic, payload)
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        self.inner.listen(topics)
    }
}
