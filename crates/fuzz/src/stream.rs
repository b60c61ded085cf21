//! A reader whose bus does what it likes: it loses, repeats, reorders and alters what honest devices
//! wrote, puts it where it does not belong, and carries what others made up.
//!
//! Nothing opens that was not sealed, nor outside of what was granted; and when all is shown in the
//! end, everything that was granted opens.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use sealcast_engine::{Event, Mode, Output, Reader, StreamView};
use sealcast_protocol::{Interval, Position, Sharing};

use crate::stage::{CO_READER, HOUR_MS, NOON, READER, STRANGER, Stage, readers_hour};

const STEPS_MAX: usize = 48;

pub(crate) fn stream(bytes: &[u8]) {
    static STAGE: OnceLock<Option<Stage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Stage::set(Sharing::Active));
    let Some(mut play) = stage.as_ref().and_then(Play::begin) else {
        return assert!(stage.is_none() && bytes.is_empty(), "there is a stage");
    };
    let mut choices = Unstructured::new(bytes);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() || play.step(&mut choices).is_err() {
            break;
        }
        play.look();
    }
    play.end();
}

struct Play<'a> {
    stage: &'a Stage,
    view: StreamView,
    reader: Reader,
}

impl<'a> Play<'a> {
    fn begin(stage: &'a Stage) -> Option<Self> {
        Some(Self {
            stage,
            view: stage.blank(READER)?,
            reader: Reader::new(Mode::History(Interval::ALL)),
        })
    }

    fn step(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let stage = self.stage;
        match choices.int_in_range(0..=15)? {
            0 => stage.feed(&mut self.view),
            1..=3 => {
                let (topic, item) = choices.choose(&stage.control)?;
                self.view.handle(topic, item);
            }
            4 | 5 => {
                let (topic, _) = choices.choose(&stage.control)?;
                let item = self.altered(choices)?;
                self.view.handle(topic, &item);
            }
            6 => {
                let (topic, _) = choices.choose(&stage.control)?;
                let (_, item) = choices.choose(&stage.control)?;
                self.view.handle(topic, item);
            }
            7 => {
                let by = *choices.choose(&[READER, CO_READER, STRANGER])?;
                if let Some((topic, item)) = stage.forged(choices, by)? {
                    self.view.handle(&topic, &item);
                }
            }
            8 => self.view.settle(),
            9..=11 => {
                let item = choices.choose(&stage.data)?;
                self.reader.handle(&self.view, item);
            }
            12 => {
                let item = self.altered(choices)?;
                self.reader.handle(&self.view, &item);
            }
            13 => self.reader.give_up(&self.view, choices.arbitrary()?),
            14 => self.reader = self.another(choices)?,
            _ => {
                let item = choices.choose(&stage.data)?;
                self.reader.pass(&self.view, item);
            }
        }
        Ok(())
    }

    fn another(&self, choices: &mut Unstructured<'_>) -> Result<Reader> {
        Ok(match choices.int_in_range(0..=2)? {
            0 => Reader::new(Mode::Live),
            1 => {
                let from = NOON.after(choices.int_in_range(0..=2 * HOUR_MS)?);
                let until = from.after(HOUR_MS);
                Reader::new(Mode::History(Interval { from, until }))
            }
            _ => {
                let mut reader = Reader::new(Mode::History(Interval::ALL));
                reader.park(Default::default());
                reader
            }
        })
    }

    /// Some item, of which a byte is altered or that ends too early, or something made up.
    fn altered(&self, choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let mut item = match choices.int_in_range(0..=3)? {
            0 => choices.choose(&self.stage.data)?.clone(),
            1 => {
                let len = choices.int_in_range(0..=64)?;
                return Ok(choices.bytes(len.min(choices.len()))?.to_vec());
            }
            _ => choices.choose(&self.stage.control)?.1.clone(),
        };
        let at = choices.choose_index(item.len().max(1))?;
        match choices.arbitrary()? {
            true => item.truncate(at),
            false => {
                let by: u8 = choices.arbitrary()?;
                item.iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= by);
            }
        }
        Ok(item)
    }

    /// Looks at what came out.
    fn look(&mut self) {
        while let Some(output) = self.view.poll_output() {
            if let Output::Persist(put) = output {
                assert!(!put.id.is_empty());
            }
        }
        while let Some(event) = self.reader.poll_event() {
            opened(self.stage, &event);
        }
    }

    /// Now everything is shown, twice where it was asked for.
    fn end(&mut self) {
        self.stage.feed(&mut self.view);
        if self.view.needs_reread(Position::START) || self.view.has_waiting() {
            self.stage.feed(&mut self.view);
        }
        self.look();
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        let mut texts = BTreeSet::new();
        for item in &self.stage.data {
            reader.handle(&self.view, item);
            let mut is_told = false;
            while let Some(event) = reader.poll_event() {
                is_told = true;
                texts.extend(opened(self.stage, &event));
            }
            assert!(is_told, "nothing is passed over in silence");
        }
        let granted = |at: &Position| readers_hour().contains(*at);
        let due = self.stage.sealed.iter().filter(|(_, at)| granted(at));
        let due: BTreeSet<_> = due.map(|(text, _)| text.clone()).collect();
        assert_eq!(texts, due, "what was granted opens");
    }
}

/// What an event opened, which was sealed so and granted.
fn opened(stage: &Stage, event: &Event) -> Option<Vec<u8>> {
    let Event::Opened {
        header,
        time,
        payload,
        ..
    } = event
    else {
        return None;
    };
    let text = payload.expose().to_vec();
    let sealed = stage.sealed.get(&text).copied();
    assert_eq!(sealed, Some(header.position), "what opens was sealed there");
    assert_eq!(sealed, Some(*time));
    assert!(
        readers_hour().contains(header.position),
        "nobody granted it"
    );
    Some(text)
}
