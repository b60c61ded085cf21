//! What a caller may choose.

use std::path::Path;

use sealcast_bus::BusUrl;
use sealcast_crypto::SecretBytes;
use sealcast_engine::ParkingLimits;
use sealcast_protocol::{Name, Position, Roles, Sharing, UserId};

use crate::error::Error;
use crate::home::BUS_FOLDER;
use crate::vault::Settings;

/// What protects the store key of a home.
#[derive(Debug)]
pub enum Passphrase {
    /// The key lies in a file that only this user may read.
    None,
    /// The key is wrapped under this.
    Given(SecretBytes),
}

/// How to make a home.
#[derive(Debug)]
pub struct InitOptions {
    /// What the user calls itself; stays in this home.
    pub name: Option<Name>,
    /// The bus that new streams use; `file:` on `bus` in the home where not given.
    pub bus: Option<BusUrl>,
    /// What protects the store key.
    pub passphrase: Passphrase,
}

impl InitOptions {
    pub(crate) fn settings(&self, folder: &Path) -> Result<Settings, Error> {
        let bus = match &self.bus {
            Some(url) => url.absolute(&std::env::current_dir().map_err(Error::Folder)?),
            None => BusUrl::file(&folder.join(BUS_FOLDER)),
        };
        let name = self.name.as_ref();
        Ok(Settings {
            name: name.map_or(String::new(), ToString::to_string),
            bus: bus.map_err(Error::BusUrl)?.to_string(),
        })
    }
}

/// How to make a stream.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The bus; the home's where not given.
    pub bus: Option<BusUrl>,
    /// When keys are handed out.
    pub sharing: Sharing,
    /// Whether anyone may read.
    pub public: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            bus: None,
            sharing: Sharing::Active,
            public: false,
        }
    }
}

/// One end of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Now: this device makes a cut first, if it publishes in the stream.
    Now,
    /// A time.
    At(Position),
}

/// Whom to grant what.
#[derive(Clone, Debug)]
pub struct GrantOptions {
    /// Who receives.
    pub user: UserId,
    /// What the user may do.
    pub roles: Roles,
    /// From when.
    pub from: Bound,
    /// Until when, not included; [`Position::END`] for no end.
    pub until: Bound,
    /// Whether the user may hand its keys on to others whom the log entitles.
    pub reshare: bool,
}

/// How to follow a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeOptions {
    /// From when on; from now on where not given.
    pub from: Option<Position>,
    /// How much may wait for keys, and for how long.
    pub parking: ParkingLimits,
}
