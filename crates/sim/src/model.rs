//! Who must and who must not open what, said as plainly as possible: a set of grants, removals and
//! messages, each with what its author knew. None of it is computed as the engine computes it.

use std::collections::BTreeSet;

use sealcast_protocol::{
    DeviceId, Grant, Interval, LogBody, LogHash, Position, Roles, Targets, UserId,
};

use crate::ground::{Entries, Ground, Message, Written};

/// A device of a user.
pub(crate) type Who = (UserId, DeviceId);

/// A position of a lane, and what somebody knew of the access log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) lane: &'a UserId,
    pub(crate) at: Position,
    pub(crate) known: &'a Entries,
}

impl Message {
    /// Where it was sealed, and what its publisher knew.
    pub(crate) fn spot(&self) -> Spot<'_> {
        Spot {
            lane: &self.user,
            at: self.header.position,
            known: &self.known,
        }
    }
}

/// Whether anything that was known entitles a device to a spot. What is not certain counts as a
/// right.
pub(crate) fn may_open(ground: &Ground, owner: &UserId, who: Who, spot: &Spot<'_>) -> bool {
    let (user, device) = who;
    if is_known_out(ground, who, spot.known) {
        return false;
    }
    if user == *owner || user == *spot.lane {
        return true;
    }
    has_right(ground, owner, who, spot, |grant| {
        reaches(grant, &device, spot)
    })
}

/// Whether anything lets a device hand keys of a spot on to a user's device that asks. What is not
/// certain counts as a right.
pub(crate) fn may_give(
    ground: &Ground,
    owner: &UserId,
    who: Who,
    to: UserId,
    spot: &Spot<'_>,
) -> bool {
    let (user, device) = who;
    if is_known_out(ground, who, spot.known) {
        return false;
    }
    if user == *owner || user == *spot.lane || user == to {
        return true;
    }
    has_right(ground, owner, who, spot, |grant| {
        let is_admin = grant.roles.contains(Roles::ADMIN);
        reaches(grant, &device, spot) && (grant.reshare || is_admin)
    })
}

/// Whether a device's own user took it out, as far as was known.
fn is_known_out(ground: &Ground, (user, device): Who, known: &Entries) -> bool {
    removals(ground)
        .any(|(number, _, targets)| known.contains(number) && names_device(targets, &user, &device))
}

/// Whether a grant of a kind to a user was known, and no removal of it.
fn has_right(
    ground: &Ground,
    owner: &UserId,
    (user, _): Who,
    spot: &Spot<'_>,
    is_meant: impl Fn(&Grant) -> bool,
) -> bool {
    let mut rights = grants_to(ground, &user).filter(|(_, grant)| is_meant(grant));
    rights.any(|(number, grant)| {
        let removals = removals(ground).filter(|(at, ..)| spot.known.contains(*at));
        let mut removals = removals.filter(|(at, of, _)| {
            !written(ground, number).is_some_and(|entry| entry.past.contains(*at))
                && is_certain(ground, owner, of)
        });
        !removals.any(|(_, of, targets)| {
            let entry = written(ground, number);
            entry.is_some_and(|entry| {
                hits(targets, &user, &entry.hash)
                    && takes(ground, owner, of, &user, grant, spot.lane)
            })
        })
    })
}

/// Which entries the bus still shows.
pub(crate) type IsOnBus<'a> = &'a dyn Fn(&Written) -> bool;

/// Whether a device must be able to open a message once all faults have stopped. What is not certain
/// counts as no right.
pub(crate) fn must_open(
    ground: &Ground,
    owner: &UserId,
    (user, device): Who,
    message: &Message,
    is_on_bus: IsOnBus<'_>,
) -> bool {
    let sender = message.user;
    let publishes = sender == *owner
        || (is_user_never_targeted(ground, &sender)
            && grants_to(ground, &sender).any(|(number, grant)| {
                message.known.contains(number)
                    && counts(ground, owner, number, is_on_bus)
                    && may_publish(grant, &message.header.device, message.header.position)
            }));
    let reads = |(number, grant): (usize, &Grant)| {
        let publishes = user == sender && publishes_on(grant, &device);
        (publishes || reaches(grant, &device, &message.spot()))
            && counts(ground, owner, number, is_on_bus)
    };
    publishes
        && !ground.is_ever_out(&message.header.device)
        && !ground.is_ever_out(&device)
        && (user == *owner
            || device == message.header.device
            || grants_to(ground, &user).any(reads))
}

