//! The devices of the home's user: adding, listing and revoking them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealcast_bus::{Bus, BusUrl};
use sealcast_engine::{SharedWith, consented_card};
use sealcast_protocol::{
    CARD_LIFETIME_MS, CardRevocation, DeviceId, FALLBACK_PERIOD_MS, ListBody, Name, PairingCode,
    PairingItem, PairingRequest, Position, Verified, Welcome, WelcomeContact, WelcomeDevice, sign,
    wrap_welcome,
};

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::fallback::newest_period;
use crate::home::{Home, check_there};
use crate::pairing::Meeting;

/// Fewest letters of a device's id that name it.
const PREFIX_MIN: usize = 6;

/// One device of the home's user.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its id.
    pub device: DeviceId,
    /// What the user calls it.
    pub name: Option<Name>,
    /// Whether it is this one.
    pub is_this: bool,
    /// When it was added.
    pub added: Position,
    /// When its card ends, unless it is renewed.
    pub expires: Position,
    /// Since when it is revoked.
    pub revoked: Option<Position>,
    /// When the week began in which it drew its newest fallback key, as far as a bus shows it. A
    /// device draws one in each week in which it is used.
    pub used: Option<Position>,
}

/// A new device that was found by its code, and waits to be added.
#[derive(Debug)]
pub struct Applicant {
    meeting: Meeting,
    request: PairingRequest,
    device: DeviceId,
}

impl Applicant {
    /// The id that it will have.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Items that lie where the two devices meet, from somebody who does not know the code.
    pub fn strangers(&self) -> usize {
        self.meeting.strangers
    }
}

/// What became of one stream when a device was added or revoked.
#[derive(Debug)]
pub struct StreamOutcome {
    /// The stream.
    pub name: Name,
    /// Why it could not be done there yet; the same command does it later.
    pub error: Option<Error>,
}

