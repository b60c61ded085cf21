//! Who may do what: grant, revoke, settings, who.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealcast_bus::Offset;
use sealcast_engine::{AuthorError, ControlTopic, SharedWith, Tips, author, is_delivered};
use sealcast_protocol::{
    DeviceId, DeviceTips, EnvelopeHash, Grant, GrantState, Interval, KeyNodes, LogBody, LogEntry,
    LogHash, Name, Position, Revoke, Roles, Settings, Standing, StreamTopics, Targets, Unverified,
    UserId, Verified,
};

use crate::blocking::{off_thread, to_its_end};
use crate::core::Core;
use crate::damage::read_past;
use crate::error::Error;
use crate::home::topic;
use crate::options::{Bound, GrantOptions};
use crate::stream::Stream;
use crate::vault::OwnEntry;

/// Fewest letters of a grant's id that name it.
const PREFIX_MIN: usize = 8;
/// How often to wait for other processes of this home that are writing an entry.
const TURNS_MAX: usize = 64;
/// How often an entry is put at the end of its chain and only there, where rubbish comes first.
pub(crate) const TURNS_AT_END: usize = 16;

/// What a grant came to.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The grant's id.
    pub id: LogHash,
    /// The interval that took effect.
    pub interval: Interval,
    /// Devices that the user has on the stream's bus; with none, keys follow later.
    pub devices: usize,
    /// Bundles written.
    pub bundles: usize,
    /// Bytes of these bundles.
    pub bundle_bytes: usize,
}

/// What a revocation came to.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// The entry's id.
    pub id: LogHash,
    /// Grants that ended by it.
    pub grants: Vec<LogHash>,
    /// From this position on nothing that this device seals opens for them.
    pub position: Position,
}

/// One grant, as [`Stream::who`] shows it.
#[derive(Clone, Debug)]
pub struct GrantInfo {
    /// Its id; the stream's id for the owner.
    pub id: LogHash,
    /// Who received it.
    pub user: UserId,
    /// The user's name in this home.
    pub name: Option<Name>,
    /// Whether the user owns the stream.
    pub is_owner: bool,
    /// What the user may do.
    pub roles: Roles,
    /// From when until when.
    pub interval: Interval,
    /// How far it came.
    pub status: GrantStatus,
}

/// How far a grant came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStatus {
    /// In the log; keys are not with every device and session yet.
    Granted,
    /// In the log, and every key is on the bus.
    Delivered,
    /// Its interval is over.
    Ended,
    /// Taken back, or without effect.
    Revoked,
}

impl Stream {
    /// Grants a role over an interval, and hands out the keys of everything sealed in it so far.
    ///
    /// # Errors
    ///
    /// Fails when the log does not let this user give that, or the interval is empty.
    pub async fn grant(&self, options: GrantOptions) -> Result<Granted, Error> {
        let core = &self.core;
        core.sync().await?;
        let (interval, cut) = core.interval(options.from, options.until).await?;
        if options.roles.contains(Roles::ADMIN) && interval != Interval::ALL {
            return Err(Error::AdminInterval);
        }
        let grant = Grant {
            user: options.user,
            devices: Vec::new(),
            roles: options.roles,
            lanes: self.grantable_lanes(),
            interval,
            reshare: options.reshare,
        };
        let time = core.now().max(cut);
        let id = core.write(time, LogBody::Grant(grant)).await?;
        let with_all = core
            .share(SharedWith::User(options.user), usize::MAX)
            .await?;
        let devices = core.view().live_devices(&options.user, core.now()).count();
        Ok(Granted {
            id,
            interval,
            devices,
            bundles: with_all.bundles,
            bundle_bytes: with_all.bytes,
        })
    }

    /// All lanes where this user decides about all; its own where it is a publisher.
    fn grantable_lanes(&self) -> Vec<UserId> {
        let view = self.core.view();
        let (user, device) = view.me();
        match view.state().roles(&user, &device).contains(Roles::ADMIN) {
            true => Vec::new(),
            false => Vec::from([user]),
        }
    }

