//! Places for clients: so many for all, and fewer for those of one address, so that nobody takes them all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// How often it is told, at most, that clients are turned away.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    address_max: Option<usize>,
    taken: Mutex<Taken>,
    turned_away: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: BTreeMap<IpAddr, usize>,
    told: Option<Instant>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    origin: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of) = taken.of.get_mut(&self.origin) {
            *of = of.saturating_sub(1);
            if *of == 0 {
                taken.of.remove(&self.origin);
            }
        }
    }
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.connections_max,
            address_max: limits.address_connections_max,
            taken: Mutex::default(),
            turned_away: AtomicU64::new(0),
        }
    }

    /// A place for a client of some address, if there is one.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let origin = origin(address);
        let mut taken = self.taken();
        let own = taken.of.get(&origin).copied().unwrap_or_default();
        if taken.all < self.max && own < self.max_of(origin) {
            taken.all += 1;
            taken.of.insert(origin, own + 1);
            let places = Arc::clone(self);
            return Some(Place { places, origin });
        }
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        if taken.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            taken.told = Some(Instant::now());
            let (connections, of_address) = (taken.all, own);
            let says = "clients are turned away, there are too many";
            tracing::warn!(connections, of_address, "{says}");
        }
        None
    }

    /// How many are taken.
    pub(crate) fn taken_now(&self) -> usize {
        self.taken().all
    }

    /// How many came and found none.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn max_of(&self, origin: IpAddr) -> usize {
        match self.address_max {
            Some(max) => max,
            // Those of this machine, which may be all there are.
            None if origin.is_loopback() => self.max,
            None => self.max.div_ceil(2),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address: of IPv6 the network that one customer has at least.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max: usize, address_max: Option<usize>) -> Arc<Places> {
        Arc::new(Places::new(&Limits {
            connections_max: max,
            address_connections_max: address_max,
            ..Limits::default()
        }))
    }

    fn take(places: &Arc<Places>, address: &str) -> Option<Place> {
        places.take(address.parse().unwrap())
    }

    #[test]
    fn those_of_one_address_take_no_more_than_half_unless_it_is_said_or_they_are_of_this_machine() {
        let all = places(4, None);
        let one = "192.0.2.1";
        let held: Vec<_> = (0..4).filter_map(|_| take(&all, one)).collect();
        assert_eq!((held.len(), all.turned_away()), (2, 2));
        let own: Vec<_> = (0..4).filter_map(|_| take(&all, "127.0.0.1")).collect();
        assert_eq!((own.len(), all.taken_now()), (2, 4));
        drop(held);
        assert_eq!(all.taken_now(), 2);
        let again = take(&all, "::ffff:192.0.2.1");
        assert!(again.is_some() && take(&all, one).is_some());
        let few = places(4, Some(1));
        let held = take(&few, "127.0.0.1");
        assert!(held.is_some() && take(&few, "127.0.0.1").is_none());
        assert!(take(&few, "127.0.0.2").is_some());
    }

    #[test]
    fn of_version_six_a_network_is_one_address_and_nothing_is_kept_of_who_has_left() {
        let all = places(100, Some(2));
        let held: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
            .map(|of| take(&all, of))
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(held.len(), 2);
        assert!(take(&all, "2001:db8:0:1::1").is_some());
        drop(held);
        assert_eq!(all.taken().of.len(), 0);
    }
}
