//! End-to-end encryption for publish/subscribe and stored streams: *publish sealed, give the keys
//! later.*
//!
//! A [`Home`] holds one device of one user. A [`Stream`] is opened from it by name.

mod access;
mod backfill;
mod blocking;
mod clock;
mod core;
mod delivery;
mod doctor;
mod error;
mod ground;
mod home;
mod options;
mod publisher;
mod read;
mod seal;
mod session;
mod share;
mod stream;
mod subscribe;
mod vault;

pub use access::{GrantInfo, GrantStatus, Granted, Revoked};
pub use backfill::Backfill;
#[doc(hidden)]
pub use clock::Clock;
pub use delivery::{Delivery, Reason, State};
pub use doctor::Finding;
pub use error::Error;
#[doc(hidden)]
pub use ground::Ground;
pub use home::{Home, StreamInfo};
pub use options::{Bound, GrantOptions, InitOptions, Passphrase, StreamOptions};
pub use publisher::{Published, Publisher};
pub use read::Reader;
pub use sealcast_bus::{BusError, BusUrl, BusUrlError};
pub use sealcast_crypto::SecretBytes;
pub use sealcast_engine::Alarm;
pub use sealcast_protocol::{
    DeviceId, IdError, Interval, LogHash as GrantId, Name, NameError, Position, Roles, Sharing,
    StreamId, Ticket, TicketError, UserId,
};
pub use sealcast_store::{KeyFileError, StoreError};
pub use stream::Stream;
pub use subscribe::Subscription;
