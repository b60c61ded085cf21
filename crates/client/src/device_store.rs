//! What a store keeps of a device that waits to be added, and of the user's devices.

use sealcast_bus::BusUrl;
use sealcast_engine::{Identity, Newcomer, Space};
use sealcast_protocol::{
    CardList, DeviceId, ListBody, ListBytes, ListEntry, Name, PairingItem, Ticket, Unverified,
    UserId, Welcome, WelcomeContact, WelcomeDevice, WelcomeStream, encode,
};
use sealcast_store::Txn;

use crate::error::Error;
use crate::own_list::list_put;
use crate::vault::{IDENTITY, Membership, SETTINGS, Settings, Vault, key, odd_key, record};

const NEWCOMER: &[u8] = b"newcomer";

impl Vault {
    /// Keeps what makes a device that waits, all of it or nothing.
    pub(crate) fn begin_newcomer(
        &self,
        newcomer: &Newcomer,
        settings: &Settings,
    ) -> Result<(), Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            txn.put(&key(Space::Home, &[NEWCOMER]), newcomer.to_bytes().expose())?;
            Ok(txn.put(&key(Space::Home, &[SETTINGS]), &encode(settings))?)
        })
    }

    pub(crate) fn newcomer(&self) -> Result<Option<Newcomer>, Error> {
        let value = self.0.get(&key(Space::Home, &[NEWCOMER]))?;
        Ok(value.and_then(|value| Newcomer::from_bytes(value.expose())))
    }

    /// Lets the device that waits hear what was said, and keeps to whom it consents.
    pub(crate) fn consider(&self, items: &[PairingItem]) -> Result<Newcomer, Error> {
        let place = key(Space::Home, &[NEWCOMER]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let value = txn.get(&place)?;
            let newcomer = value.and_then(|value| Newcomer::from_bytes(value.expose()));
            let mut newcomer = newcomer.ok_or(Error::Internal("no device waits here"))?;
            if newcomer.consider(items) {
                txn.put(&place, newcomer.to_bytes().expose())?;
            }
            Ok(newcomer)
        })
    }

    /// Makes the device that waited its user's, in one transaction.
    pub(crate) fn become_device(
        &self,
        identity: &Identity,
        welcome: &Welcome,
    ) -> Result<(), Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            txn.put(&key(Space::Home, &[IDENTITY]), identity.to_bytes().expose())?;
            let settings = txn.get(&key(Space::Home, &[SETTINGS]))?;
            if let Some(settings) = settings {
                let mut settings: Settings = record(&settings)?;
                if settings.name.is_empty() {
                    settings.name.clone_from(&welcome.name);
                }
                txn.put(&key(Space::Home, &[SETTINGS]), &encode(&settings))?;
            }
            for entry in &welcome.list {
                let seq = Unverified::<ListEntry>::decode(&entry.0).map(|of| of.claims().seq);
                let seq = seq.map_err(|_| Error::Internal("an entry of the device list is odd"))?;
                let put = list_put(&welcome.user, seq, &entry.0);
                txn.put(&key(put.space, &[&put.id]), &entry.0)?;
            }
            take_names(txn, welcome)?;
            Ok(txn.delete(&key(Space::Home, &[NEWCOMER]))?)
        })
    }

    /// A device list as others need it: from its newest checkpoint on.
    pub(crate) fn list_from_checkpoint(&self, user: UserId) -> Result<Vec<ListBytes>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::ListEntry as u8), &user.0)?;
        let entries: Vec<_> = rows.iter().map(|(_, entry)| entry.expose()).collect();
        let is_checkpoint = |entry: &&[u8]| {
            Unverified::<ListEntry>::decode(entry)
                .is_ok_and(|entry| matches!(entry.claims().body, ListBody::Checkpoint(_)))
        };
        let from = entries.iter().rposition(is_checkpoint).unwrap_or(0);
        let needed = entries.get(from..).unwrap_or_default();
        Ok(needed.iter().map(|of| ListBytes(of.to_vec())).collect())
    }

    /// The streams that this home knows, as a new device needs them.
    pub(crate) fn streams_for_newcomer(&self) -> Result<Vec<WelcomeStream>, Error> {
        let known = self.memberships()?.into_iter();
        Ok(known
            .map(|of| WelcomeStream {
                name: of.name,
                ticket: of.ticket,
            })
            .collect())
    }

    /// What the user calls its devices.
    pub(crate) fn device_names(&self) -> Result<Vec<(DeviceId, Name)>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::DeviceName as u8), &[])?;
        rows.iter()
            .map(|(place, name)| {
                let device = place.id.as_slice().try_into().map_err(|_| odd_key())?;
                Ok((DeviceId(device), record(name)?))
            })
            .collect()
    }

    /// Gives a device a name that no other has which stands in the list.
    pub(crate) fn name_device(
        &self,
        device: DeviceId,
        name: &Name,
        list: &CardList,
    ) -> Result<(), Error> {
        let place = key(Space::DeviceName, &[&device.0]);
        sealcast_store::transact_with(&*self.0, |txn| {
            for (other, value) in txn.scan(place.space, &[])? {
                if other == place || record::<Name>(&value)? != *name {
                    continue;
                }
                let id = other.id.as_slice().try_into().map_err(|_| odd_key())?;
                let state = list.device(&DeviceId(id));
                match state.is_some_and(|of| of.revoked.is_none()) {
                    true => return Err(Error::NameTaken(name.to_string())),
                    false => txn.delete(&other)?,
                }
            }
            Ok(txn.put(&place, &encode(name))?)
        })
    }
}

fn take_names(txn: &mut dyn Txn, welcome: &Welcome) -> Result<(), Error> {
    for WelcomeContact { name, user } in &welcome.contacts {
        txn.put(&key(Space::Contact, &[&user.0]), &encode(name))?;
    }
    for WelcomeDevice { name, device } in &welcome.devices {
        txn.put(&key(Space::DeviceName, &[&device.0]), &encode(name))?;
    }
    for WelcomeStream { name, ticket } in &welcome.streams {
        // Of a bus that this build does not know, say: the device does without.
        let Some(parsed) = usable(ticket) else {
            continue;
        };
        let known = Membership {
            name: name.clone(),
            ticket: ticket.clone(),
        };
        txn.put(&key(Space::Stream, &[&parsed.stream().0]), &encode(&known))?;
    }
    Ok(())
}

fn usable(ticket: &str) -> Option<Ticket> {
    let ticket = Ticket::parse(ticket).ok()?;
    BusUrl::parse(ticket.bus()).is_ok().then_some(ticket)
}
