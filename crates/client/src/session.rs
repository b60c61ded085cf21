//! Starting sessions: stored, then announced, then sealed with.

use sealcast_engine::{ControlTopic, Publisher, SharedWith};
use sealcast_protocol::{Position, SessionId, SessionKind, StreamTopics};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::seal::{Sealer, refused};
use crate::vault::{OwnSession, put_session};

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
        self.core.announce(session).await?;
        self.core
            .share(SharedWith::Everyone, HANDOUTS_AHEAD)
            .await?;
        self.core.owe_keys();
        Ok(session)
    }
}

impl Core {
    /// Puts a session's record on the bus, notes that it is there, and only then goes by it. It is read
    /// back first: a bus may take it and not keep it, and how far the topic was read then shows whether
    /// it is lost later.
    pub(crate) async fn announce(&self, session: SessionId) -> Result<(), Error> {
        let (vault, stream) = (self.vault().clone(), self.id());
        let device = self.identity().device();
        let kept = off_thread(move || vault.session(&stream, &session, &device)).await??;
        let kept = kept.ok_or(Error::Internal("a session has no record"))?;
        let keys = StreamTopics(stream).keys();
        self.append(&keys, kept.record.expose().to_vec()).await?;
        self.sync().await?;
        if self.view().record(&session, &device).is_none() {
            return Err(Error::RolledBack(
                "a session record that was just written is not shown",
            ));
        }
        let vault = self.vault().clone();
        off_thread(move || vault.session_announced(&stream, session, &device)).await??;
        self.take_session(session, &kept);
        Ok(())
    }

    /// Announces what a process of this home drew and did not live to announce.
    pub(crate) async fn announce_drawn(&self) -> Result<(), Error> {
        let (vault, stream) = (self.vault().clone(), self.id());
        for session in off_thread(move || vault.drawn_sessions(&stream)).await?? {
            self.announce(session).await?;
        }
        Ok(())
    }

    /// Takes a session that another process of this home started from the store, announcing it where
    /// nobody did. False where there is none.
    pub(crate) async fn adopt_session(&self, session: SessionId) -> Result<bool, Error> {
        let (vault, stream) = (self.vault().clone(), self.id());
        let device = self.identity().device();
        let kept = off_thread(move || vault.session(&stream, &session, &device)).await??;
        match kept {
            Some(kept) if kept.is_drawn => self.announce(session).await?,
            Some(kept) => self.take_session(session, &kept),
            None => return Ok(false),
        }
        Ok(self.view().record(&session, &device).is_some())
    }

    fn take_session(&self, session: SessionId, kept: &OwnSession) {
        self.owe_keys();
        let mut view = self.view();
        view.restore_root(session, &kept.root);
        view.handle(&ControlTopic::Keys, kept.record.expose());
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
    let view = core.view();
    let mark = view.mark();
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
    core.vault().change_lane(&core.id(), |lane, txn| {
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
    })
}
