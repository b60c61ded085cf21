//! One connection at a time has what waits for somebody: another one that comes has the former leave, and waits for
//! that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast::ShelfOwner;
use tokio::sync::{Notify, OwnedMutexGuard};

#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<BTreeMap<ShelfOwner, Seat>>);

#[derive(Debug)]
struct Seat {
    free: Arc<tokio::sync::Mutex<()>>,
    /// Tells the one that came last that another has come.
    leave: Arc<Notify>,
    /// How many have it, or wait for it.
    count: usize,
}

/// Has a seat, or waits for it.
#[derive(Debug)]
struct Claim {
    seats: Arc<Seats>,
    owner: ShelfOwner,
}

/// Has a seat until it is dropped.
#[derive(Debug)]
pub(crate) struct Seated {
    // First, since who waits is to find the seat free.
    _held: OwnedMutexGuard<()>,
    _claim: Claim,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.seats.all();
        if let Some(seat) = all.get_mut(&self.owner) {
            seat.count -= 1;
            if seat.count == 0 {
                all.remove(&self.owner);
            }
        }
    }
}

impl Seats {
    /// Takes the seat of an owner when it is free. Whoever has it is told to leave, as will be who takes it now.
    pub(crate) async fn take(self: &Arc<Self>, owner: ShelfOwner, leave: &Arc<Notify>) -> Seated {
        let (claim, free) = {
            let mut all = self.all();
            let seat = all.entry(owner).or_insert_with(|| Seat {
                free: Arc::default(),
                leave: Arc::clone(leave),
                count: 0,
            });
            seat.count += 1;
            if seat.count > 1 {
                std::mem::replace(&mut seat.leave, Arc::clone(leave)).notify_one();
            }
            let seats = Arc::clone(self);
            (Claim { seats, owner }, Arc::clone(&seat.free))
        };
        Seated {
            _held: free.lock_owned().await,
            _claim: claim,
        }
    }

    /// Whether somebody has the seat of an owner, or waits for it.
    pub(crate) fn is_taken(&self, owner: ShelfOwner) -> bool {
        self.all().contains_key(&owner)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ShelfOwner, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