    /// Takes back every grant of a user, what it approved, and what was approved of it. What was held stays
    /// held; nothing sealed by a publisher that has seen it opens for the user any more, and it approves of
    /// nobody until a condition names it anew.
    ///
    /// # Errors
    ///
    /// Fails when the user holds no grant and has nothing to do with approvals, or the log does not let this
    /// user take it.
    pub async fn revoke_user(&self, user: UserId) -> Result<Revoked, Error> {
        self.core.sync().await?;
        let standing = |of: &GrantState| of.grant.user == user && of.standing == Standing::Counts;
        let grants = self.core.grants(standing);
        if grants.is_empty() && !self.core.view().may_take_approvals(&user) {
            return Err(Error::NoGrant(user.to_string()));
        }
        self.revoke(Targets::Users(Vec::from([user])), grants).await
    }

    /// Takes back one grant, and what was approved of its user.
    ///
    /// # Errors
    ///
    /// Fails when there is no such grant, or the log does not let this user take it.
    pub async fn revoke_grant(&self, grant: LogHash) -> Result<Revoked, Error> {
        self.core.sync().await?;
        let grants = self
            .core
            .grants(|of| of.id == grant && of.standing == Standing::Counts);
        if grants.is_empty() {
            return Err(Error::NoGrant(grant.to_string()));
        }
        self.revoke(Targets::Grants(Vec::from([grant])), grants)
            .await
    }

    async fn revoke(&self, targets: Targets, grants: Vec<GrantState>) -> Result<Revoked, Error> {
        let core = &self.core;
        let has_lane = core.has_lane();
        let last = core.last_of(&grants).await?;
        let revoke = LogBody::Revoke(Revoke { targets, last });
        let id = core.write(core.now(), revoke).await?;
        let position = match has_lane {
            true => core.cut_session().await?,
            false => core.now().max(core.view().state().mark()),
        };
        Ok(Revoked {
            id,
            grants: grants.iter().map(|of| of.id).collect(),
            position,
        })
    }

    /// Finds a grant by its id, or by the first letters of it (at least 8).
    ///
    /// # Errors
    ///
    /// Fails when no grant, or more than one, begins so.
    pub async fn find_grant(&self, prefix: &str) -> Result<LogHash, Error> {
        self.core.sync().await?;
        let found = self.core.grants(|of| of.id.to_string().starts_with(prefix));
        match found.as_slice() {
            [one] if prefix.len() >= PREFIX_MIN => Ok(one.id),
            _ => Err(Error::NoGrant(prefix.into())),
        }
    }

    /// Sets the longest life of a session in milliseconds; 0 for no limit.
    ///
    /// # Errors
    ///
    /// Fails when this user is neither owner nor admin.
    pub async fn set_rekey_every(&self, ms: u64) -> Result<(), Error> {
        self.core.sync().await?;
        let settings = LogBody::Settings(Settings { rekey_every_ms: ms });
        self.core.write(self.core.now(), settings).await?;
        Ok(())
    }

    /// Every grant, the owner's own right first.
    ///
    /// # Errors
    ///
    /// Fails when bus or store cannot be read.
    pub async fn who(&self) -> Result<Vec<GrantInfo>, Error> {
        self.sync().await?;
        let core = self.core.clone();
        let contacts = off_thread(move || core.vault().contacts()).await??;
        let named = |user: &UserId| {
            let found = contacts.iter().find(|(_, of)| of == user);
            found.map(|(name, _)| name.clone())
        };
        let view = self.core.view();
        let now = self.core.now();
        let owner = view.state().owner();
        let mut all = Vec::from([GrantInfo {
            id: LogHash(self.id().0),
            user: owner,
            name: named(&owner),
            is_owner: true,
            roles: Roles::ADMIN.with(Roles::PUBLISHER).with(Roles::READER),
            interval: Interval::ALL,
            status: GrantStatus::Delivered,
        }]);
        let mut grants: Vec<_> = view.state().grants().iter().collect();
        grants.sort_by_key(|of| of.time);
        all.extend(grants.into_iter().map(|of| GrantInfo {
            id: of.id,
            user: of.grant.user,
            name: named(&of.grant.user),
            is_owner: false,
            roles: of.grant.roles,
            interval: of.grant.interval,
            status: match of.standing {
                Standing::Counts if of.grant.interval.until <= now => GrantStatus::Ended,
                Standing::Counts if is_delivered(&view, of, now) => GrantStatus::Delivered,
                Standing::Counts => GrantStatus::Granted,
                Standing::Revoked(_) | Standing::Void => GrantStatus::Revoked,
            },
        }));
        Ok(all)
    }
}

