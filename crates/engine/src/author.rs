//! Writing entries of the access log.

use rand_core::CryptoRng;
use sealcast_protocol::{
    DecodeError, DeviceTarget, Genesis, GrantState, LaneMode, LogBody, LogEntry, LogHash, LogState,
    Position, Roles, Sharing, Standing, StreamId, Targets, Verified, sign,
};

use crate::identity::Identity;
use crate::lane::CLOCK_BEHIND_MS_MAX;
use crate::view::StreamView;

/// Writes the first entry of a stream. Its hash is the stream's id.
///
/// # Errors
///
/// Fails when `now` is outside the key tree.
pub fn genesis(
    identity: &Identity,
    rng: &mut (impl CryptoRng + ?Sized),
    now: Position,
    sharing: Sharing,
    public: bool,
) -> Result<(StreamId, Verified<LogEntry>), DecodeError> {
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let entry = LogEntry {
        version: 1,
        stream: StreamId([0; 32]),
        user: identity.user(),
        device: identity.device(),
        seq: 0,
        prev: LogHash([0; 32]),
        heads: [].into(),
        time: now,
        body: LogBody::Genesis(Genesis {
            nonce,
            owner: identity.user(),
            lane_mode: LaneMode::Own,
            sharing,
            public,
        }),
    };
    let entry = sign(identity.signing(), entry)?;
    Ok((StreamId(*entry.digest().as_bytes()), entry))
}

/// Writes this device's next entry, after making sure that it will count.
///
/// # Errors
///
/// Fails when the log does not let this device write it, or it is not a possible entry.
pub fn author(
    view: &StreamView,
    identity: &Identity,
    now: Position,
    body: LogBody,
) -> Result<Verified<LogEntry>, AuthorError> {
    if !view.state().has_begun() {
        return Err(AuthorError::NotAllowed);
    }
    let (seq, prev) = view.log().next_seat(&identity.user(), &identity.device());
    let entry = LogEntry {
        version: 1,
        stream: view.stream(),
        user: identity.user(),
        device: identity.device(),
        seq,
        prev,
        heads: view.log().heads(&prev),
        time: entry_time(now, view.state().mark()),
        body,
    };
    let entry = sign(identity.signing(), entry).map_err(AuthorError::OutOfRange)?;
    let is_revoked = view.is_card_revoked(&identity.user(), &identity.device());
    match !is_revoked && would_count(view, &entry) {
        true => Ok(entry),
        false => Err(AuthorError::NotAllowed),
    }
}

/// A mark that is far ahead is somebody's wrong clock; writing it on would make it last.
fn entry_time(now: Position, mark: Position) -> Position {
    match mark.0.saturating_sub(now.0) > CLOCK_BEHIND_MS_MAX {
        true => now,
        false => now.max(mark),
    }
}

fn would_count(view: &StreamView, entry: &Verified<LogEntry>) -> bool {
    let mut log = view.log().clone();
    log.insert(entry.clone());
    let id = LogHash::from(entry.digest());
    let (before, after) = (view.state(), log.state());
    let body = entry.body();
    let rules = before
        .roles(&body.user, &body.device)
        .contains(Roles::ADMIN);
    match &body.body {
        LogBody::Grant(_) => after
            .grants()
            .iter()
            .any(|of| of.id == id && of.standing == Standing::Counts),
        LogBody::Revoke(revoke) => {
            takes_device(&revoke.targets, before, &after)
                || takes_approvals(view, &revoke.targets)
                || changes_standing(before.grants(), after.grants())
        }
        LogBody::Settings(settings) => rules && after.settings() == *settings,
        LogBody::KeyNodes(nodes) => {
            let named = after.key_nodes();
            rules && named.map_or(nodes.nodes.is_empty(), |(entry, _)| entry == id)
        }
        LogBody::Approve(approval) => {
            let mut said = after.approvals(&approval.user);
            let said = said.find(|(by, _)| *by == body.user);
            let until = said.map_or(Position::START, |(_, until)| until);
            // Who is asked no more may still take back.
            let is_authorised = log.heads(&LogHash([0; 32])).contains(&id);
            is_authorised && until == approval.until
        }
        LogBody::Close => rules && after.is_closed() && !before.is_closed(),
        LogBody::Genesis(_) => false,
    }
}

/// Whether a device is out by its user's word that was not before; the owner's have no grant.
fn takes_device(targets: &Targets, before: &LogState, after: &LogState) -> bool {
    let Targets::Devices(targets) = targets else {
        return false;
    };
    let is_taken = |of: &DeviceTarget| {
        !before.is_out(&of.user, &of.device) && after.is_out(&of.user, &of.device)
    };
    targets.iter().any(is_taken)
}

fn takes_approvals(view: &StreamView, targets: &Targets) -> bool {
    matches!(targets, Targets::Users(users) if users.iter().any(|of| view.may_take_approvals(of)))
}

fn changes_standing(before: &[GrantState], after: &[GrantState]) -> bool {
    let is_changed = |old: &GrantState, new: &GrantState| match (old.standing, new.standing) {
        (Standing::Counts, _) | (_, Standing::Counts) => old != new,
        // Nothing is left to be taken; how far its publisher's envelopes count may still change.
        (Standing::Revoked(_) | Standing::Void, _) => {
            let mut new = new.clone();
            new.lanes_lost.clone_from(&old.lanes_lost);
            new.devices_lost.clone_from(&old.devices_lost);
            *old != new
        }
    };
    let of = |id| after.iter().find(|new| new.id == id);
    before
        .iter()
        .any(|old| of(old.id).is_some_and(|new| is_changed(old, new)))
}

/// Why an entry was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// The entry would not count: this device has no right to write it, or it has no effect.
    #[error("the access log does not allow it")]
    NotAllowed,
    /// The entry is not a possible one.
    #[error("the entry is out of range")]
    OutOfRange(#[source] DecodeError),
}
