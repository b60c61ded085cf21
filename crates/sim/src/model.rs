//! Who must and who must not open what, said as plainly as possible: a set of grants, removals and
//! messages, each with what its author knew. None of it is computed as the engine computes it.

use std::collections::BTreeSet;

use sealcast_protocol::{DeviceId, Grant, LogBody, LogHash, Position, Roles, Targets, UserId};

use crate::ground::{Entries, Ground, Message, Written};

/// Whether anything entitles a user to a message. What is not certain counts as a right.
pub(crate) fn may_open(ground: &Ground, owner: &UserId, user: &UserId, message: &Message) -> bool {
    if user == owner || *user == message.user {
        return true;
    }
    let grants = grants_to(ground, user);
    let mut rights = grants.filter(|(_, grant)| reaches(grant, message));
    rights.any(|(number, grant)| {
        let removals = removals(ground).filter(|(at, ..)| message.known.contains(*at));
        let mut removals = removals.filter(|(at, of, _)| {
            !written(ground, number).is_some_and(|entry| entry.past.contains(*at))
                && is_certain(ground, owner, of)
        });
        !removals.any(|(_, of, targets)| {
            let entry = written(ground, number);
            entry.is_some_and(|entry| {
                hits(targets, user, &entry.hash) && takes(ground, owner, of, user, grant, message)
            })
        })
    })
}

/// Whether a user must be able to open a message once all faults have stopped. What is not certain
/// counts as no right.
pub(crate) fn must_open(
    ground: &Ground,
    owner: &UserId,
    user: &UserId,
    message: &Message,
    is_on_bus: &dyn Fn(&Written) -> bool,
) -> bool {
    let forked = ground.forked();
    let counts = |number: usize, holder: &UserId| {
        written(ground, number).is_some_and(|entry| {
            is_on_bus(entry)
                && !forked.contains(&entry.device)
                && is_never_targeted(ground, holder, &entry.hash, &entry.past)
                && (entry.user == *owner || is_admin_for_good(ground, owner, &entry.user, &forked))
        })
    };
    let sender = message.user;
    let publishes = sender == *owner
        || (is_user_never_targeted(ground, &sender)
            && grants_to(ground, &sender).any(|(number, grant)| {
                message.known.contains(number)
                    && counts(number, &sender)
                    && may_publish(grant, message.header.position)
            }));
    publishes
        && (user == owner
            || *user == sender
            || grants_to(ground, user)
                .any(|(number, grant)| reaches(grant, message) && counts(number, user)))
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
        | LogBody::Close => None,
    })
}

fn removals(ground: &Ground) -> impl Iterator<Item = (usize, &Written, &Targets)> {
    let entries = ground.entries.iter().enumerate();
    entries.filter_map(|(number, of)| match &of.body {
        LogBody::Revoke(revoke) => Some((number, of, &revoke.targets)),
        LogBody::Grant(_) | LogBody::Genesis(_) | LogBody::Settings(_) | LogBody::Close => None,
    })
}

/// Whether a grant, if it counts, lets its user read a message.
fn reaches(grant: &Grant, message: &Message) -> bool {
    let is_lane = grant.lanes.is_empty() || grant.lanes.contains(&message.user);
    let reads = grant.roles.contains(Roles::READER);
    grant.roles.contains(Roles::ADMIN)
        || (reads && is_lane && grant.interval.contains(message.header.position))
}

fn may_publish(grant: &Grant, at: Position) -> bool {
    let publishes = grant.roles.contains(Roles::PUBLISHER);
    grant.roles.contains(Roles::ADMIN) || (publishes && grant.interval.contains(at))
}

fn hits(targets: &Targets, user: &UserId, grant: &LogHash) -> bool {
    match targets {
        Targets::Users(users) => users.contains(user),
        Targets::Grants(ids) => ids.contains(grant),
        Targets::Devices(_) => false,
    }
}

/// Whether a removal counts whatever else was written.
fn is_certain(ground: &Ground, owner: &UserId, removal: &Written) -> bool {
    removal.user == *owner || is_user_never_targeted(ground, &removal.user)
}

/// Whether a removal by its author's role reaches what a grant gives of a message.
fn takes(
    ground: &Ground,
    owner: &UserId,
    removal: &Written,
    user: &UserId,
    grant: &Grant,
    message: &Message,
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
        false => removal.user == message.user && !grant.roles.contains(Roles::ADMIN),
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
                && written(ground, number)
                    .is_some_and(|of| of.user == *owner && !forked.contains(&of.device))
        })
}
