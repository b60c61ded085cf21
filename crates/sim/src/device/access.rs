//! Writing the access log.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{Allowed, AuthorError, ControlTopic, Lineage, SharedWith, Tips, author};
use sealcast_protocol::{
    Condition, Demand, DeviceId, DeviceTips, EnvelopeHash, Grant, GrantState, Interval, LogBody,
    LogEntry, LogHash, Position, Revoke, Roles, Standing, StreamTopics, Targets, Unverified,
    UserId, Verified,
};

use super::Acting;
use crate::around::Stop;
use crate::home::OwnEntry;
use crate::violation::Violation;

/// How often an entry is tried again behind others.
const TURNS_MAX: usize = 4;

/// One end of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Now,
    At(Position),
}

/// What is granted.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) roles: Roles,
    pub(crate) from: Bound,
    pub(crate) until: Bound,
    pub(crate) reshare: bool,
    /// None listed means all.
    pub(crate) devices: Vec<DeviceId>,
}

impl Acting<'_> {
    /// Grants a role over an interval, and hands out the keys of what was sealed in it.
    pub(crate) fn grant(&mut self, to: UserId, terms: Terms) -> Result<LogHash, Stop> {
        self.sync()?;
        let roles = terms.roles;
        let (interval, cut) = self.interval(terms.from, terms.until)?;
        if roles.contains(Roles::ADMIN) && interval != Interval::ALL {
            return Err(Stop::Refused("an admin has no end"));
        }
        let grant = Grant {
            user: to,
            devices: terms.devices,
            roles,
            lanes: self.grantable_lanes(),
            interval,
            reshare: terms.reshare,
        };
        let time = self.now().max(cut);
        let id = self.write(time, LogBody::Grant(grant))?;
        self.share(SharedWith::User(to), usize::MAX)?;
        Ok(id)
    }

    fn grantable_lanes(&self) -> Vec<UserId> {
        let (user, device) = self.run.view.me();
        let roles = self.run.view.state().roles(&user, &device);
        match roles.contains(Roles::ADMIN) {
            true => Vec::new(),
            false => Vec::from([user]),
        }
    }

    fn interval(&mut self, from: Bound, until: Bound) -> Result<(Interval, Position), Stop> {
        let is_now = from == Bound::Now || until == Bound::Now;
        let now = match is_now && self.has_lane() {
            true => self.cut()?,
            false => self.now().max(self.run.view.state().mark()),
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
            false => Err(Stop::Refused("the interval is empty")),
        }
    }

    /// Takes back every grant of a user.
    pub(crate) fn revoke_user(&mut self, user: UserId) -> Result<LogHash, Stop> {
        self.sync()?;
        let grants = self.grants(|of| of.grant.user == user);
        self.revoke(Targets::Users(vec![user]), &grants)
    }

    /// Takes back one grant.
    pub(crate) fn revoke_grant(&mut self, id: LogHash) -> Result<LogHash, Stop> {
        self.sync()?;
        let grants = self.grants(|of| of.id == id);
        self.revoke(Targets::Grants(vec![id]), &grants)
    }

    fn grants(&self, wanted: impl Fn(&GrantState) -> bool) -> Vec<GrantState> {
        let all = self.run.view.state().grants().iter();
        let standing = all.filter(|of| of.standing == Standing::Counts && wanted(of));
        standing.cloned().collect()
    }

    fn revoke(&mut self, targets: Targets, grants: &[GrantState]) -> Result<LogHash, Stop> {
        if grants.is_empty() {
            return Err(Stop::Refused("there is no such grant"));
        }
        let has_lane = self.has_lane();
        let last = self.last_of(grants)?;
        let revoke = LogBody::Revoke(Revoke { targets, last });
        let id = self.write(self.now(), revoke)?;
        if has_lane {
            self.cut_session()?;
        }
        Ok(id)
    }

    /// Every accepted branch tip of each device that publishes by one of these grants.
    fn last_of(&mut self, grants: &[GrantState]) -> Result<Vec<DeviceTips>, Stop> {
        let publishes =
            |roles: Roles| roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN);
        let view = &self.run.view;
        let users = grants.iter().filter(|of| publishes(of.grant.roles));
        let lists = users.filter_map(|of| view.list(&of.grant.user));
        let devices = lists.flat_map(|list| list.devices().map(|(device, _)| *device));
        let devices: Vec<DeviceId> = devices.collect();
        self.last_of_devices(devices)
    }

    /// Every accepted branch tip of each of these devices.
    pub(super) fn last_of_devices(
        &mut self,
        devices: impl IntoIterator<Item = DeviceId>,
    ) -> Result<Vec<DeviceTips>, Stop> {
        let devices: BTreeSet<DeviceId> = devices.into_iter().collect();
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let mut tips = Tips::new(devices, self.allowed()?);
        let data = self.around.data();
        for item in self.around.read(self.device.at, &data, 0, usize::MAX)? {
            tips.observe(&self.run.view, &item.bytes);
        }
        let found = tips.found().into_iter();
        Ok(found
            .map(|(device, tips)| DeviceTips { device, tips })
            .collect())
    }

    /// The envelopes of revoked devices that were accepted when they were revoked.
    pub(crate) fn allowed(&mut self) -> Result<Allowed, Stop> {
        let revoked: BTreeMap<DeviceId, Vec<EnvelopeHash>> = self.run.view.state().revoked_tips();
        if revoked.is_empty() {
            return Ok(Allowed::default());
        }
        let (stream, data) = (self.around.stream, self.around.data());
        let mut lineage = Lineage::new(revoked);
        for item in self.around.read(self.device.at, &data, 0, usize::MAX)? {
            lineage.observe(&stream, &item.bytes);
        }
        Ok(lineage.resolve())
    }

    /// Writes two entries in one place, which nobody may.
    pub(crate) fn fork_log(&mut self, bodies: [LogBody; 2]) -> Result<(), Stop> {
        self.sync()?;
        let now = self.now();
        let past = self.around.ground.known_to(&self.run.view);
        let mut wires = Vec::new();
        for body in bodies {
            let entry = author(&self.run.view, &self.device.identity, now, body);
            let entry = entry.map_err(|_| Stop::Refused("the access log does not let it"))?;
            self.around.ground.wrote(&entry, past.clone());
            wires.push(entry.wire().to_vec());
        }
        let chain = StreamTopics(self.around.stream).access(&self.device.identity.device());
        self.around.append(self.device.at, &chain, &wires)
    }

    /// Writes an entry, and reads it back.
    pub(crate) fn write(&mut self, time: Position, body: LogBody) -> Result<LogHash, Stop> {
        let entry = self.put_entry(time, &body)?;
        self.sync()?;
        let id = LogHash::from(entry.digest());
        match self.run.view.log().contains(&id) {
            true => Ok(id),
            false => Err(Stop::Refused("its own entry is not shown")),
        }
    }

    fn put_entry(&mut self, time: Position, body: &LogBody) -> Result<Verified<LogEntry>, Stop> {
        for _ in 0..TURNS_MAX {
            self.resend_entry()?;
            self.sync()?;
            self.ensure_shown()?;
            if let Some(entry) = self.sign_entry(time, body)?
                && self.send_entry(entry.wire())?
            {
                return Ok(entry);
            }
        }
        Err(Stop::Refused("it has no turn to write"))
    }

    /// Makes sure that the bus shows what an entry would build on, and puts back what it lost.
    fn ensure_shown(&mut self) -> Result<(), Stop> {
        if self.find_hidden()?.is_empty() {
            return Ok(());
        }
        let authors = self.run.view.log().entries().map(|of| of.body());
        let chains: BTreeSet<_> = authors.map(|of| (of.user, of.device)).collect();
        for (user, device) in chains {
            self.put_back_topic(&ControlTopic::Access(user, device))?;
        }
        match self.find_hidden()?.is_empty() {
            true => Ok(()),
            false => Err(Stop::Refused("the bus lost access-log entries")),
        }
    }

    /// What an entry would build on, all of this device's own among it, and the bus does not show.
    fn find_hidden(&mut self) -> Result<BTreeSet<LogHash>, Stop> {
        let log = self.run.view.log();
        let (user, device) = self.run.view.me();
        let (seq, prev) = log.next_seat(&user, &device);
        let mut builds_on: BTreeSet<_> = log.heads(&prev).into_iter().collect();
        builds_on.extend((seq > 0).then_some(prev));
        let own = log
            .entries()
            .filter(|of| (of.body().user, of.body().device) == (user, device));
        builds_on.extend(own.map(|of| LogHash::from(of.digest())));
        let among = log
            .entries()
            .filter(|of| builds_on.contains(&LogHash::from(of.digest())));
        let chains: BTreeSet<_> = among.map(|of| of.body().device).collect();
        for device in chains {
            let chain = StreamTopics(self.around.stream).access(&device);
            for item in self.around.read(self.device.at, &chain, 0, usize::MAX)? {
                if let Ok(shown) = Unverified::<LogEntry>::decode(&item.bytes) {
                    builds_on.remove(&LogHash::from(shown.digest()));
                }
            }
        }
        Ok(builds_on)
    }

    fn sign_entry(
        &mut self,
        time: Position,
        body: &LogBody,
    ) -> Result<Option<Verified<LogEntry>>, Stop> {
        self.effect("keep an entry")?;
        let (view, identity) = (&self.run.view, &self.device.identity);
        let is_here = |own: &OwnEntry| {
            let entry = Unverified::<LogEntry>::decode(&own.wire);
            entry.is_ok_and(|entry| view.log().contains(&LogHash::from(entry.digest())))
        };
        let entry = self.device.home.write_entry(|newest| {
            if newest.is_some_and(|own| !is_here(&own)) {
                return Ok(None);
            }
            let entry = author(view, identity, time, body.clone());
            entry.map(Some).map_err(|error| match error {
                AuthorError::NotAllowed => Stop::Refused("the access log does not let it"),
                AuthorError::OutOfRange(_) => Violation::Odd("an entry of our own").into(),
            })
        })?;
        if let Some(entry) = &entry {
            let past = self.around.ground.known_to(&self.run.view);
            self.around.ground.wrote(entry, past);
            let number = self.around.ground.entries.len() - 1;
            self.note(format_args!("writes e{number}: {}", told(body)));
        }
        Ok(entry)
    }

    /// Puts an entry at the end of this device's chain as it was read, and only there. Returns
    /// false where another entry has its place.
    fn send_entry(&mut self, wire: &[u8]) -> Result<bool, Stop> {
        let (me, device) = self.run.view.me();
        let of = ControlTopic::Access(me, device);
        let chain = of.name(self.around.stream);
        let entry = Unverified::<LogEntry>::decode(wire);
        let entry = entry.map_err(|_| Violation::Odd("an entry of our own"))?;
        let (id, seq) = (LogHash::from(entry.digest()), entry.claims().seq);
        for _ in 0..TURNS_MAX {
            let is_there = self.run.view.log().contains(&id);
            if let Some(twin) = self.in_place_of(&id, seq) {
                self.effect("give an entry up")?;
                let is_newest = |own: &OwnEntry| own.wire == wire;
                if self
                    .device
                    .home
                    .newest_entry()?
                    .as_ref()
                    .is_some_and(is_newest)
                {
                    self.device.home.put_entry(&OwnEntry {
                        is_sent: true,
                        wire: twin,
                    })?;
                }
                return Ok(false);
            }
            let end = self.place_in(&of);
            if is_there || self.around.append_at(self.device.at, &chain, end, wire)? {
                self.effect("note that an entry is sent")?;
                self.device.home.put_entry(&OwnEntry {
                    is_sent: true,
                    wire: wire.to_vec(),
                })?;
                return Ok(true);
            }
            self.sync()?;
        }
        Err(Stop::Refused("the end of its chain moves on"))
    }

    /// The newest entry of this device, where it or one before it has the place of one that is not
    /// here.
    fn in_place_of(&self, id: &LogHash, seq: u32) -> Option<Vec<u8>> {
        let log = self.run.view.log();
        let (me, device) = self.run.view.me();
        let (next, newest) = log.next_seat(&me, &device);
        let newest = log
            .entries()
            .find(|of| LogHash::from(of.digest()) == newest)?;
        let is_taken = next > seq && !log.contains(id);
        is_taken.then(|| newest.wire().to_vec())
    }

    /// Puts this home's newest entry on the bus if a run ended before it did, or if the bus lost it
    /// before it was read back.
    pub(crate) fn resend_entry(&mut self) -> Result<(), Stop> {
        let is_known = |own: &OwnEntry| {
            let entry = Unverified::<LogEntry>::decode(&own.wire);
            let log = self.run.view.log();
            entry.is_ok_and(|of| log.contains(&LogHash::from(of.digest())))
        };
        let newest = self.device.home.newest_entry()?;
        if let Some(own) = newest.filter(|own| !own.is_sent || !is_known(own)) {
            self.send_entry(&own.wire)?;
        }
        Ok(())
    }
}

