//! What a client has subscribed to over its connection: a broker may send a message once for each subscription that
//! matches its topic, and it comes again no more often than that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealcast::TopicFilter;

use crate::fields::{Fields, Malformed};
use crate::packet::{SUBSCRIBE, UNSUBSCRIBE, Version};

/// Filters that are remembered; of those beyond, a second copy of a message is taken for a replay.
const FILTERS_MAX: usize = 256;
/// Messages that are remembered.
const RECENT_MAX: usize = 1024;
/// How a shared subscription begins; its group follows.
const SHARED: &str = "$share/";

#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Mutex<Vec<(String, TopicFilter)>>);

impl Subscriptions {
    /// Notes what a client asks for, or does not want any more.
    pub(crate) fn note(&self, version: Version, kind: u8, body: &[u8]) -> Result<(), Malformed> {
        if kind != SUBSCRIBE && kind != UNSUBSCRIBE {
            return Ok(());
        }
        let mut fields = Fields::new(body);
        fields.number()?;
        if version == Version::Five {
            fields.properties()?;
        }
        while !fields.rest().is_empty() {
            let text = fields.text()?;
            let mut all = self.all();
            all.retain(|(known, _)| known != text);
            if kind == SUBSCRIBE {
                fields.take(1)?;
                let plain = text.strip_prefix(SHARED).and_then(|of| of.split_once('/'));
                let plain = plain.map_or(text, |(_, filter)| filter);
                if let Ok(filter) = plain.parse()
                    && all.len() < FILTERS_MAX
                {
                    all.push((text.to_owned(), filter));
                }
            }
        }
        Ok(())
    }

    /// How often a message on a topic may come.
    pub(crate) fn copies(&self, topic: &str) -> usize {
        let all = self.all();
        let matching = all.iter().filter(|(_, filter)| filter.matches(topic));
        matching.count().max(1)
    }

    fn all(&self) -> MutexGuard<'_, Vec<(String, TopicFilter)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often messages have gone on that may come more than once.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    counts: HashMap<[u8; 16], usize>,
    recent: VecDeque<[u8; 16]>,
}

impl Copies {
    /// How often it has gone on.
    pub(crate) fn of(&self, mark: &[u8; 16]) -> usize {
        self.counts.get(mark).copied().unwrap_or_default()
    }

    /// It goes on.
    pub(crate) fn note(&mut self, mark: [u8; 16]) {
        let count = self.counts.entry(mark).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        self.recent.push_back(mark);
        if self.recent.len() > RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.counts.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a packet with some filters.
    fn body(version: Version, kind: u8, filters: &[&str]) -> Vec<u8> {
        let mut body = vec![0, 7];
        if version == Version::Five {
            body.push(0);
        }
        for filter in filters {
            body.extend((filter.len() as u16).to_be_bytes());
            body.extend(filter.as_bytes());
            if kind == SUBSCRIBE {
                body.push(1);
            }
        }
        body
    }

    #[test]
    fn a_message_may_come_once_for_each_filter_that_matches() {
        for version in [Version::Three, Version::Five] {
            let all = Subscriptions::default();
            let note = |kind, filters: &[&str]| {
                let body = body(version, kind, filters);
                all.note(version, kind, &body)
            };
            assert_eq!(all.copies("plant/7"), 1);
            assert_eq!(note(SUBSCRIBE, &["plant/#", "plant/+", "office/#"]), Ok(()));
            assert_eq!(note(SUBSCRIBE, &["plant/#", "$share/g/plant/7"]), Ok(()));
            assert_eq!((all.copies("plant/7"), all.copies("office/1")), (3, 1));
            assert_eq!(note(UNSUBSCRIBE, &["plant/+", "plant/none"]), Ok(()));
            assert_eq!(all.copies("plant/7"), 2);
            let cut = all.note(version, SUBSCRIBE, &body(version, SUBSCRIBE, &["x"])[..4]);
            assert_eq!(cut, Err(Malformed));
            for number in 0..2 * FILTERS_MAX {
                assert_eq!(note(SUBSCRIBE, &[&format!("many/{number}/#")]), Ok(()));
            }
            assert_eq!(all.all().len(), FILTERS_MAX);
        }
    }

    #[test]
    fn the_newest_messages_are_remembered() {
        let mut copies = Copies::default();
        let mark = |number: usize| {
            let mut mark = [0; 16];
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        };
        copies.note(mark(0));
        copies.note(mark(0));
        assert_eq!(copies.of(&mark(0)), 2);
        (1..=RECENT_MAX).for_each(|number| copies.note(mark(number)));
        assert_eq!((copies.of(&mark(0)), copies.of(&mark(1))), (0, 1));
        assert_eq!(copies.counts.len(), RECENT_MAX);
    }
}
