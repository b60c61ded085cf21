//! What stands in a home, `spec/home.md`.

use std::collections::BTreeMap;

use sealcast_engine::{KnownUser, ReadBy};
use sealcast_protocol::{DeviceId, Interval, LogHash, Position, UserId};

use crate::case::{Given, Lines, Outcome, array, must, unhex};

/// By what a keys topic was read.
pub(crate) fn read_by(given: &mut Given) -> Outcome {
    let key_nodes = given.maybe_bytes("key-nodes")?;
    let key_nodes = key_nodes.map(|entry| array(&entry).map(LogHash));
    let over = Position(given.number("segments-over")?);
    let mut readable: BTreeMap<UserId, Vec<Interval>> = BTreeMap::new();
    while let Some(line) = given.maybe_text("readable") {
        let [user, from, until] = words(&line)?;
        let (from, until) = (Position(number(from)?), Position(number(until)?));
        let of = readable.entry(id(user)?).or_default();
        of.push(Interval { from, until });
    }
    let mut devices: BTreeMap<UserId, Vec<DeviceId>> = BTreeMap::new();
    while let Some(line) = given.maybe_text("device") {
        let [user, device] = words(&line)?;
        let of = devices.entry(id(user)?).or_default();
        of.push(DeviceId(array(&unhex(device)?)?));
    }
    let mut users = Vec::new();
    while let Some(line) = given.maybe_text("user") {
        let [user, gives, regained] = words(&line)?;
        let user = id(user)?;
        users.push(KnownUser {
            user,
            gives: flag(gives)?,
            regained: flag(regained)?,
            devices: devices.remove(&user).unwrap_or_default(),
            readable: readable.get(&user).map(Vec::as_slice).unwrap_or_default(),
        });
    }
    must(devices.is_empty(), "a device of nobody")?;
    let is_there = |user: &UserId| users.iter().any(|known| known.user == *user);
    must(readable.keys().all(is_there), "an interval of nobody")?;
    let by = ReadBy::of(key_nodes.transpose()?, users, over);
    let bytes = by.to_bytes();
    must(ReadBy::from_bytes(&bytes) == Some(by), "it reads back")?;
    Lines::default().hex("read-by", bytes).done()
}

fn words<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let words: Vec<&str> = line.split(' ').collect();
    words
        .try_into()
        .map_err(|_| format!("not {N} words: {line}"))
}

fn id(text: &str) -> Result<UserId, String> {
    Ok(UserId(array(&unhex(text)?)?))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("no number: {text}"))
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("neither 0 nor 1: {text}")),
    }
}