fn told(body: &LogBody) -> String {
    match body {
        LogBody::Grant(of) => format!(
            "grant {:?} to {} {}..{}",
            of.roles.0,
            brief(&of.user),
            of.interval.from.0,
            of.interval.until.0
        ),
        LogBody::Revoke(of) => match &of.targets {
            Targets::Users(users) => {
                format!("revoke {}", users.iter().map(brief).collect::<String>())
            }
            Targets::Grants(ids) => format!("revoke {} grants", ids.len()),
            Targets::Devices(devices) => format!("revoke {} devices", devices.len()),
        },
        LogBody::Settings(of) => format!("rekey every {} ms", of.rekey_every_ms),
        LogBody::KeyNodes(of) => format!(
            "{} of {} key nodes, on {}",
            of.threshold,
            of.nodes.len(),
            told_of(&of.condition)
        ),
        LogBody::Genesis(_) => "genesis".into(),
        LogBody::Close => "close".into(),
        LogBody::Approve(of) => format!("approve {} to {}", brief(&of.user), of.until.0),
    }
}

fn told_of(condition: &Condition) -> String {
    let demand = |of: &Demand| match of {
        Demand::After(time) => format!("after {}", time.0),
        Demand::Before(time) => format!("before {}", time.0),
        Demand::Approved(of) => {
            let users: Vec<_> = of.of.iter().map(brief).collect();
            format!("{} of {}", of.needed, users.join(", "))
        }
    };
    let all = |all: &Vec<Demand>| all.iter().map(demand).collect::<Vec<_>>().join(" and ");
    let alternatives: Vec<_> = condition.0.iter().map(all).collect();
    match alternatives.is_empty() {
        true => "no condition".into(),
        false => alternatives.join(", or "),
    }
}

pub(crate) fn brief(user: &UserId) -> String {
    let text = user.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}
