//! What became of items, on its way out of a reader.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use sealcast_crypto::SecretBytes;
use sealcast_protocol::{DataTopic, Header, OpenFrame, Record, UserId};

use crate::parking::{Parked, Unopened};
use crate::read::Event;

/// Events that a [`Reader`](crate::Reader) made, in order. Those of a frame's records are made when
/// they are asked for: all at once they would take more room than the frame.
#[derive(Debug, Default)]
pub struct Events {
    queue: VecDeque<Queued>,
    unopened: usize,
    /// What was parked and is handed out, by number.
    done: Vec<u64>,
}

#[derive(Debug)]
enum Queued {
    Event(Event),
    Frame(Frame),
    Unopened(Unopened),
    /// Behind all that is told of an envelope that was parked.
    Done(u64),
}

#[derive(Debug)]
struct Frame {
    header: Header,
    user: UserId,
    topic: Option<DataTopic>,
    records: OpenFrame,
    parked: Parked,
}

/// A record of a frame, where it lies.
#[derive(Debug)]
pub struct OpenedRecord<'a> {
    /// The frame's envelope.
    pub header: &'a Header,
    /// Who sealed it.
    pub user: &'a UserId,
    /// On which topic below the stream.
    pub topic: Option<&'a DataTopic>,
    /// The record.
    pub record: Record<'a>,
    /// Whether the envelope waited for its key.
    pub parked: Parked,
}

impl Events {
    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hands out the next event.
    pub fn poll(&mut self) -> Option<Event> {
        if let Some(opened) = self.poll_record() {
            return Some(Event::Opened {
                header: *opened.header,
                user: *opened.user,
                topic: opened.topic.cloned(),
                time: opened.record.time,
                payload: SecretBytes::from(opened.record.payload.to_vec()),
                parked: opened.parked,
            });
        }
        match self.queue.pop_front()? {
            Queued::Event(event) => Some(event),
            Queued::Unopened(mut of) => {
                self.unopened -= 1;
                Some(of.event(Parked::No))
            }
            // There is none without a record in front, and what is done was passed over.
            Queued::Frame(_) | Queued::Done(_) => None,
        }
    }

    /// Hands out the next event where it is a record of a frame, without a copy of it.
    #[inline]
    pub fn poll_record(&mut self) -> Option<OpenedRecord<'_>> {
        self.pass_over();
        let Some(Queued::Frame(frame)) = self.queue.front_mut() else {
            return None;
        };
        Some(OpenedRecord {
            header: &frame.header,
            user: &frame.user,
            topic: frame.topic.as_ref(),
            record: frame.records.next_record()?,
            parked: frame.parked,
        })
    }

    /// Takes away what is at the front and is not an event any more.
    #[inline]
    fn pass_over(&mut self) {
        loop {
            match self.queue.front() {
                Some(Queued::Frame(frame)) if frame.records.is_empty() => (),
                Some(Queued::Done(number)) => self.done.push(*number),
                Some(Queued::Frame(_) | Queued::Event(_) | Queued::Unopened(_)) | None => return,
            }
            self.queue.pop_front();
        }
    }

    /// Hands out the numbers of parked envelopes of which everything was handed out.
    pub fn take_done(&mut self) -> Vec<u64> {
        self.pass_over();
        core::mem::take(&mut self.done)
    }

    /// Puts what another reader call made behind what is here.
    pub fn append(&mut self, mut later: Self) {
        self.queue.append(&mut later.queue);
        self.done.append(&mut later.done);
        self.unopened += later.unopened;
    }

    pub(crate) fn has_unopened(&self) -> bool {
        self.unopened > 0
    }

    pub(crate) fn unopened(&self) -> impl Iterator<Item = &Unopened> {
        let count = self.unopened;
        let unopened = self.queue.iter().filter_map(|queued| match queued {
            Queued::Unopened(of) => Some(of),
            Queued::Event(_) | Queued::Frame(_) | Queued::Done(_) => None,
        });
        unopened.take(count)
    }

    /// Says what became of the unopened ones, in their order.
    pub(crate) fn settle(&mut self, parked: impl IntoIterator<Item = Parked>) {
        let mut parked = parked.into_iter();
        for queued in &mut self.queue {
            if let Queued::Unopened(of) = queued {
                let parked = parked.next().unwrap_or_default();
                *queued = Queued::Event(of.event(parked));
            }
        }
        self.unopened = 0;
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push_back(Queued::Event(event));
    }

    pub(crate) fn push_unopened(&mut self, of: Unopened) {
        self.unopened += 1;
        self.queue.push_back(Queued::Unopened(of));
    }

    pub(crate) fn push_done(&mut self, number: u64) {
        self.queue.push_back(Queued::Done(number));
    }

    pub(crate) fn push_frame(
        &mut self,
        (header, topic): (Header, Option<DataTopic>),
        user: UserId,
        records: OpenFrame,
        parked: Parked,
    ) {
        self.queue.push_back(Queued::Frame(Frame {
            header,
            user,
            topic,
            records,
            parked,
        }));
    }
}