impl Core {
    /// The interval between two bounds, and the position that `now` stood for, where one is `now`:
    /// the first behind a cut, if this device publishes. The control topics must have been read.
    pub(crate) async fn interval(
        self: &Arc<Self>,
        from: Bound,
        until: Bound,
    ) -> Result<(Interval, Position), Error> {
        let is_now = from == Bound::Now || until == Bound::Now;
        let now = match is_now && self.has_lane() {
            true => self.cut().await?,
            false => self.now().max(self.view().state().mark()),
        };
        let at = |bound| match bound {
            Bound::Now => now,
            Bound::At(position) => position,
        };
        let interval = Interval {
            from: at(from),
            until: at(until),
        };
        match interval.is_valid() {
            true => Ok((interval, if is_now { now } else { Position::START })),
            false => Err(Error::EmptyInterval),
        }
    }

    fn grants(&self, wanted: impl Fn(&GrantState) -> bool) -> Vec<GrantState> {
        self.view()
            .state()
            .grants()
            .iter()
            .filter(|of| wanted(of))
            .cloned()
            .collect()
    }

    /// Writes an entry of the access log, and reads it back. Two processes of one home take turns:
    /// each writes behind what the other wrote, whether or not it is on the bus yet.
    /// It goes on when the caller stops waiting.
    pub(crate) async fn write(
        self: &Arc<Self>,
        time: Position,
        body: LogBody,
    ) -> Result<LogHash, Error> {
        self.write_having_read(time, body, None).await
    }

    /// As [`write`](Self::write), if no other entries about key nodes are the newest than those that were read.
    pub(crate) async fn write_key_nodes(
        self: &Arc<Self>,
        read: &[LogHash],
        body: KeyNodes,
    ) -> Result<LogHash, Error> {
        let (body, read) = (LogBody::KeyNodes(body), Some(read.to_vec()));
        self.write_having_read(self.now(), body, read).await
    }

    async fn write_having_read(
        self: &Arc<Self>,
        time: Position,
        body: LogBody,
        read: Option<Vec<LogHash>>,
    ) -> Result<LogHash, Error> {
        let core = self.clone();
        to_its_end(async move {
            let entry = core.put_entry(time, body, read).await?;
            core.sync().await?;
            let id = LogHash::from(entry.digest());
            let view = core.view();
            match view.log().contains(&id) {
                true if view.is_forked() => Err(Error::Forked),
                true => Ok(id),
                false => Err(Error::RolledBack(
                    "an entry that was just written is not shown",
                )),
            }
        })
        .await
    }

    /// Signs an entry and puts it on the bus, in its place: where a copy of this home was faster, it
    /// is signed again behind what the copy wrote.
    async fn put_entry(
        self: &Arc<Self>,
        time: Position,
        body: LogBody,
        read: Option<Vec<LogHash>>,
    ) -> Result<Verified<LogEntry>, Error> {
        for _ in 0..TURNS_MAX {
            self.resend_entry().await?;
            self.sync().await?;
            self.ensure_shown().await?;
            let (core, body, read) = (self.clone(), body.clone(), read.clone());
            let signed = off_thread(move || core.sign_entry(time, body, read.as_deref()));
            if let Some(entry) = signed.await??
                && self.send_entry(entry.wire()).await?
            {
                return Ok(entry);
            }
        }
        Err(Error::Internal(
            "other processes of this home leave no turn to write",
        ))
    }

