//! What waits on disk for keys, on its way in and out.

use std::sync::{Arc, Mutex};

use sealcast_engine::{Event, Missing, Parked, Parking, ParkingLimits, Reader as Machine, Space};
use sealcast_protocol::{DeviceId, Position, SessionId};

use crate::blocking::off_thread;
use crate::core::{Core, lock};
use crate::delivery::Reason;
use crate::error::Error;

/// Envelopes that are opened at once when their keys have come.
const REOPENED_AT_ONCE: usize = 256;
/// Bytes of them.
const REOPENED_BYTES: u64 = 1 << 20;

/// What one subscription has parked, and found parked. The envelopes are in the store.
///
/// Its lock is taken before that of the view, and before the store.
#[derive(Clone, Debug)]
pub(crate) struct Lot {
    core: Arc<Core>,
    index: Arc<Mutex<Index>>,
}

#[derive(Debug)]
struct Index {
    parking: Parking,
    /// What was sealed before it is left to other subscriptions.
    from: Position,
}

/// What waits for keys in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedState {
    /// Messages; a frame of several records is one.
    pub messages: u64,
    /// Their bytes on the bus.
    pub bytes: u64,
}

impl Lot {
    /// Finds what waits already.
    pub(crate) async fn open(
        core: Arc<Core>,
        limits: ParkingLimits,
        from: Position,
    ) -> Result<Self, Error> {
        let index = Index {
            parking: Parking::new(core.id(), limits),
            from,
        };
        let lot = Self {
            core,
            index: Arc::new(Mutex::new(index)),
        };
        let of = lot.clone();
        off_thread(move || {
            let mut index = lock(&of.index);
            of.core.vault().parked(&mut index.parking)
        })
        .await??;
        Ok(lot)
    }

    /// What of that of which this subscription said that it waits does so still, and why.
    pub(crate) fn waiting(&self) -> Vec<(Reason, u64)> {
        let waiting = lock(&self.index).parking.waiting().into_iter();
        waiting
            .map(|(cause, count)| (cause.into(), count))
            .collect()
    }

    /// Gives a machine what it needs to know of what waits.
    pub(crate) fn prepare(&self, machine: &mut Machine) {
        machine.park(lock(&self.index).parking.numbers().clone());
    }

    /// Whether messages of a session wait already, so that it is known that something is missing.
    pub(crate) fn has(&self, session: &SessionId, device: &DeviceId) -> bool {
        lock(&self.index).parking.has(session, device)
    }

    /// Whether the index was read anew, or keys failed on what waits, and nobody looked since.
    pub(crate) fn wants_look(&self) -> bool {
        lock(&self.index).parking.wants_look()
    }

    /// Whether anything may open.
    pub(crate) fn has_due(&self) -> bool {
        lock(&self.index).parking.has_due()
    }

    /// Whether something of a device may open, so that what came from it since is to wait for that.
    pub(crate) fn is_due(&self, device: &DeviceId) -> bool {
        lock(&self.index).parking.is_due(device)
    }

    /// Whether something has waited as long as it may.
    pub(crate) fn has_old(&self) -> bool {
        let index = lock(&self.index);
        !index.parking.is_empty() && index.parking.has_old(self.core.now())
    }

    /// What is to be told that no machine found.
    pub(crate) fn take_told(&self) -> Vec<Event> {
        lock(&self.index).parking.take_told()
    }

    /// Finds what may open by what is known now, and which keys are missing for the rest.
    pub(crate) async fn look(&self) -> Result<Vec<Missing>, Error> {
        let lot = self.clone();
        off_thread(move || {
            let mut index = lock(&lot.index);
            let from = index.from;
            index.parking.look(&lot.core.view());
            index.parking.leave_before(from);
            index.parking.missing(&lot.core.view())
        })
        .await
    }

    /// Gives up what has waited as long as it may.
    pub(crate) async fn expire(&self) -> Result<(), Error> {
        let (lot, now) = (self.clone(), self.core.now());
        off_thread(move || lot.change(|parking| parking.expire(now))).await?
    }

    /// Notes what was handed out, so that it is not handed out again.
    pub(crate) async fn forget(&self, handed_out: Vec<u64>) -> Result<(), Error> {
        {
            let mut index = lock(&self.index);
            index.parking.hand_out(handed_out);
            if !index.parking.has_handed_out() {
                return Ok(());
            }
        }
        let lot = self.clone();
        off_thread(move || lot.change(Parking::record_handed_out)).await?
    }

    /// Lets wait what a machine could not open. It is durable when this returns; where it fails, it
    /// may be called again.
    pub(crate) fn park(&self, machine: &mut Machine) -> Result<(), Error> {
        if !machine.has_unopened() {
            return Ok(());
        }
        let now = self.core.now();
        let parked: Vec<Parked> = self.change(|parking| {
            let unopened = machine.unopened();
            unopened.map(|of| parking.admit(now, of)).collect()
        })?;
        machine.settle(parked);
        Ok(())
    }

    /// Opens some of what may open by now. Fails, once for it, where one of them is damaged; the others
    /// were opened all the same.
    pub(crate) fn reopen(&self, machine: &mut Machine) -> Result<(), Error> {
        let taken = {
            let parking = &mut lock(&self.index).parking;
            let vault = self.core.vault();
            vault.take_parked(parking, REOPENED_AT_ONCE, REOPENED_BYTES)?
        };
        for (number, bytes) in taken.envelopes {
            let reopened = machine.reopen(&self.core.view(), number, &bytes);
            lock(&self.index).parking.put_back(number, reopened);
        }
        taken.damage.map_or(Ok(()), Err)
    }

    /// Changes what waits, in one transaction.
    fn change<T>(&self, work: impl FnOnce(&mut Parking) -> T) -> Result<T, Error> {
        let parking = &mut lock(&self.index).parking;
        let changed = self.core.vault().change_parked(parking, work);
        match changed {
            Ok(_) => parking.kept(),
            Err(_) => parking.abandon(),
        }
        changed
    }
}

/// What waits in a stream. Reads the store on the calling thread.
pub(crate) fn state(core: &Core) -> Result<ParkedState, Error> {
    let mut parking = Parking::new(core.id(), ParkingLimits::default());
    let rows = core.vault().of_stream(Space::Parked, &core.id())?;
    let rows = rows.iter().map(|(id, value)| (&id[..], value.expose()));
    parking.restore(None, rows);
    let (messages, bytes) = parking.used();
    Ok(ParkedState { messages, bytes })
}
