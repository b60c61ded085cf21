//! What others publish where an MQTT bus is, and how it tells them apart.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, FileBus, Limits, Offset};

use crate::rig::{
    HUNG_AFTER, Home, all, hear, numbered, open, put, sorted, topic, wait_for, wait_until_marked,
};

/// Somebody else's client of the same broker.
struct Stranger(u16);

impl Stranger {
    fn publish(&self, on: &str, file: &Path, is_retained: bool) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-q", "1", "-p", &self.0.to_string()]);
        command.args(["-t", on, "-f"]).arg(file);
        if is_retained {
            command.arg("-r");
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn say(&self, on: &str, bytes: &[u8], is_retained: bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        self.publish(on, file.path(), is_retained);
    }

    /// Publishes the same again and again until that is dropped.
    fn repeat(&self, on: &str, file: &Path) -> Ended {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-q", "1", "-p", &self.0.to_string()]);
        command.args(["--repeat", "1000000", "--repeat-delay", "0.2", "-t", on]);
        Ended(command.arg("-f").arg(file).spawn().unwrap())
    }

    /// Subscribes until that is dropped; what the program prints of it, line by line.
    fn subscribe(
        &self,
        format: &str,
        on: &[&str],
    ) -> (Ended, impl Iterator<Item = String> + use<>) {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-d"]);
        command.args(["-p", &self.0.to_string(), "-F", format]);
        for topic in on {
            command.args(["-t", topic]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Ended(child), lines.map(|line| line.unwrap()))
    }

    /// Listens until that is dropped, from now on.
    fn listen(&self, on: &str) -> (Ended, impl Iterator<Item = Vec<u8>> + use<>) {
        let (child, mut lines) = self.subscribe("heard %x", &[on]);
        let begun = lines.find(|line| line.contains("SUBACK"));
        assert!(begun.is_some(), "it subscribes");
        let heard = lines.filter_map(|line| line.strip_prefix("heard ").map(unhex));
        (child, heard)
    }

    /// What is retained, by topic: all that comes before what is published once this has subscribed.
    fn retained(&self, below: &str) -> Vec<(String, Vec<u8>)> {
        let (_child, lines) = self.subscribe("told %r %t %x", &[below, "mark"]);
        let mut found = Vec::new();
        for line in lines {
            if line.contains("SUBACK") {
                self.say("mark", b"here", false);
            }
            let Some(told) = line.strip_prefix("told ") else {
                continue;
            };
            let (is_retained, rest) = told.split_once(' ').unwrap();
            let (on, hex) = rest.split_once(' ').unwrap();
            if on == "mark" {
                return found;
            }
            if is_retained == "1" {
                found.push((on.to_owned(), unhex(hex)));
            }
        }
        panic!("it ends before the mark comes");
    }

    /// Looks until what is retained is as it must become.
    fn until_retained(&self, below: &str, is_so: impl Fn(&[(String, Vec<u8>)]) -> bool) {
        let start = Instant::now();
        while !is_so(&self.retained(below)) {
            assert!(start.elapsed() < HUNG_AFTER, "it is cleared");
        }
    }
}

/// A program that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn append(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&b"SCM\x01\0\0\0\0\0\0\0\0"[..], &length, payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_of_a_bus_is_passed_over_and_the_rest_goes_on() {
    let server = Server::start();
    let home = Home::on(&server, "x").await;
    let stranger = Stranger(server.port());
    let (log, data) = (topic("s/1f/keys"), topic("s/1f/data"));
    let mut listener = home.bus.listen(vec![topic("ask")]).await.unwrap();
    let garbage = [
        vec![],
        b"hello, is anybody there?".to_vec(),
        b"SCM\x02 and so on, of a later version".to_vec(),
        b"SCM\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        vec![0xff; 3 << 20],
    ];
    let id = "@00000000000000ff.1";
    for (round, bytes) in garbage.iter().enumerate() {
        for on in [
            format!("x/log/s/1f/keys/{id}"),
            format!("x/log/s/1f/data/{id}"),
            format!("x/log/s/1f/data/{id}.0.2"),
            format!("x/log/s/1f/data/{id}.1.1"),
            "x/log/s/1f/data/here".into(),
            "x/log/s/1f/é/@00000000000000ff.1".into(),
            "x/now/ask".into(),
            "x/home/z/fence".into(),
        ] {
            stranger.say(&on, bytes, on.contains("keys"));
        }
        for of in [&log, &data] {
            put(&home.bus, of, round).await;
        }
    }
    let expected: Vec<_> = (0..garbage.len()).map(|round| round.to_string()).collect();
    for of in [&log, &data] {
        assert_eq!(all(&home.bus, of).await, expected);
    }
    home.bus
        .send(&topic("ask"), b"who?".to_vec())
        .await
        .unwrap();
    let mut heard = listener.next().await.unwrap().1;
    while heard != b"who?" {
        assert!(heard.len() <= Limits::SENT_MAX);
        heard = listener.next().await.unwrap().1;
    }
    let late = Home::on(&server, "x").await;
    assert_eq!(all(&late.bus, &log).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_played_again_is_there_once_and_a_forged_one_hides_none() {
    let server = Server::start();
    let (home, reader) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let stranger = Stranger(server.port());
    let log = topic("s/1f/keys");
    reader.bus.end(&log).await.unwrap();
    put(&home.bus, &log, "entry 0").await;
    let retained = stranger.retained("x/log/s/1f/keys/+");
    let [(first, bytes)] = &retained[..] else {
        panic!("{retained:?}");
    };
    for is_retained in [false, true, false] {
        stranger.say(first, bytes, is_retained);
    }
    // The name that the next message will have.
    let (before, number) = first.rsplit_once('.').unwrap();
    let number = u64::from_str_radix(number, 16).unwrap();
    for ahead in 1..40 {
        let next = format!("{before}.{:x}", number + ahead);
        stranger.say(&next, &append(b"forged"), false);
    }
    for text in numbered("entry", 4) {
        put(&home.bus, &log, text).await;
    }
    for bus in [&home.bus, &reader.bus] {
        let found = all(bus, &log).await;
        let of = |text: &str| found.iter().filter(|of| of.starts_with(text)).count();
        assert_eq!((of("entry 0"), of("entry 00"), of("forged")), (5, 4, 39));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_cleared_or_wrote_over_is_put_back_by_who_wrote_it() {
    let server = Server::start();
    let proxy = sealcast_brokers::Proxy::before(server.port()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://127.0.0.1:{}/x", proxy.port());
    let writer = crate::rig::open_at(&url, folder.path()).await;
    let stranger = Stranger(server.port());
    let log = topic("s/1f/keys");
    for text in numbered("entry", 5) {
        put(&writer, &log, text).await;
    }
    // One that does not fit in one message.
    let large = vec![vec![b'x'; 1 << 20], b"large".to_vec()];
    writer.append(&log, large).await.unwrap();
    let retained = stranger.retained("x/log/#");
    assert_eq!(retained.len(), 5 + 3);
    for (on, _) in &retained[2..6] {
        stranger.say(on, b"", true);
    }
    stranger.say(&retained[6].0, b"something else", true);
    let cleared = Home::on(&server, "x").await;
    assert!(all(&cleared.bus, &log).await.len() < 7);
    // It looks when its connection is made anew.
    proxy.renew().await;
    assert_eq!(writer.end(&log).await.unwrap(), Offset(7));
    let found = wait_for(&cleared.bus, &log, 7).await;
    let entries = found.iter().filter(|text| text.starts_with("entry"));
    assert_eq!(entries.count(), 5);
    assert_eq!(found.iter().map(String::len).max(), Some(1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_does_not_stay_where_somebody_puts_it_again() {
    let server = Server::start();
    let (owner, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let stranger = Stranger(server.port());
    let inbox = topic("d/3d/inbox");
    for text in numbered("for you", 3) {
        put(&writer.bus, &inbox, text).await;
    }
    assert_eq!(owner.bus.end(&inbox).await.unwrap(), Offset(3));
    let retained = stranger.retained("x/log/d/#");
    owner.bus.trim(&inbox, Offset(2)).await.unwrap();
    for (on, bytes) in &retained {
        stranger.say(on, bytes, true);
    }
    // It is cleared again by the owner, who has what it did not trim.
    stranger.until_retained("x/log/d/#", |left| *left == retained[2..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_parts_is_trimmed_as_a_whole_and_stays_away() {
    let server = Server::start();
    let (owner, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let stranger = Stranger(server.port());
    let inbox = topic("d/3d/inbox");
    let large = vec![vec![b'x'; 1 << 20]];
    writer.bus.append(&inbox, large).await.unwrap();
    put(&writer.bus, &inbox, "small").await;
    wait_until_marked(writer.folder.path(), Offset(0)).await;
    assert_eq!(owner.bus.end(&inbox).await.unwrap(), Offset(2));
    let retained = stranger.retained("x/log/d/#");
    assert_eq!(retained.len(), 4);
    owner.bus.trim(&inbox, Offset(1)).await.unwrap();
    assert_eq!(stranger.retained("x/log/d/#").len(), 1);
    // Who wrote it puts it back no more.
    let Home { folder, bus } = writer;
    drop(bus);
    let _writer = open(&server, "x", folder.path()).await;
    wait_until_marked(folder.path(), Offset(1)).await;
    assert_eq!(stranger.retained("x/log/d/#").len(), 1);
    // Where somebody else does, the owner clears it again.
    for (on, bytes) in &retained {
        stranger.say(on, bytes, true);
    }
    stranger.until_retained("x/log/d/#", |left| left.len() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_a_mirror_takes_keeps_nothing_else_out() {
    const PARTS: usize = 80;
    const BYTES: usize = 512 << 10;
    let server = Server::start();
    let stranger = Stranger(server.port());
    let whole = append(&vec![b'x'; PARTS * (BYTES - 4) - 16]);
    let parts: Vec<_> = whole.chunks(BYTES - 4).collect();
    assert_eq!(parts.len(), PARTS);
    for (number, part) in parts.into_iter().enumerate() {
        let on = format!("x/log/s/1f/keys/@00000000000000ff.1.{number:x}.{PARTS:x}");
        stranger.say(&on, &[b"SCM\x01", part].concat(), true);
    }
    let (home, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let log = topic("s/1f/keys");
    put(&writer.bus, &log, "fine").await;
    assert_eq!(all(&home.bus, &log).await, ["fine"]);
    put(&writer.bus, &log, "still").await;
    assert_eq!(all(&home.bus, &log).await, ["fine", "still"]);
    // Nor does it have the home begin anew.
    let own = FileBus::open(home.folder.path().join("own")).await.unwrap();
    let name = all(&own, &topic("home")).await.remove(0);
    let said = std::fs::read_to_string(server.folder().join("log")).unwrap();
    assert_eq!(said.matches(&format!(" as sc{name} (")).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_somebody_guessed_do_not_keep_the_whole_out() {
    let server = Server::start();
    let (home, reader) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let stranger = Stranger(server.port());
    let log = topic("s/1f/keys");
    reader.bus.end(&log).await.unwrap();
    let large = |byte: u8| vec![vec![byte; 1 << 20]];
    home.bus.append(&log, large(b'a')).await.unwrap();
    let retained = stranger.retained("x/log/s/1f/keys/+");
    let (first, bytes) = &retained[0];
    // `P/log/t/@w.n.k.m`: the part that the next messages will have.
    let fields: Vec<_> = first.split('.').collect();
    let [writer, number, part, count] = fields[..] else {
        panic!("{first}");
    };
    let number = u64::from_str_radix(number, 16).unwrap();
    let forged = vec![b'f'; bytes.len()];
    for ahead in 1..9 {
        let next = format!("{writer}.{:x}.{part}.{count}", number + ahead);
        stranger.say(&next, &[&bytes[..4], &forged[4..]].concat(), false);
    }
    home.bus.append(&log, large(b'b')).await.unwrap();
    // Whoever asks after an append has returned sees it.
    assert_eq!(reader.bus.end(&log).await.unwrap(), Offset(2));
    let items = reader.bus.read(&log, Offset(1), 1).await.unwrap();
    assert!(items[0].payload == large(b'b')[0], "it is the right one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_number_keeps_nobody_from_being_heard() {
    let server = Server::start();
    let (one, two) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let stranger = Stranger(server.port());
    let ask = topic("s/1f/ask");
    let mut listener = two.bus.listen(vec![ask.clone()]).await.unwrap();
    let (_listening, mut overheard) = stranger.listen("x/now/#");
    one.bus.send(&ask, b"first".to_vec()).await.unwrap();
    assert_eq!(hear(&mut *listener).await, "first");
    let first = overheard.next().unwrap();
    let number = u64::from_be_bytes(first[8..16].try_into().unwrap());
    let forged = |number: u64, text: &[u8]| [&first[..8], &number.to_be_bytes(), text].concat();
    let (high, next) = (forged(u64::MAX, b"high"), forged(number + 1, b"next"));
    // What was heard once is not heard again.
    for bytes in [&first, &high, &next, &high, &first] {
        stranger.say("x/now/s/1f/ask", bytes, false);
    }
    one.bus.send(&ask, b"second".to_vec()).await.unwrap();
    for expected in ["high", "next", "second"] {
        assert_eq!(hear(&mut *listener).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_answers_keep_nobody_waiting() {
    let server = Server::start();
    let home = Home::on(&server, "x").await;
    let stranger = Stranger(server.port());
    let own = FileBus::open(home.folder.path().join("own")).await.unwrap();
    let name = all(&own, &topic("home")).await.remove(0);
    // Somebody is asked, and says nothing.
    let _asked = stranger.listen("x/past/ask/#");
    let on = "x/log/s/1f/data/@00000000000000ff.1";
    let length = u16::try_from(on.len()).unwrap().to_be_bytes();
    let answer = [&1_u64.to_be_bytes()[..], b"\0", &length, on.as_bytes()].concat();
    let answer = [answer, append(b"forged")].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), answer).unwrap();
    let _answering = stranger.repeat(&format!("x/past/for/{name}"), file.path());
    let data = topic("s/1f/data");
    assert_eq!(wait_for(&home.bus, &data, 1).await, ["forged"]);
    assert_eq!(home.bus.end(&data).await.unwrap(), Offset(1));
}

/// The two parts of an append.
fn halves(payload: &[u8]) -> [Vec<u8>; 2] {
    let whole = append(payload);
    let (one, other) = whole.split_at(7);
    [one, other].map(|half| [b"SCM\x01", half].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_wait_for_others_are_there_when_these_come_whatever_ended_meanwhile() {
    let server = Server::start();
    let stranger = Stranger(server.port());
    let log = topic("s/1f/data");
    let home = Home::on(&server, "x").await;
    home.bus.end(&log).await.unwrap();
    let say = |number: usize, part: usize| {
        let on = format!("x/log/s/1f/data/@00000000000000aa.{number:x}.{part:x}.2");
        let text = format!("text {number:03}");
        stranger.say(&on, &halves(text.as_bytes())[part], false);
    };
    // More than are held at once.
    for number in 0..40 {
        say(number, number % 2);
    }
    assert_eq!(home.bus.end(&log).await.unwrap(), Offset(0));
    say(40, 0);
    home.bus.end(&log).await.unwrap();
    let Home { folder, bus } = home;
    drop(bus);
    let bus = open(&server, "x", folder.path()).await;
    for number in 0..41 {
        say(number, 1 - number % 2);
    }
    assert_eq!(bus.end(&log).await.unwrap(), Offset(41));
    assert_eq!(sorted(all(&bus, &log).await), numbered("text", 41));
}
