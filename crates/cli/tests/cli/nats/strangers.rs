use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use async_nats::jetstream::{self, Context};
use sealcast_brokers::nats::Server;
use serde_json::Value;

use super::{Cast, someone};

/// What a client sees that knows NATS, and how others lay out their messages there.
struct Stranger {
    context: Context,
}

/// A message of a log as `spec/bus-nats.md` has it.
struct Seen {
    seq: u64,
    bytes: Vec<u8>,
}

impl Seen {
    fn number(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn count(&self) -> u32 {
        u32::from_be_bytes(self.bytes[21..25].try_into().unwrap())
    }

    /// Its payloads, where they are in it.
    fn payloads(&self) -> Vec<Vec<u8>> {
        if !self.bytes.starts_with(b"SCN\x01\x00") {
            return Vec::new();
        }
        let count = self.count() as usize;
        let (table, mut rest) = self.bytes[49..].split_at(4 * count);
        let lengths = table
            .chunks(4)
            .map(|of| u32::from_be_bytes(of.try_into().unwrap()));
        let payloads = lengths.map(|length| {
            let (payload, behind) = rest.split_at(length as usize);
            rest = behind;
            payload.to_vec()
        });
        payloads.collect()
    }
}

impl Stranger {
    async fn at(server: &Server) -> Self {
        let url = format!("127.0.0.1:{}", server.port());
        let client = async_nats::connect(url).await.unwrap();
        let context = jetstream::new(client);
        Self { context }
    }

    /// Everything that the server holds of the bus, with its subjects.
    async fn all(&self) -> Vec<(String, Seen)> {
        let stream = self.context.get_stream("x").await.unwrap();
        let state = &stream.cached_info().state;
        let mut all = Vec::new();
        for seq in state.first_sequence..=state.last_sequence {
            if let Ok(found) = stream.get_raw_message(seq).await {
                let bytes = found.payload.to_vec();
                all.push((found.subject.to_string(), Seen { seq, bytes }));
            }
        }
        all
    }

    async fn publish(&self, subject: &str, payload: Vec<u8>) {
        let ack = self.context.publish(subject.to_owned(), payload.into());
        ack.await.unwrap().await.unwrap();
    }

    /// Appends as everybody does who may write there.
    async fn append(&self, subject: &str, payloads: &[Vec<u8>]) {
        let of_subject = |(of, seen)| (of == subject).then_some(seen);
        let there: Vec<Seen> = self
            .all()
            .await
            .into_iter()
            .filter_map(of_subject)
            .collect();
        let last = there.last().unwrap().seq;
        let ours = there
            .iter()
            .rfind(|seen| seen.bytes.starts_with(b"SCN\x01"));
        let ours = ours.unwrap();
        let end = ours.number(13) + u64::from(ours.count());
        let count = u32::try_from(payloads.len()).unwrap();
        let mut message = b"SCN\x01\x00".to_vec();
        message.extend(last.to_be_bytes());
        message.extend(end.to_be_bytes());
        message.extend(count.to_be_bytes());
        message.extend(ours.number(25).to_be_bytes());
        message.extend([7; 16]);
        for payload in payloads {
            message.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        }
        message.extend(payloads.concat());
        self.publish(subject, message).await;
    }

    /// Garbage, what is too large, what was there before, and that in another order: as messages, and
    /// as items of every topic.
    async fn attack(&self) {
        let all = self.all().await;
        let mut subjects: Vec<&String> = all.iter().map(|(subject, _)| subject).collect();
        subjects.sort();
        subjects.dedup();
        for subject in subjects {
            let messages = all.iter().filter(|(of, _)| of == subject);
            let messages: Vec<&Seen> = messages.map(|(_, seen)| seen).collect();
            if subject.starts_with("x.log.") {
                let mut items: Vec<_> = messages.iter().flat_map(|of| of.payloads()).collect();
                items.reverse();
                items.truncate(8);
                items.extend([b"garbage".to_vec(), Vec::new(), vec![0x53; 300_000]]);
                self.append(subject, &items).await;
            }
            for seen in messages.iter().rev().take(4) {
                self.publish(subject, seen.bytes.clone()).await;
            }
            for garbage in [b"hello?".to_vec(), Vec::new(), vec![0xff; 900_000]] {
                self.publish(subject, garbage.clone()).await;
                for kind in ["new", "now"] {
                    let topic = subject.splitn(3, '.').last().unwrap();
                    let other = format!("x.{kind}.{topic}");
                    let client = self.context.client();
                    client.publish(other, garbage.clone().into()).await.unwrap();
                }
            }
        }
        self.context.client().flush().await.unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[test]
fn strangers_learn_nothing_and_break_nothing_and_what_they_write_is_told() {
    const SECRETS: [&str; 3] = ["furnace at 871 degrees", "s3cret-ward", "alice"];
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stranger = runtime.block_on(Stranger::at(&server));
    let cast = Cast::on(&server.url("x"));
    let (alice, bob) = (&cast.alice, &cast.bob);
    let ward = alice.done(&["stream", "create", "s3cret-ward"]);
    assert!(!ward.is_empty());
    let mut sub = bob.start(&["sub", "s", "--from", "start", "--json"]);
    let mut told = BufReader::new(sub.stdout.take().unwrap()).lines();
    let mut states: Vec<String> = Vec::new();
    let mut expected = Vec::new();
    for round in 0..3 {
        let text = format!("{} {round}", SECRETS[0]);
        alice.done(&["pub", "s", "-m", &text]);
        expected.push(text.clone());
        loop {
            let line: Value = serde_json::from_str(&told.next().unwrap().unwrap()).unwrap();
            let state = line["state"].as_str().unwrap().to_owned();
            let is_opened = state == "opened";
            states.push(state);
            if is_opened {
                assert_eq!(line["text"].as_str(), Some(text.as_str()));
                break;
            }
        }
        runtime.block_on(stranger.attack());
    }
    for state in ["rejected", "replay"] {
        assert!(states.iter().any(|of| of == state), "{state}: {states:?}");
    }
    sub.kill().unwrap();
    sub.wait().unwrap();
    // Whoever comes later reads the same, by keys that are given later.
    let carol = someone(&cast.rig, "carol", &server.url("x"));
    carol.done(&["join", &alice.done(&["ticket", "s"])]);
    alice.done(&["grant", "s", &carol.id(), "--from", "start"]);
    for person in [bob, &carol] {
        assert_eq!(person.opened(&["read", "s"]), expected);
        for state in ["rejected", "replay"] {
            assert!(person.count(state, &["read", "s"]) > 0, "{state}");
        }
    }
    for (subject, seen) in runtime.block_on(stranger.all()) {
        for secret in SECRETS {
            assert!(!has(&seen.bytes, secret), "{secret} on {subject}");
        }
    }
    for file in files(server.folder()) {
        let bytes = std::fs::read(&file).unwrap();
        for secret in SECRETS {
            assert!(!has(&bytes, secret), "{secret} in {}", file.display());
        }
    }
}
