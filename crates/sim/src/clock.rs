//! Time passes, and what falls due meanwhile happens.

use crate::around::Stop;
use crate::world::World;

/// Things that happen while time passes, at most.
const EVENTS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Landing,
    Asker(usize),
    Responder(usize),
    Node(usize),
}

impl World {
    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.around.now + ms;
        for _ in 0..EVENTS_MAX {
            let next = self.next().filter(|(at, _)| *at <= until);
            let Some((at, next)) = next.filter(|_| self.around.violation.is_none()) else {
                break;
            };
            self.around.now = self.around.now.max(at);
            self.happen(next);
        }
        self.around.now = self.around.now.max(until);
    }

    fn next(&self) -> Option<(u64, Next)> {
        let landing = self.around.air.next_at().map(|at| (at, Next::Landing));
        let devices = self.devices.iter();
        let due = devices.flat_map(|of| {
            let run = of.run.as_deref();
            let asks = run.and_then(|run| run.asks_at(of.skew_ms));
            let answers = run.and_then(|run| run.answers_at(of.skew_ms));
            let asks = asks.map(|at| (at, Next::Asker(of.at)));
            let answers = answers.map(|at| (at, Next::Responder(of.at)));
            let releasing = run.and_then(crate::device::Run::releasing);
            let releases = releasing.and_then(|releasing| {
                let items = self.around.bus.len(releasing.inbox());
                releasing.next_at(of.skew_ms, items)
            });
            let releases = releases.map(|at| (at, Next::Node(of.at)));
            asks.into_iter().chain(answers).chain(releases)
        });
        due.chain(landing).min()
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Landing => {
                if let Some(flight) = self.around.air.land() {
                    self.work(flight.to, |acting| acting.answer_item(&flight.bytes));
                }
            }
            Next::Asker(at) => self.work(at, |acting| acting.tick_asking()),
            Next::Responder(at) => self.work(at, |acting| acting.tick_answering()),
            Next::Node(at) => self.work(at, |acting| acting.tick_releasing()),
        }
    }

    /// Lets a device do something besides its steps. It may crash there.
    fn work(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut crate::device::Acting<'_>) -> Result<(), Stop>,
    ) {
        if self.devices.get(at).is_none_or(|of| of.run.is_none()) {
            return;
        }
        if self.crashes && self.around.chance.hits(1, 300) {
            self.around.fuse = Some(self.around.chance.below(6));
        }
        if let Some((device, around)) = self.at(at) {
            let result = device.act(around, step);
            self.ended(at, result);
        }
    }
}
