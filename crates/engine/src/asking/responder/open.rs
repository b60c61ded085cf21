//! One request of another device, checked and not done with.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sealcast_crypto::WrapKey;
use sealcast_protocol::{DeviceId, Position, Solicitation, UserId};

use crate::asking::turn::Turn;

/// Users whose claims hold others back in one request, at most.
const CLAIMERS_MAX: usize = 3;
/// Signatures of replies to one request that are checked, at most.
const CHECKS_MAX: u32 = 64;
/// Users whose verified answers end a want without a receipt.
const GIVERS_MAX: usize = 3;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) asked: Solicitation,
    pub(super) key: WrapKey,
    pub(super) len: usize,
    /// When nobody waits for it any more.
    pub(super) until: Position,
    pub(super) turn: Turn,
    pub(super) turn_at: Position,
    pub(super) stage: Stage,
    pub(super) wake_at: Position,
    pub(super) is_followed: bool,
    checks: u32,
    places: Vec<Place>,
    claimers: BTreeSet<UserId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For a turn, or for others' claims to lapse.
    Waiting,
    /// The application was asked about these places.
    Deciding(Vec<u8>),
}

/// A want at its place, as far as this device knows.
#[derive(Debug, Default)]
struct Place {
    /// By a receipt.
    is_met: bool,
    /// From here, by a bundle or a refusal.
    is_answered: bool,
    /// By another keyholder.
    is_refused: bool,
    /// Who answers it, and until when others wait for that.
    held: Option<(DeviceId, Position)>,
    givers: BTreeSet<UserId>,
}

impl Open {
    pub(super) fn new(
        asked: Solicitation,
        key: WrapKey,
        len: usize,
        now: Position,
        turn: Turn,
    ) -> Self {
        let lives = asked.expires.0.saturating_sub(asked.time.0);
        let turn_at = now.after(turn.delay);
        let places = asked.wants.iter().map(|_| Place::default()).collect();
        Self {
            asked,
            key,
            len,
            until: now.after(lives),
            turn,
            turn_at,
            stage: Stage::Waiting,
            wake_at: turn_at,
            is_followed: false,
            checks: 0,
            places,
            claimers: BTreeSet::new(),
        }
    }

    /// The places that are neither met nor given often enough, nor answered from here.
    fn left(&self) -> impl Iterator<Item = (u8, &Place)> {
        let left = (0..).zip(&self.places);
        left.filter(|(_, of)| !of.is_met && !of.is_answered && of.givers.len() < GIVERS_MAX)
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().next().is_none()
    }

    /// The places that nobody else is about to answer.
    pub(super) fn free(&self, now: Position) -> Vec<u8> {
        let free = self
            .left()
            .filter(|(_, of)| of.held.is_none_or(|(_, until)| until <= now));
        free.map(|(at, _)| at).collect()
    }

    /// Whether somebody claimed what is left, and did not bring it to an end.
    pub(super) fn has_lapsed(&self, now: Position) -> bool {
        let mut held = self.left().filter_map(|(_, of)| of.held);
        held.any(|(_, until)| until <= now)
    }

    /// When it is this device's turn after the first of the others' claims has lapsed.
    pub(super) fn next_turn(&self, now: Position) -> Option<Position> {
        let held = self.left().filter_map(|(_, of)| of.held);
        let lapse = held.map(|(_, until)| until).filter(|until| *until > now);
        lapse.min().map(|at| at.after(self.turn.delay))
    }

    /// Counts the check of a reply's signature; false where there were too many.
    pub(super) fn may_check(&mut self) -> bool {
        self.checks = self.checks.saturating_add(1);
        self.checks <= CHECKS_MAX
    }

    fn place(&mut self, at: u8) -> Option<&mut Place> {
        self.places.get_mut(usize::from(at))
    }

    pub(super) fn is_answered(&self, at: u8) -> bool {
        let place = self.places.get(usize::from(at));
        place.is_some_and(|of| of.is_answered)
    }

    pub(super) fn is_refused(&self, at: u8) -> bool {
        let place = self.places.get(usize::from(at));
        place.is_some_and(|of| of.is_refused)
    }

    /// Whether another claim of this user would hold anybody back.
    pub(super) fn heeds(&self, user: &UserId) -> bool {
        !self.claimers.contains(user) && self.claimers.len() < CLAIMERS_MAX
    }

    /// Lets a device answer places alone until a time.
    pub(super) fn hold(&mut self, user: UserId, device: DeviceId, places: &[u8], until: Position) {
        self.claimers.insert(user);
        for at in places {
            if let Some(place) = self.place(*at) {
                place.held = Some((device, until));
            }
        }
    }

    /// Notes that a device gave at a place, and waits for the receipt until a time; once for each
    /// user.
    pub(super) fn give(&mut self, user: UserId, device: DeviceId, at: u8, until: Position) {
        if let Some(place) = self.place(at)
            && place.givers.insert(user)
        {
            place.held = Some((device, until));
        }
    }

    /// Notes that another keyholder refused: it does not give, and nobody need refuse again.
    pub(super) fn refuse(&mut self, device: DeviceId, at: u8) {
        if let Some(place) = self.place(at) {
            place.is_refused = true;
            place.held = place.held.filter(|(by, _)| *by != device);
        }
    }

    pub(super) fn meet(&mut self, at: u8) {
        if let Some(place) = self.place(at) {
            place.is_met = true;
        }
    }

    pub(super) fn answer(&mut self, at: u8) {
        if let Some(place) = self.place(at) {
            place.is_answered = true;
        }
    }
}