    /// Makes sure that the bus shows what an entry would build on, and puts back what it lost. One
    /// that follows what nobody can see would never count.
    async fn ensure_shown(&self) -> Result<(), Error> {
        if self.find_hidden().await?.is_empty() {
            return Ok(());
        }
        let chains: BTreeSet<_> = {
            let view = self.view();
            let authors = view.log().entries().map(|of| of.body());
            authors.map(|of| (of.user, of.device)).collect()
        };
        for (user, device) in chains {
            self.put_back_topic(&ControlTopic::Access(user, device))
                .await?;
        }
        match self.find_hidden().await?.is_empty() {
            true => Ok(()),
            false => Err(Error::RolledBack("it lost access-log entries")),
        }
    }

    /// What an entry would build on, all of this device's own among it, and the bus does not show.
    async fn find_hidden(&self) -> Result<BTreeSet<LogHash>, Error> {
        let (mut builds_on, chains) = {
            let view = self.view();
            let (user, device) = view.me();
            let (seq, prev) = view.log().next_seat(&user, &device);
            let mut builds_on: BTreeSet<_> = view.log().heads(&prev).into_iter().collect();
            builds_on.extend((seq > 0).then_some(prev));
            // What the bus lost again before this home saw it there is missed by nobody else.
            let entries = view.log().entries();
            let own = entries.filter(|of| (of.body().user, of.body().device) == (user, device));
            builds_on.extend(own.map(|of| LogHash::from(of.digest())));
            let entries = view.log().entries();
            let among = entries.filter(|of| builds_on.contains(&LogHash::from(of.digest())));
            let chains: BTreeSet<_> = among.map(|of| of.body().device).collect();
            (builds_on, chains)
        };
        for device in chains {
            let chain = topic(&StreamTopics(self.id()).access(&device))?;
            let (mut at, end) = (Offset(0), self.bus.end(&chain).await?);
            loop {
                let items = read_past(&*self.bus, &chain, at, end).await?;
                let Some(last) = items.last() else {
                    break;
                };
                at = Offset(last.offset.0 + 1);
                for item in &items {
                    if let Ok(shown) = Unverified::<LogEntry>::decode(&item.payload) {
                        builds_on.remove(&LogHash::from(shown.digest()));
                    }
                }
            }
        }
        Ok(builds_on)
    }

    fn sign_entry(
        &self,
        time: Position,
        body: LogBody,
        read: Option<&[LogHash]>,
    ) -> Result<Option<Verified<LogEntry>>, Error> {
        let view = self.view();
        if read.is_some_and(|read| view.state().newest_key_nodes() != read) {
            return Err(Error::KeyNodes(
                "key nodes or their condition were named anew meanwhile: look at them, and try again",
            ));
        }
        self.vault().write_entry(&self.id(), |newest| {
            let is_here = |own: &OwnEntry| {
                let entry = Unverified::<LogEntry>::decode(&own.wire);
                entry.is_ok_and(|entry| view.log().contains(&LogHash::from(entry.digest())))
            };
            if newest.is_some_and(|own| !is_here(&own)) {
                return Ok(None);
            }
            let entry = author(&view, self.identity(), time, body);
            entry.map(Some).map_err(|error| match error {
                AuthorError::NotAllowed if view.is_forked() => Error::Forked,
                AuthorError::NotAllowed => Error::NotAllowed("the access log does not let you"),
                AuthorError::OutOfRange(_) => Error::Internal("an access-log entry is odd"),
            })
        })
    }

    /// Puts an entry of this home at the end of its chain as it was read, and only there, as long as
    /// no stranger keeps that end moving. Returns false where another entry has its place: then it
    /// never was on the bus, and is given up.
    async fn send_entry(&self, wire: &[u8]) -> Result<bool, Error> {
        let (me, device) = self.view().me();
        let of = ControlTopic::Access(me, device);
        let chain = topic(&of.name(self.id()))?;
        let entry = Unverified::<LogEntry>::decode(wire);
        let entry = entry.map_err(|_| Error::Internal("an access-log entry is odd"))?;
        let (id, seq) = (LogHash::from(entry.digest()), entry.claims().seq);
        let mut turns_at_end = 0..TURNS_AT_END;
        loop {
            let twin = self.in_place_of(&id, seq);
            let is_there = self.view().log().contains(&id);
            let (vault, stream, wire) = (self.vault().clone(), self.id(), wire.to_vec());
            if let Some(twin) = twin {
                off_thread(move || vault.entry_lost(&stream, &wire, &twin)).await??;
                return Ok(false);
            }
            let end = self.place_in(&of).await;
            let is_put = if is_there {
                true
            } else if turns_at_end.next().is_some() {
                self.bus.append_at(&chain, end, vec![wire.clone()]).await?
            } else {
                // Rubbish comes faster than it is read here, and must not keep this device silent.
                self.bus.append(&chain, vec![wire.clone()]).await?;
                true
            };
            if is_put {
                off_thread(move || vault.entry_sent(&stream, &wire)).await??;
                return Ok(true);
            }
            self.sync().await?;
        }
    }