impl Home {
    /// Every device of the user, the oldest first. What the buses know is asked, as far as they can
    /// be reached.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Error> {
        let buses = self.known_buses().await?;
        for bus in buses.values() {
            ignoring_bus(self.inner.level_list(&**bus).await)?;
        }
        let list = self.inner.own_list().await?;
        let home = self.inner.clone();
        let names = off_thread(move || home.vault.device_names()).await??;
        let (user, now) = (self.user(), self.inner.now());
        let mut devices = Vec::new();
        for (device, of) in list.devices() {
            let mut newest = None;
            for bus in buses.values() {
                let period = newest_period(&**bus, &user, device, &of.sign_key, now).await;
                newest = newest.max(ignoring_bus(period)?.flatten());
            }
            let name = names.iter().find(|(of, _)| of == device);
            devices.push(DeviceInfo {
                device: *device,
                name: name.map(|(_, name)| name.clone()),
                is_this: *device == self.device(),
                added: of.added,
                expires: of.expires,
                revoked: of.revoked,
                used: newest.map(|of| Position(u64::from(of) * FALLBACK_PERIOD_MS)),
            });
        }
        devices.sort_by_key(|of| (of.added, of.device));
        Ok(devices)
    }

    /// Finds a device of the user by its name, its id, or the first letters of that (at least 6).
    ///
    /// # Errors
    ///
    /// Fails when there is none, or more than one.
    pub async fn find_device(&self, text: &str) -> Result<DeviceId, Error> {
        let home = self.inner.clone();
        let names = off_thread(move || home.vault.device_names()).await??;
        if let Some((device, _)) = names.iter().find(|(_, name)| name.as_str() == text) {
            return Ok(*device);
        }
        let list = self.inner.own_list().await?;
        let lower = text.to_ascii_lowercase();
        let mut found = list
            .devices()
            .filter(|(device, _)| device.to_string().starts_with(&lower));
        match (found.next(), found.next()) {
            (Some((device, _)), None) if text.len() >= PREFIX_MIN => Ok(*device),
            _ => Err(Error::NoDevice(text.to_owned())),
        }
    }

    /// Gives a device of the user a name, in this home. One that was revoked loses it to another.
    ///
    /// # Errors
    ///
    /// Fails when another device has it.
    pub async fn name_device(&self, device: DeviceId, name: &Name) -> Result<(), Error> {
        let list = self.inner.own_list().await?;
        let (home, name) = (self.inner.clone(), name.clone());
        off_thread(move || home.vault.name_device(device, &name, &list)).await?
    }

    /// Finds the new device that shows a code, waiting for it at most so long. Where no bus is named,
    /// on the home's.
    ///
    /// # Errors
    ///
    /// Fails when this device does not hold the root key, when there is no such device, and when
    /// something else lies in its place.
    pub async fn find_applicant(
        &self,
        code: PairingCode,
        bus: Option<&BusUrl>,
        patience: Duration,
    ) -> Result<Applicant, Error> {
        if self.inner.identity.root().is_none() {
            return Err(Error::NoRoot);
        }
        let bus = self.connect(bus.unwrap_or(self.bus())).await?;
        let mut meeting = Meeting::new(bus, code)?;
        let until = Instant::now() + patience;
        meeting.listen().await?;
        loop {
            if let Some(request) = code.request(&meeting.items) {
                let request = request.clone();
                let device = DeviceId::derive(&self.user(), &request.sign_key);
                return Ok(Applicant {
                    meeting,
                    request,
                    device,
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if !meeting.wait(left).await? {
                let is_empty = meeting.items.is_empty() && meeting.strangers == 0;
                return Err(match is_empty {
                    true => Error::NoApplicant,
                    false => Error::FalseApplicant,
                });
            }
        }
    }

    /// Adds a new device to the user: writes its card, hands over what it needs, and gives it the keys
    /// of all streams that can be reached. The root key stays here. May be called again for a device
    /// that was added, and does what is left to do.
    ///
    /// # Errors
    ///
    /// Fails when the new device does not answer in time, or has consented to be another user's.
    pub async fn add_device(
        &self,
        applicant: &mut Applicant,
        name: Option<&Name>,
        patience: Duration,
    ) -> Result<Vec<StreamOutcome>, Error> {
        let device = applicant.device;
        let known = self.inner.own_list().await?;
        let state = known.device(&device);
        if state.is_some_and(|of| of.revoked.is_some()) {
            return Err(Error::DeviceRevoked(device));
        }
        if let Some(name) = name {
            self.name_device(device, name).await?;
        }
        if state.is_none() {
            self.write_card(applicant, patience).await?;
        }
        self.welcome(applicant).await?;
        self.level_everywhere().await?;
        self.in_every_stream(async |stream| {
            stream.core.sync().await?;
            let with = SharedWith::User(self.user());
            stream.core.share(with, usize::MAX).await?;
            stream.core.share_owed().await
        })
        .await
    }

    async fn write_card(&self, applicant: &mut Applicant, patience: Duration) -> Result<(), Error> {
        let (user, device) = (self.user(), applicant.device);
        let until = Instant::now() + patience;
        let meeting = &mut applicant.meeting;
        let card = loop {
            let expires = self.inner.now().after(CARD_LIFETIME_MS);
            let card = consented_card(&user, &applicant.request, &meeting.items, expires);
            if let Some(card) = card {
                break card;
            }
            let consents = meeting.items.iter();
            let is_elsewhere = |item: &PairingItem| matches!(item, PairingItem::Consent(_));
            if consents.clone().any(is_elsewhere) {
                return Err(Error::OtherConsent);
            }
            meeting.say(PairingItem::Offer(user)).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !meeting.wait(left).await? {
                return Err(Error::NoConsent);
            }
        };
        self.level_everywhere().await?;
        let bus = self.connect(self.bus()).await?;
        let written = self.inner.write_list(&*bus, move |list| {
            let is_new = list.device(&device).is_none();
            is_new.then(|| ListBody::Card(card.clone().into()))
        });
        written.await.map(|_| ())
    }

    /// Tells a new device what it needs.
    async fn welcome(&self, applicant: &mut Applicant) -> Result<(), Error> {
        let (home, device) = (self.inner.clone(), applicant.device);
        let request = applicant.request.clone();
        let item = off_thread(move || {
            let user = home.identity.user();
            let contacts = home.vault.contacts()?.into_iter();
            let names = home.vault.device_names()?.into_iter();
            let welcome = Welcome {
                version: 1,
                user,
                giver: home.identity.device(),
                device,
                name: home.name.as_ref().map_or(String::new(), Name::to_string),
                list: home.vault.list_from_checkpoint(user)?,
                streams: home.vault.streams_for_newcomer()?,
                contacts: contacts
                    .map(|(name, user)| WelcomeContact { name, user })
                    .collect(),
                devices: names
                    .map(|(device, name)| WelcomeDevice { name, device })
                    .collect(),
            };
            let welcome = sign(home.identity.signing(), welcome);
            let welcome: Verified<Welcome> =
                welcome.map_err(|_| Error::Internal("there is too much to hand over"))?;
            let wrapped = wrap_welcome(&mut clock::rng(), &welcome, &request);
            wrapped.map_err(|_| Error::FalseApplicant)
        });
        let item = item.await??;
        applicant.meeting.say_again(item).await
    }

    /// Takes a device out, for good: in the device list, and in every stream that can be reached and
    /// names the user. Publishers start new sessions when they see it. May be called again, and does
    /// what is left to do.
    ///
    /// # Errors
    ///
    /// Fails when there is no such device, it is this one, or this one does not hold the root key and
    /// the device is not revoked yet.
    pub async fn revoke_device(&self, device: DeviceId) -> Result<Vec<StreamOutcome>, Error> {
        if device == self.device() {
            return Err(Error::OwnDevice);
        }
        self.level_everywhere().await?;
        let list = self.inner.own_list().await?;
        let state = list.device(&device);
        let is_revoked = state.ok_or_else(|| Error::NoDevice(device.to_string()))?;
        if is_revoked.revoked.is_none() {
            let time = self.inner.now();
            let bus = self.connect(self.bus()).await?;
            let written = self.inner.write_list(&*bus, move |list| {
                let state = list.device(&device)?;
                let out = CardRevocation { device, time };
                state.revoked.is_none().then_some(ListBody::Revoke(out))
            });
            written.await?;
            self.level_everywhere().await?;
        }
        let (home, user) = (self.inner.clone(), self.user());
        let proof = off_thread(move || home.vault.revocation_of(user, device)).await??;
        let Some(proof) = proof else {
            return Err(Error::NoRoot);
        };
        self.in_every_stream(async |stream| stream.core.revoke_own_device(device, &proof).await)
            .await
    }

    /// Does something in every stream, and tells where it failed.
    async fn in_every_stream(
        &self,
        act: impl AsyncFn(&crate::stream::Stream) -> Result<(), Error>,
    ) -> Result<Vec<StreamOutcome>, Error> {
        let mut outcomes = Vec::new();
        for known in self.streams()? {
            let done = match self.stream(&known.name).await {
                Ok(stream) => act(&stream).await,
                Err(error) => Err(error),
            };
            let error = match done {
                Ok(()) => None,
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => Some(error),
            };
            let name = known.name;
            outcomes.push(StreamOutcome { name, error });
        }
        Ok(outcomes)
    }

    /// Brings the device list on every bus that can be reached up to what this home knows.
    async fn level_everywhere(&self) -> Result<(), Error> {
        for bus in self.known_buses().await?.values() {
            ignoring_bus(self.inner.level_list(&**bus).await)?;
        }
        Ok(())
    }

    /// The home's own bus and those of its streams, as far as they can be reached.
    async fn known_buses(&self) -> Result<BTreeMap<String, Arc<dyn Bus>>, Error> {
        let mut urls = BTreeMap::from([(self.bus().to_string(), self.bus().clone())]);
        let streams = self.streams()?.into_iter();
        urls.extend(streams.map(|of| (of.bus.to_string(), of.bus)));
        let mut buses = BTreeMap::new();
        for (name, url) in urls {
            let reached = match check_there(&url) {
                Ok(()) => ignoring_bus(self.connect(&url).await)?,
                Err(_) => None,
            };
            buses.extend(reached.map(|bus| (name, bus)));
        }
        Ok(buses)
    }
}

/// What came of it, or nothing where a bus cannot be reached.
fn ignoring_bus<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Bus(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
