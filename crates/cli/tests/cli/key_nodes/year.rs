//! A year of history, by a device that was not there when it was published.

use std::fmt::Write as _;

use super::{Running, reader, stream_with_nodes};
use crate::devices;
use crate::kinds::Kind;
use crate::rig::{Person, Rig};

const WEEKS: i64 = 52;
const READINGS_MAX: u64 = 4;

/// A line a week, with the time when it was made, from the oldest.
fn year() -> (String, Vec<String>) {
    let mut lines = String::new();
    let mut said = Vec::new();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    for week in (1..=WEEKS).rev() {
        let at = i64::try_from(now.as_secs()).unwrap() - week * 7 * 86_400;
        let at = rfc3339(at);
        writeln!(lines, "{at}\tweek {week}").unwrap();
        said.push(format!("week {week}"));
    }
    (lines, said)
}

pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

fn reads_a_year_with(kind: Kind, threshold: usize, count: usize) {
    let rig = Rig::on(kind);
    let (owner, ticket, nodes) = stream_with_nodes(&rig, &threshold.to_string(), count);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let (lines, mut said) = year();
    owner.done_with(&["pub", "plant", "-l", "--backfill"], lines.as_bytes());
    owner.done(&["pub", "plant", "-m", "today"]);
    owner.done(&["rekey", "plant"]);
    owner.done(&["pub", "plant", "-m", "after a rekey"]);
    said.extend(["today", "after a rekey"].map(str::to_owned));

    // Nobody who has keys runs anything from here on.
    let phone = devices::add(&rig, &bob, "phone");
    let running: Vec<_> = nodes.iter().take(threshold).map(Running::start).collect();
    let readings = readings_until(&phone, &said);
    drop(running);
    assert_eq!(phone.opened(&["read", "plant"]), said);
    let released = nodes[..threshold].iter().map(segments_released);
    for segments in released {
        assert!((1..=60 * readings).contains(&segments), "{segments}");
    }
}

/// How often a person has to read until all is there. On a machine that is busy with other things a node may answer
/// when whoever asked has given up; it answers again to whoever asks again.
fn readings_until(person: &Person, said: &[String]) -> u64 {
    for readings in 1..READINGS_MAX {
        if person.opened(&["read", "plant"]) == said {
            return readings;
        }
    }
    assert_eq!(person.opened(&["read", "plant"]), said);
    READINGS_MAX
}

/// How many segments a node released, by its audit.
fn segments_released(node: &Person) -> u64 {
    let (_, lines) = node.json(&["keynode", "audit", "plant"]);
    let segments = lines.iter().filter(|of| of["event"] == "released");
    segments.map(|of| of["segments"].as_u64().unwrap()).sum()
}

#[test]
fn a_new_device_reads_a_year_with_two_of_three_nodes_over_a_folder() {
    reads_a_year_with(Kind::File, 2, 3);
}

#[test]
fn and_with_three_of_five() {
    reads_a_year_with(Kind::File, 3, 5);
}

#[test]
fn and_with_two_of_three_over_nats() {
    reads_a_year_with(Kind::Nats, 2, 3);
}

#[test]
fn and_with_three_of_five_over_nats() {
    reads_a_year_with(Kind::Nats, 3, 5);
}