    /// The newest entry of this device, where it or one before it has the place of an entry that is
    /// not here.
    fn in_place_of(&self, id: &LogHash, seq: u32) -> Option<Vec<u8>> {
        let view = self.view();
        let (me, device) = view.me();
        let (next, newest) = view.log().next_seat(&me, &device);
        let mut entries = view.log().entries();
        let newest = entries.find(|of| LogHash::from(of.digest()) == newest)?;
        let is_taken = next > seq && !view.log().contains(id);
        is_taken.then(|| newest.wire().to_vec())
    }

    /// Puts this home's newest entry on the bus if a process ended before it did, or if the bus lost it
    /// before it was read back. An entry that comes twice is taken once.
    pub(crate) async fn resend_entry(&self) -> Result<(), Error> {
        let (vault, stream) = (self.vault().clone(), self.id());
        let newest = off_thread(move || vault.newest_entry(&stream)).await??;
        if let Some(own) = newest.filter(|own| !own.is_sent || !self.is_known(&own.wire)) {
            self.send_entry(&own.wire).await?;
        }
        Ok(())
    }

    /// Whether devices of this user may have published at some time.
    pub(crate) fn publishes(&self) -> bool {
        let view = self.view();
        let (me, _) = view.me();
        let mut grants = view.state().grants().iter();
        view.state().owner() == me
            || grants.any(|of| {
                let roles = of.grant.roles;
                of.grant.user == me
                    && (roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN))
            })
    }

    fn is_known(&self, wire: &[u8]) -> bool {
        let entry = Unverified::<LogEntry>::decode(wire);
        entry.is_ok_and(|of| self.view().log().contains(&LogHash::from(of.digest())))
    }

    /// Every accepted branch tip of each device that publishes by one of these grants.
    async fn last_of(self: &Arc<Self>, grants: &[GrantState]) -> Result<Vec<DeviceTips>, Error> {
        let publishes =
            |roles: Roles| roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN);
        let devices: Vec<DeviceId> = {
            let view = self.view();
            let users = grants.iter().filter(|of| publishes(of.grant.roles));
            let lists = users.filter_map(|of| view.list(&of.grant.user));
            lists
                .flat_map(|list| list.devices().map(|(device, _)| *device))
                .collect()
        };
        self.last_of_devices(devices).await
    }

    /// Every accepted branch tip of each of these devices.
    pub(crate) async fn last_of_devices(
        self: &Arc<Self>,
        devices: Vec<DeviceId>,
    ) -> Result<Vec<DeviceTips>, Error> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = BTreeMap::<DeviceId, Vec<EnvelopeHash>>::new();
        let mut tips = Tips::new(devices, crate::read::allowed_now(self).await?);
        let (data, mut at) = (self.data_topic()?, Offset(0));
        let end = self.bus.end(&data).await?;
        loop {
            let items = read_past(&*self.bus, &data, at, end).await?;
            let Some(last) = items.last() else {
                break;
            };
            at = Offset(last.offset.0 + 1);
            let core = self.clone();
            tips = off_thread(move || {
                for item in &items {
                    tips.observe(&core.view(), &item.payload);
                }
                tips
            })
            .await?;
        }
        found.extend(tips.found());
        Ok(found
            .into_iter()
            .map(|(device, tips)| DeviceTips { device, tips })
            .collect())
    }
}