/// Whether a device certainly may read all of an interval of a lane, by one grant. What is not certain
/// counts as no right.
pub(crate) fn must_read_all(
    ground: &Ground,
    owner: &UserId,
    (user, device): Who,
    (lane, interval): (&UserId, &Interval),
    is_on_bus: IsOnBus<'_>,
) -> bool {
    let reads = |(number, grant): (usize, &Grant)| {
        let is_lane = grant.lanes.is_empty() || grant.lanes.contains(lane);
        is_lane
            && is_for(grant, &device)
            && grant.roles.contains(Roles::READER)
            && grant.interval.covers(interval)
            && counts(ground, owner, number, is_on_bus)
    };
    !ground.is_ever_out(&device) && grants_to(ground, &user).any(reads)
}

/// Whether a device must be able to hand the keys of a message on to a user's device that asks. What
/// is not certain counts as no right.
pub(crate) fn must_give(
    ground: &Ground,
    owner: &UserId,
    (user, device): Who,
    to: UserId,
    message: &Message,
    is_on_bus: IsOnBus<'_>,
) -> bool {
    let mut shared = grants_to(ground, &user).filter(|(_, grant)| grant.reshare);
    !ground.is_ever_out(&device)
        && (user == to
            || shared.any(|(number, grant)| {
                reaches(grant, &device, &message.spot()) && counts(ground, owner, number, is_on_bus)
            }))
}

/// Whether a grant certainly stands.
fn counts(ground: &Ground, owner: &UserId, number: usize, is_on_bus: IsOnBus<'_>) -> bool {
    let forked = ground.forked();
    written(ground, number).is_some_and(|entry| {
        let LogBody::Grant(grant) = &entry.body else {
            return false;
        };
        is_on_bus(entry)
            && !forked.contains(&entry.device)
            && !ground.is_ever_out(&entry.device)
            && is_never_targeted(ground, &grant.user, &entry.hash, &entry.past)
            && (entry.user == *owner || is_admin_for_good(ground, owner, &entry.user, &forked))
    })
}

/// Whether anybody ever tried to take something from a user.
pub(crate) fn is_user_never_targeted(ground: &Ground, user: &UserId) -> bool {
    let mut hashes = grants_to(ground, user).filter_map(|(number, _)| written(ground, number));
    let hashes: BTreeSet<_> = hashes.by_ref().map(|of| of.hash).collect();
    !removals(ground).any(|(_, _, targets)| match targets {
        Targets::Users(users) => users.contains(user),
        Targets::Grants(ids) => ids.iter().any(|id| hashes.contains(id)),
        Targets::Devices(devices) => devices.iter().any(|of| of.user == *user),
    })
}

fn written(ground: &Ground, number: usize) -> Option<&Written> {
    ground.entries.get(number)
}

