//! A bus that shows each of its users what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What lies on the bus, and how much of it each user is shown.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    topics: BTreeMap<String, Vec<Stored>>,
    sights: BTreeMap<(usize, String), Sight>,
    cut_off: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Arc<[u8]>,
    at: u64,
}

/// How one user sees one topic.
#[derive(Debug, Default)]
struct Sight {
    delay_ms: u64,
    /// What was shown once is shown again, unless it is lost or withheld.
    shown: usize,
    /// Items that are left out, so that the following ones seem to lie where they do not.
    withheld: BTreeSet<usize>,
}

/// One item as a user sees it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) offset: u64,
    pub(crate) bytes: Arc<[u8]>,
}

/// The bus cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// What the bus does with the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// It keeps it.
    Once,
    /// It keeps it twice.
    Twice,
    /// It says that it kept it and did not.
    Lose,
}

impl Bus {
    /// What a user is shown of a topic from an offset on, at most so many items.
    pub(crate) fn read(
        &mut self,
        who: usize,
        topic: &str,
        now: u64,
        from: u64,
        max: usize,
    ) -> Result<Vec<Item>, Unreachable> {
        let (end, withheld) = self.horizon(who, topic, now)?;
        let Some(items) = self.topics.get(topic) else {
            return Ok(Vec::new());
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let Some(withheld) = withheld else {
            let range = from.min(end)..end;
            let first = range.start as u64;
            let seen = items.get(range).unwrap_or_default().iter().take(max);
            let item = |(at, of): (u64, &Stored)| Item {
                offset: at,
                bytes: of.bytes.clone(),
            };
            return Ok((first..).zip(seen).map(item).collect());
        };
        let seen = items.iter().take(end).enumerate();
        let seen = seen.filter(|(at, _)| !withheld.contains(at));
        let item = |(at, (_, of)): (u64, (usize, &Stored))| Item {
            offset: at,
            bytes: of.bytes.clone(),
        };
        Ok((0..).zip(seen).skip(from).take(max).map(item).collect())
    }

    /// The offset that a user is told of as the end of a topic.
    pub(crate) fn end(&mut self, who: usize, topic: &str, now: u64) -> Result<u64, Unreachable> {
        let (end, withheld) = self.horizon(who, topic, now)?;
        let less = withheld.map_or(0, |of| of.range(..end).count());
        Ok((end - less) as u64)
    }

    /// Up to which item a user sees a topic, and what is left out, if anything is.
    fn horizon(
        &mut self,
        who: usize,
        topic: &str,
        now: u64,
    ) -> Result<(usize, Option<BTreeSet<usize>>), Unreachable> {
        if self.cut_off.contains(&who) {
            return Err(Unreachable);
        }
        let end = self.shown(who, topic, now);
        let sight = self.sights.get(&(who, topic.to_owned()));
        let withheld = sight.filter(|of| !of.withheld.is_empty());
        Ok((end, withheld.map(|of| of.withheld.clone())))
    }

    /// How many items of a topic have come to a user.
    fn shown(&mut self, who: usize, topic: &str, now: u64) -> usize {
        let items = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        let Some(sight) = self.sights.get_mut(&(who, topic.to_owned())) else {
            return items.len();
        };
        let arrived = items.partition_point(|of| of.at.saturating_add(sight.delay_ms) <= now);
        sight.shown = sight.shown.max(arrived).min(items.len());
        sight.shown
    }

    /// Appends what a user hands in.
    pub(crate) fn append(
        &mut self,
        who: usize,
        topic: &str,
        now: u64,
        payloads: &[Vec<u8>],
        take: Take,
    ) -> Result<(), Unreachable> {
        if self.cut_off.contains(&who) {
            return Err(Unreachable);
        }
        let times = match take {
            Take::Once => 1,
            Take::Twice => 2,
            Take::Lose => 0,
        };
        for _ in 0..times {
            for payload in payloads {
                self.put(topic, now, payload);
            }
        }
        Ok(())
    }

    /// As [`append`](Self::append), where the topic ends as the user believes. Delay does not
    /// matter to that; what is withheld from the user does.
    pub(crate) fn append_at(
        &mut self,
        who: usize,
        topic: &str,
        now: u64,
        end: u64,
        payload: &[u8],
    ) -> Result<bool, Unreachable> {
        if self.cut_off.contains(&who) {
            return Err(Unreachable);
        }
        let len = self.len(topic);
        let sight = self.sights.get(&(who, topic.to_owned()));
        let less = sight.map_or(0, |of| of.withheld.range(..len).count());
        let is_there = end == (len - less) as u64;
        if is_there {
            self.put(topic, now, payload);
        }
        Ok(is_there)
    }

    /// Puts something at the end of a topic, whoever does.
    pub(crate) fn put(&mut self, topic: &str, now: u64, payload: &[u8]) {
        let items = self.topics.entry(topic.to_owned()).or_default();
        items.push(Stored {
            bytes: payload.into(),
            at: now,
        });
    }

    pub(crate) fn len(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, Vec::len)
    }

