//! Starting sessions: stored, then announced, then sealed with.

use sealcast_crypto::SecretBytes;
use sealcast_engine::{ControlTopic, Publisher, SharedWith};
use sealcast_protocol::{Position, SessionId, SessionKind, StreamTopics};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::seal::{Sealer, refused};
use crate::vault::put_session;

/// Handouts that are written before a new session's first message; the others follow it.
const HANDOUTS_AHEAD: usize = 64;
/// How often a session is drawn anew because another process sealed meanwhile.
const DRAWS_MAX: usize = 16;

impl Sealer {
    /// Draws a session, keeps it, announces it, and hands out the first of its keys.
    pub(crate) async fn start_session(
        &self,
        now: Position,
        kind: SessionKind,
    ) -> Result<SessionId, Error> {
        let sealer = self.clone();
        let session = off_thread(move || {
            let publisher = sealer.publisher();
            for _ in 0..DRAWS_MAX {
                if let Some(session) = draw_session(&sealer.core, &publisher, now, kind)? {
                    return Ok(session);
                }
            }
            Err(Error::Internal(
                "other processes of this home leave no room for a session",
            ))
        });
        let session = session.await??;
        self.announce(session).await?;
        self.core
            .share(SharedWith::Everyone, HANDOUTS_AHEAD)
            .await?;
        self.core.owe_keys();
        Ok(session)
    }

    /// Puts a session's record on the bus, and then notes that it is there.
    pub(crate) async fn announce(&self, session: SessionId) -> Result<(), Error> {
        let core = self.core.clone();
        let device = core.identity().device();
        let of = core.clone();
        let kept = off_thread(move || of.vault().session(&of.id(), &session, &device)).await??;
        let (record, _) = kept.ok_or(Error::Internal("a session has no record"))?;
        let keys = StreamTopics(core.id()).keys();
        core.append(&keys, record.expose().to_vec()).await?;
        off_thread(move || {
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.is_announced |= lane.session() == Some(session);
                Ok(())
            })
        })
        .await?
    }
}

/// Draws a session and keeps it. Where another process of the home drew one meanwhile, that one is
/// taken; where it sealed beyond the start, `None`: nothing of the old session may lie above it.
fn draw_session(
    core: &Core,
    publisher: &Publisher,
    now: Position,
    kind: SessionKind,
) -> Result<Option<SessionId>, Error> {
    let mut view = core.view();
    let mark = view.state().mark();
    let seen = core.vault().lane(&core.id())?;
    let start = match kind {
        SessionKind::Live => publisher.position(now, &seen, &view).map_err(refused)?,
        SessionKind::Backfill { .. } => {
            let start = seen.next_position(now, mark);
            start.map_err(|by| refused(by.into()))?
        }
    };
    let new = publisher.start_session(&mut clock::rng(), now, start, kind, &view);
    let new = new.map_err(|_| Error::Internal("a session record is odd"))?;
    let device = core.identity().device();
    let kept = core.vault().change_lane(&core.id(), |lane, txn| {
        if kind == SessionKind::Live {
            if let Some(other) = lane.session().filter(|_| lane.session != seen.session) {
                return Ok(Some(other));
            }
            if lane.next_position(start, mark) != Ok(start) {
                return Ok(None);
            }
            lane.session = new.session;
            lane.is_announced = false;
            lane.seal_at(start);
        }
        put_session(txn, &core.id(), &device, &new)?;
        Ok(Some(new.session))
    })?;
    if kept == Some(new.session) {
        let root = SecretBytes::from(new.root.expose().to_vec());
        view.restore_root(new.session, &root);
        view.handle(&ControlTopic::Keys, new.record.wire());
    }
    Ok(kept)
}