fn grants_to<'a>(
    ground: &'a Ground,
    user: &'a UserId,
) -> impl Iterator<Item = (usize, &'a Grant)> + 'a {
    let entries = ground.entries.iter().enumerate();
    entries.filter_map(move |(number, of)| match &of.body {
        LogBody::Grant(grant) if grant.user == *user => Some((number, grant)),
        LogBody::Grant(_)
        | LogBody::Genesis(_)
        | LogBody::Revoke(_)
        | LogBody::Settings(_)
        | LogBody::KeyNodes(_)
        | LogBody::Close
        | LogBody::Approve(_) => None,
    })
}

fn removals(ground: &Ground) -> impl Iterator<Item = (usize, &Written, &Targets)> {
    let entries = ground.entries.iter().enumerate();
    entries.filter_map(|(number, of)| match &of.body {
        LogBody::Revoke(revoke) => Some((number, of, &revoke.targets)),
        LogBody::Grant(_)
        | LogBody::Genesis(_)
        | LogBody::Settings(_)
        | LogBody::KeyNodes(_)
        | LogBody::Close
        | LogBody::Approve(_) => None,
    })
}

/// Whether a grant, if it counts, lets a device of its user read at a spot.
fn reaches(grant: &Grant, device: &DeviceId, spot: &Spot<'_>) -> bool {
    let is_lane = grant.lanes.is_empty() || grant.lanes.contains(spot.lane);
    let reads = grant.roles.contains(Roles::READER);
    is_for(grant, device)
        && (grant.roles.contains(Roles::ADMIN)
            || (reads && is_lane && grant.interval.contains(spot.at)))
}

fn is_for(grant: &Grant, device: &DeviceId) -> bool {
    grant.devices.is_empty() || grant.devices.contains(device)
}

/// Whether a grant, if it counts, makes a device a keyholder of its user's lane.
fn publishes_on(grant: &Grant, device: &DeviceId) -> bool {
    is_for(grant, device) && grant.roles.contains(Roles::PUBLISHER)
}

fn may_publish(grant: &Grant, device: &DeviceId, at: Position) -> bool {
    let publishes = grant.roles.contains(Roles::PUBLISHER) && grant.interval.contains(at);
    is_for(grant, device) && (grant.roles.contains(Roles::ADMIN) || publishes)
}

fn hits(targets: &Targets, user: &UserId, grant: &LogHash) -> bool {
    match targets {
        Targets::Users(users) => users.contains(user),
        Targets::Grants(ids) => ids.contains(grant),
        Targets::Devices(_) => false,
    }
}

fn names_device(targets: &Targets, user: &UserId, device: &DeviceId) -> bool {
    match targets {
        Targets::Devices(devices) => devices
            .iter()
            .any(|of| (of.user, of.device) == (*user, *device)),
        Targets::Users(_) | Targets::Grants(_) => false,
    }
}

/// Whether a removal counts whatever else was written.
fn is_certain(ground: &Ground, owner: &UserId, removal: &Written) -> bool {
    let is_of_owner = removal.user == *owner && !ground.is_ever_out(&removal.device);
    is_of_owner || is_user_never_targeted(ground, &removal.user)
}

/// Whether a removal by its author's role reaches what a grant gives of a lane.
fn takes(
    ground: &Ground,
    owner: &UserId,
    removal: &Written,
    user: &UserId,
    grant: &Grant,
    lane: &UserId,
) -> bool {
    if removal.user == *owner {
        return true;
    }
    let was_admin = |user: &UserId| {
        grants_to(ground, user).any(|(_, grant)| grant.roles.contains(Roles::ADMIN))
    };
    // What it was made later does not reach back.
    let by_admin = grants_to(ground, &removal.user)
        .any(|(number, grant)| removal.past.contains(number) && grant.roles.contains(Roles::ADMIN));
    match by_admin {
        true => !was_admin(user),
        false => removal.user == *lane && !grant.roles.contains(Roles::ADMIN),
    }
}

fn is_never_targeted(ground: &Ground, user: &UserId, grant: &LogHash, past: &Entries) -> bool {
    !removals(ground)
        .any(|(number, _, targets)| !past.contains(number) && hits(targets, user, grant))
}

fn is_admin_for_good(
    ground: &Ground,
    owner: &UserId,
    user: &UserId,
    forked: &BTreeSet<DeviceId>,
) -> bool {
    is_user_never_targeted(ground, user)
        && grants_to(ground, user).any(|(number, grant)| {
            grant.roles.contains(Roles::ADMIN)
                && written(ground, number).is_some_and(|of| {
                    let device = &of.device;
                    of.user == *owner && !forked.contains(device) && !ground.is_ever_out(device)
                })
        })
}