    /// How many items there are in all.
    pub(crate) fn size(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    /// What truly lies in a topic.
    pub(crate) fn items(&self, topic: &str) -> impl Iterator<Item = &[u8]> {
        let items = self.topics.get(topic).into_iter().flatten();
        items.map(|of| &*of.bytes)
    }

    pub(crate) fn item(&self, topic: &str, at: usize) -> Option<Arc<[u8]>> {
        Some(self.topics.get(topic)?.get(at)?.bytes.clone())
    }

    /// The names of all topics.
    pub(crate) fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }
}

/// What it does to its users.
impl Bus {
    /// Shows a user the items of a topic so much later.
    pub(crate) fn delay(&mut self, who: usize, topic: &str, ms: u64, now: u64) {
        // What was shown so far stays shown.
        let is_shown = self.shown(who, topic, now);
        let sight = self.sights.entry((who, topic.to_owned())).or_default();
        sight.shown = sight.shown.max(is_shown);
        sight.delay_ms = ms;
    }

    /// Leaves items out of what a user sees of a topic.
    pub(crate) fn withhold(&mut self, who: usize, topic: &str, now: u64, items: &[usize]) {
        let is_shown = self.shown(who, topic, now);
        let sight = self.sights.entry((who, topic.to_owned())).or_default();
        sight.shown = sight.shown.max(is_shown);
        sight.withheld.extend(items);
    }

    /// Shows a user nothing and takes nothing from it.
    pub(crate) fn cut_off(&mut self, who: usize) {
        self.cut_off.insert(who);
    }

    pub(crate) fn reconnect(&mut self, who: usize) {
        self.cut_off.remove(&who);
    }

    /// Forgets all items of a topic from one on, for everybody.
    pub(crate) fn truncate(&mut self, topic: &str, len: usize) {
        if let Some(items) = self.topics.get_mut(topic) {
            items.truncate(len);
        }
        for ((_, of), sight) in &mut self.sights {
            if of == topic {
                sight.shown = sight.shown.min(len);
                sight.withheld.split_off(&len);
            }
        }
    }

    pub(crate) fn is_cut_off(&self, who: usize) -> bool {
        self.cut_off.contains(&who)
    }

    /// Shows a user everything again, or everybody. Returns whether it did not before.
    pub(crate) fn heal(&mut self, who: Option<usize>) -> bool {
        let before = (self.sights.len(), self.cut_off.len());
        let is_other = |of: &usize| who.is_some_and(|who| who != *of);
        self.sights.retain(|(of, _), _| is_other(of));
        self.cut_off.retain(is_other);
        before != (self.sights.len(), self.cut_off.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bus: &mut Bus, who: usize, now: u64, from: u64) -> String {
        let items = bus.read(who, "t", now, from, 10).unwrap();
        let items = items
            .iter()
            .map(|of| format!("{}{}", of.offset, String::from_utf8_lossy(&of.bytes)));
        items.collect::<Vec<_>>().join(" ")
    }

    fn filled() -> Bus {
        let mut bus = Bus::default();
        for (at, text) in [(0, "a"), (10, "b"), (20, "c")] {
            bus.put("t", at, text.as_bytes());
        }
        bus
    }

    #[test]
    fn a_delay_hides_what_is_younger_and_nothing_that_was_shown() {
        let mut bus = filled();
        bus.delay(0, "t", 15, 25);
        assert_eq!(texts(&mut bus, 0, 25, 0), "0a 1b 2c");
        bus.put("t", 30, b"d");
        assert_eq!(texts(&mut bus, 0, 44, 0), "0a 1b 2c");
        assert_eq!(texts(&mut bus, 0, 45, 3), "3d");
        assert_eq!(texts(&mut bus, 1, 30, 3), "3d");
    }

    #[test]
    fn what_is_withheld_shifts_what_follows_for_one_user_alone() {
        let mut bus = filled();
        bus.withhold(0, "t", 20, &[1]);
        assert_eq!(texts(&mut bus, 0, 20, 1), "1c");
        assert_eq!(bus.end(0, "t", 20), Ok(2));
        assert_eq!(texts(&mut bus, 1, 20, 1), "1b 2c");
        assert_eq!(bus.append_at(0, "t", 20, 3, b"x"), Ok(false));
        assert_eq!(bus.append_at(0, "t", 20, 2, b"x"), Ok(true));
        bus.heal(Some(0));
        assert_eq!(texts(&mut bus, 0, 20, 1), "1b 2c 3x");
    }

    #[test]
    fn a_topic_that_went_back_grows_again_from_there() {
        let mut bus = filled();
        bus.delay(0, "t", 5, 20);
        bus.truncate("t", 1);
        bus.put("t", 30, b"z");
        assert_eq!(texts(&mut bus, 0, 30, 0), "0a");
        assert_eq!(texts(&mut bus, 0, 35, 0), "0a 1z");
    }

    #[test]
    fn whoever_is_cut_off_neither_reads_nor_writes() {
        let mut bus = filled();
        bus.cut_off(0);
        assert_eq!(bus.end(0, "t", 0), Err(Unreachable));
        assert!(bus.append(0, "t", 0, &[vec![1]], Take::Once).is_err());
        bus.reconnect(0);
        bus.append(0, "t", 30, &[vec![b'e']], Take::Twice).unwrap();
        bus.append(0, "t", 30, &[vec![b'f']], Take::Lose).unwrap();
        assert_eq!(texts(&mut bus, 0, 30, 3), "3e 4e");
    }
}
