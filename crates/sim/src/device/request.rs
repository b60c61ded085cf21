//! Asking for all of a stream that does not open.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealcast_engine::{Event, Mode, Reader};
use sealcast_protocol::{Header, Interval, Position, UserId, Want};

use super::Acting;
use super::live::Order;
use crate::around::Stop;

/// What was asked for and has not opened, each with one message that would.
pub(super) type Lacking = BTreeMap<Want, Arc<[u8]>>;

impl Acting<'_> {
    /// Asks for the keys of all that does not open: of what the log gives, or also of what it does
    /// not. Returns how much that is.
    pub(crate) fn request(&mut self, is_beyond_log: bool) -> Result<usize, Stop> {
        self.sync()?;
        let mut lacking = Lacking::new();
        let data = self.around.data();
        let items = self.around.read(self.device.at, &data, 0, usize::MAX)?;
        let mut reader = self.reader()?;
        for item in &items {
            reader.handle(&self.run.view, &item.bytes);
            while let Some(event) = reader.poll_event() {
                let Some((lane, header)) = sealed(&event) else {
                    continue;
                };
                let interval = self.asked_around(&lane, header.position);
                let want = Want {
                    lane,
                    session: header.session,
                    interval: interval.unwrap_or(Interval::ALL),
                };
                if interval.is_some() || is_beyond_log {
                    lacking.entry(want).or_insert_with(|| item.bytes.clone());
                }
            }
        }
        for want in std::mem::take(&mut self.run.lacking).keys() {
            self.unwant(*want);
        }
        for want in lacking.keys() {
            self.want(*want);
        }
        let count = lacking.len();
        self.run.lacking = lacking;
        self.go_on_asking()?;
        Ok(count)
    }

    /// Tries the messages of all that was asked for and has not opened.
    pub(super) fn try_requested(&mut self) -> Result<(), Stop> {
        if self.run.lacking.is_empty() {
            return Ok(());
        }
        let mut reader = self.reader()?;
        let mut order = Order::default();
        for (want, item) in std::mem::take(&mut self.run.lacking) {
            reader.handle(&self.run.view, &item);
            let mut has_opened = false;
            while let Some(event) = reader.poll_event() {
                if self.check(&event, &mut order)?.is_some() {
                    has_opened = true;
                    self.note_event(&event);
                }
            }
            if !has_opened {
                self.run.lacking.insert(want, item);
            }
        }
        Ok(())
    }

    /// How much of what was asked for has not opened.
    pub(crate) fn lacking(&self) -> usize {
        self.run.lacking.len()
    }

    fn reader(&mut self) -> Result<Reader, Stop> {
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        reader.allow(self.allowed()?);
        Ok(reader)
    }

    /// What the log gives around a position.
    fn asked_around(&self, lane: &UserId, position: Position) -> Option<Interval> {
        let (me, device) = self.run.view.me();
        let readable = self.run.view.state().readable(&me, &device, lane);
        readable.into_iter().find(|of| of.contains(position))
    }
}

/// What a message says of itself that lacks a key.
fn sealed(event: &Event) -> Option<(UserId, Header)> {
    match event {
        Event::Sealed { header, user, .. } => Some((*user, *header)),
        Event::Rejected {
            header: Some(header),
            user: Some(user),
            givers,
            ..
        } if !givers.is_empty() => Some((*user, *header)),
        Event::Rejected { .. }
        | Event::Opened { .. }
        | Event::Noticed { .. }
        | Event::BadCover { .. } => None,
    }
}
