//! Reading the control topics, and keeping what they say.

use std::collections::BTreeSet;

use sealcast_engine::{Alarm, ControlTopic, Output, Put};

use super::Acting;
use crate::around::Stop;
use crate::home::News;
use crate::place::{Keeping, Place, topic_id};
use crate::plant::Plant;

/// Items that are read from a topic at once.
const READ_MAX: usize = 64;
/// How old the reading of the access log may be when a batch is drawn up.
const FRESH_FOR_MS: u64 = 3_000;
/// How old it may be when the batch is sealed.
const SEAL_WITHIN_MS: u64 = 5_000;

impl Acting<'_> {
    fn is_read_within(&self, ms: u64) -> bool {
        let age = self.run.read_at.map(|at| self.around.now.abs_diff(at));
        age.is_some_and(|age| age <= ms)
    }

    pub(crate) fn may_seal(&self) -> bool {
        self.is_read_within(SEAL_WITHIN_MS)
    }

    pub(crate) fn freshen(&mut self) -> Result<(), Stop> {
        match self.is_read_within(FRESH_FOR_MS) {
            true => Ok(()),
            false => self.sync(),
        }
    }

    /// Reads every control topic to its end, until none names another, and keeps what it learns.
    pub(crate) fn sync(&mut self) -> Result<(), Stop> {
        let started = self.around.now;
        self.read_all()?;
        self.compare_lost()?;
        if self.put_back()? {
            self.read_all()?;
        }
        self.keep()?;
        self.run.read_at = Some(started);
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), Stop> {
        loop {
            let mut is_news = false;
            for of in self.run.view.wanted() {
                is_news |= of != ControlTopic::Keys && self.read_on(&of)?;
            }
            self.run.view.settle();
            if !is_news {
                break;
            }
        }
        let now = self.now();
        if self.run.view.needs_reread(now) {
            let keys = topic_id(&self.around.keys());
            self.run.places.read_again(keys);
            self.run.rereads_keys = true;
        }
        self.read_on(&ControlTopic::Keys)?;
        self.run.rereads_keys = false;
        self.run.view.settle();
        Ok(())
    }

    /// Reads one topic to its end. A bus that does not show what it showed before is read from its
    /// start again.
    fn read_on(&mut self, of: &ControlTopic) -> Result<bool, Stop> {
        let name = of.name(self.around.stream);
        let (id, who) = (topic_id(&name), self.device.at);
        let place = self.run.places.of(&id);
        let end = self.around.end(who, &name)?;
        let is_known = place.last().is_none() || self.run.places.is_checked(&id, self.around.now);
        let shown = self.run.places.shown(&id);
        if end == place.at && is_known && shown.is_none() {
            return Ok(false);
        }
        let mut from = place.last().unwrap_or(place.at);
        let mut items = match end < place.at {
            true => Vec::new(),
            false => self.around.read(who, &name, from, READ_MAX)?,
        };
        let mut next = place;
        if !place.is_shown(items.first()) || !self.still_shows(&name, shown, end)? {
            self.roll_back(of)?;
            self.run.gone_back.insert(*of);
            self.note_lost(of, id);
            next = Place::default();
            from = next.at;
            items = self.around.read(who, &name, from, READ_MAX)?;
        }
        let mut is_news = false;
        while let Some(last) = items.last() {
            from = last.offset + 1;
            let behind = Place::behind(last);
            for item in items.iter().filter(|item| item.offset >= next.at) {
                is_news = true;
                self.run.view.handle(of, &item.bytes);
                self.run.taken_in.push((id, item.bytes.clone()));
            }
            next = behind;
            self.move_to(id, next);
            if from >= end {
                break;
            }
            items = self.around.read(who, &name, from, READ_MAX)?;
        }
        self.move_to(id, next);
        self.run.places.forget_shown(&id);
        self.run.owes_keys |= is_news;
        Ok(is_news)
    }

    /// Whether a topic still shows what it showed beyond the place from which it is read on.
    fn still_shows(&mut self, topic: &str, shown: Option<Place>, end: u64) -> Result<bool, Stop> {
        let Some(shown) = shown else {
            return Ok(true);
        };
        let items = match shown.last().filter(|_| shown.at <= end) {
            Some(last) => self.around.read(self.device.at, topic, last, 1)?,
            None => Vec::new(),
        };
        Ok(shown.is_shown(items.first()))
    }

    fn move_to(&mut self, topic: [u8; 32], place: Place) {
        if self.run.places.of(&topic) != place {
            self.run.moved.insert(topic, place);
        }
        self.run.places.set(topic, place, self.around.now);
    }

    /// How far a control topic was read.
    pub(crate) fn place_in(&self, of: &ControlTopic) -> u64 {
        let id = topic_id(&of.name(self.around.stream));
        self.run.places.of(&id).at
    }

    /// Makes durable what was learned. How far a topic was read is kept with it, or later; how far it
    /// was shown, with it, unless the bus went back since.
    pub(crate) fn keep(&mut self) -> Result<(), Stop> {
        self.run.view.settle();
        let stream = self.around.stream;
        let id = |of: &ControlTopic| topic_id(&of.name(stream));
        let gone_back: BTreeSet<_> = self.run.gone_back.iter().map(id).collect();
        let keys = id(&ControlTopic::Keys);
        self.drain();
        let is_owed = self.run.rereads_keys || self.run.view.owes_reread();
        let by = self.run.view.read_by();
        let mut held_back = gone_back.clone();
        if is_owed {
            held_back.insert(keys);
        }
        let place = self.run.places.of(&keys);
        self.run.moved.entry(keys).or_insert(place);
        held_back.extend(self.run.view.has_waiting().then_some(keys));
        let hidden = self.run.view.hidden_lists().into_iter();
        held_back.extend(hidden.map(|user| id(&ControlTopic::Devices(user))));
        let due = self.run.moved.iter().filter_map(|(topic, place)| {
            let keeping = match (gone_back.contains(topic), held_back.contains(topic)) {
                (true, _) if is_owed && *topic == keys => Keeping::StartAsShown,
                (true, _) => return None,
                (false, true) if is_owed && *topic == keys => Keeping::Start,
                (false, true) => Keeping::AsItWas,
                (false, false) => Keeping::Read,
            };
            let by = (*topic == keys).then_some(by);
            let reached = self.run.places.due(*topic, *place, by, keeping)?;
            Some((*topic, reached))
        });
        let news = News {
            places: due.collect(),
            puts: std::mem::take(&mut self.run.puts),
            forgets_given: self.run.forgets_given,
            taken_in: std::mem::take(&mut self.run.taken_in),
            lost: self.run.lost.due(),
        };
        let is_empty = news.puts.is_empty()
            && news.places.is_empty()
            && !news.forgets_given
            && news.lost.is_empty();
        if is_empty && news.taken_in.is_empty() {
            return Ok(());
        }
        let me = self.device.identity.device();
        if self.device.home.has_unknown(me, &news.puts)? {
            self.tell(Alarm::HomeWentBack);
        }
        let places = news.places.clone();
        self.keep_in_parts(news)?;
        for (topic, reached) in places {
            self.run.places.keep(topic, reached);
        }
        self.run.lost.keep();
        self.run.forgets_given = false;
        self.run.moved.retain(|topic, _| held_back.contains(topic));
        Ok(())
    }

    fn keep_in_parts(&mut self, news: News) -> Result<(), Stop> {
        self.effect("keep what it learned")?;
        if self.around.plant == Some(Plant::PlaceBeforeKeys) {
            self.device.home.keep(&News {
                places: news.places,
                taken_in: news.taken_in,
                ..News::default()
            })?;
            self.effect("keep the keys")?;
            return self.device.home.keep(&News {
                puts: news.puts,
                forgets_given: news.forgets_given,
                ..News::default()
            });
        }
        self.device.home.keep(&news)
    }

    /// Whether the bus shows an item below this device's place in a topic that it never took in, and
    /// the item just before that place is the one that was there: it cannot tell.
    pub(crate) fn was_deceived(&mut self) -> Result<bool, Stop> {
        for of in self.run.view.wanted() {
            let name = of.name(self.around.stream);
            let id = topic_id(&name);
            let place = self.run.places.of(&id);
            let items = self.around.read(self.device.at, &name, 0, usize::MAX)?;
            let last = place.last().and_then(|last| items.get(last as usize));
            let mut below = items.iter().take_while(|item| item.offset < place.at);
            let home = &self.device.home;
            if place.is_shown(last) && below.any(|item| !home.has_taken_in(id, &item.bytes)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes out what the view wants kept or told.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.run.view.poll_output() {
            match output {
                Output::Persist(put) => self.run.puts.push(put),
                Output::Tell(alarm) => self.tell(alarm),
            }
        }
    }

    /// Forgets what was to be kept of keys given to others.
    pub(crate) fn forget_puts(&mut self, unwanted: impl Fn(&Put) -> bool) {
        self.run.puts.retain(|put| !unwanted(put));
        self.run.forgets_given = true;
    }
}
