//! Whose turn it is to answer, `spec/asking.md`, section "Turns".

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sealcast_crypto::digest;
use sealcast_protocol::{DeviceId, Position, RequestId, Solicitation, UserId};

use crate::share::{Sessions, may_give};
use crate::view::StreamView;

const ORDER_LABEL: &str = "sealcast.v1 answer order";
/// Time between the turns of two keyholders, in milliseconds.
const TURN_MS: u64 = 200;
/// Keyholders that have a turn of their own; the rest share the one behind.
const TURNS_MAX: usize = 15;
/// Lanes whose keyholders are remembered, at most: anybody may ask for any.
const LANES_MAX: usize = 1_024;
/// Time over which all others spread, behind the keyholders.
const OTHERS_MS: u64 = 3_000;

/// When a device answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// How long after the request came, or something became free, in milliseconds.
    pub(super) delay: u64,
    /// Whether it is a keyholder where it comes first.
    pub(super) is_keyholder: bool,
}

/// What follows from the log and is asked for again and again.
#[derive(Debug, Default)]
pub(super) struct Ground {
    revision: Option<u64>,
    pub(super) sessions: Sessions,
    /// The devices that are keyholders of a lane.
    keyholders: BTreeMap<UserId, Vec<(UserId, DeviceId)>>,
}

impl Ground {
    /// Computes anew what the view has learned since.
    pub(super) fn refresh(&mut self, view: &StreamView) {
        if self.revision != Some(view.revision()) {
            self.revision = Some(view.revision());
            self.sessions = Sessions::of(view);
            self.keyholders.clear();
        }
    }

    fn keyholders(&mut self, view: &StreamView, lane: &UserId) -> &[(UserId, DeviceId)] {
        if self.keyholders.len() >= LANES_MAX {
            self.keyholders.clear();
        }
        self.keyholders.entry(*lane).or_insert_with(|| {
            let mut found = Vec::new();
            for user in view.state().keyholders(lane) {
                let devices = view.list(&user).into_iter().flat_map(|list| list.devices());
                let holders = devices
                    .filter(|(device, _)| view.state().is_keyholder(&user, device, lane))
                    .map(|(device, _)| (user, *device));
                found.extend(holders);
            }
            found
        })
    }

    /// When it is this device's turn, in the lane in which it comes first.
    pub(super) fn turn(&mut self, view: &StreamView, now: Position, asked: &Solicitation) -> Turn {
        let lanes = lanes(asked);
        let turns = lanes
            .iter()
            .map(|lane| self.turn_in(view, now, asked, lane));
        turns.min_by_key(|of| of.delay).unwrap_or_default()
    }

    fn turn_in(
        &mut self,
        view: &StreamView,
        now: Position,
        asked: &Solicitation,
        lane: &UserId,
    ) -> Turn {
        let me = view.me().1;
        let mine = order(&asked.request, &me);
        let (mut ahead, mut all, mut is_keyholder) = (0, 0, false);
        for (user, device) in self.keyholders(view, lane) {
            let list = view.list(user);
            let of = list.and_then(|list| list.device(device));
            if *device == asked.device || !of.is_some_and(|of| of.is_live(now)) {
                continue;
            }
            all += 1;
            is_keyholder |= *device == me;
            ahead += usize::from(order(&asked.request, device) < mine);
        }
        let turns = |count: usize| TURN_MS * count.min(TURNS_MAX) as u64;
        let delay = match is_keyholder {
            true => turns(ahead),
            false => {
                let [a, b, c, d, ..] = mine;
                let share = u64::from(u32::from_be_bytes([a, b, c, d]));
                turns(all) + ((share * OTHERS_MS) >> 32)
            }
        };
        Turn {
            delay,
            is_keyholder,
        }
    }
}

/// The lanes that are asked for, each once.
fn lanes(asked: &Solicitation) -> Vec<UserId> {
    let mut lanes: Vec<_> = asked.wants.iter().map(|want| want.lane).collect();
    lanes.dedup();
    lanes
}

/// Where a device stands among those that may answer a request.
fn order(request: &RequestId, device: &DeviceId) -> [u8; 32] {
    *digest(ORDER_LABEL, &[&request.0, &device.0]).as_bytes()
}

/// Whether a device may hold another back that answers a want of a lane: a keyholder whom no one else
/// holds back, and anyone who may give those who are none.
pub(super) fn may_hold_back(
    view: &StreamView,
    asked: &Solicitation,
    lane: &UserId,
    claimer: (UserId, DeviceId),
) -> bool {
    let (me, device) = view.me();
    let state = view.state();
    let is_keyholder = state.is_keyholder(&claimer.0, &claimer.1, lane);
    (is_keyholder || !state.is_keyholder(&me, &device, lane))
        && !may_give(view, claimer, lane, &asked.user).is_empty()
}

/// Whether, of two devices that answer a want at once, the first goes on.
pub(super) fn is_before(
    view: &StreamView,
    asked: &Solicitation,
    lane: &UserId,
    a: (UserId, DeviceId),
    b: (UserId, DeviceId),
) -> bool {
    let rank = |(user, device): (UserId, DeviceId)| {
        let is_keyholder = view.state().is_keyholder(&user, &device, lane);
        (!is_keyholder, order(&asked.request, &device))
    };
    rank(a) < rank(b)
}
