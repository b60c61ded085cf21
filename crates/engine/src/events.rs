//! What became of items, on its way out of a reader.

use alloc::collections::VecDeque;

use sealcast_crypto::SecretBytes;
use sealcast_protocol::{Header, OpenFrame, Record, UserId};

use crate::read::Event;

/// Events that a [`Reader`](crate::Reader) made, in order. Those of a frame's records are made when
/// they are asked for: all at once they would take more room than the frame.
#[derive(Debug, Default)]
pub struct Events(VecDeque<Queued>);

#[derive(Debug)]
enum Queued {
    Event(Event),
    Frame(Frame),
}

#[derive(Debug)]
struct Frame {
    header: Header,
    user: UserId,
    records: OpenFrame,
}

/// A record of a frame, where it lies.
#[derive(Debug)]
pub struct OpenedRecord<'a> {
    /// The frame's envelope.
    pub header: &'a Header,
    /// Who sealed it.
    pub user: &'a UserId,
    /// The record.
    pub record: Record<'a>,
}

impl Events {
    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands out the next event.
    pub fn poll(&mut self) -> Option<Event> {
        if let Some(opened) = self.poll_record() {
            return Some(Event::Opened {
                header: *opened.header,
                user: *opened.user,
                time: opened.record.time,
                payload: SecretBytes::from(opened.record.payload.to_vec()),
            });
        }
        match self.0.pop_front()? {
            Queued::Event(event) => Some(event),
            // There is none without a record in front.
            Queued::Frame(_) => None,
        }
    }

    /// Hands out the next event where it is a record of a frame, without a copy of it.
    pub fn poll_record(&mut self) -> Option<OpenedRecord<'_>> {
        while let Some(Queued::Frame(frame)) = self.0.front()
            && frame.records.is_empty()
        {
            self.0.pop_front();
        }
        let Some(Queued::Frame(frame)) = self.0.front_mut() else {
            return None;
        };
        Some(OpenedRecord {
            header: &frame.header,
            user: &frame.user,
            record: frame.records.next_record()?,
        })
    }

    /// Puts what another reader call made behind what is here.
    pub fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.0.push_back(Queued::Event(event));
    }

    pub(crate) fn push_frame(&mut self, header: Header, user: UserId, records: OpenFrame) {
        self.0.push_back(Queued::Frame(Frame {
            header,
            user,
            records,
        }));
    }
}
