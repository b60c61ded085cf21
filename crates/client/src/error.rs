//! What can go wrong, with a stable code and what to do.

use std::path::PathBuf;

use sealcast_bus::BusError;
use sealcast_protocol::{
    AuditFault, DeviceId, ListFault, Name, StreamId, TicketError, UserId, WrongRoot,
};
use sealcast_store::{KeyFileError, StoreError};

use crate::servers::ServersError;

/// Why something was not done. Nothing was sent in clear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder holds no home; make one.
    #[error("no home in `{}`", .0.display())]
    NoHome(PathBuf),
    /// The folder holds a home already; use another folder.
    #[error("there is a home in `{}` already", .0.display())]
    HomeExists(PathBuf),
    /// The store key is wrapped; hand in the passphrase.
    #[error("this home needs its passphrase")]
    NeedsPassphrase,
    /// The passphrase does not open the store key.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The store is damaged or cannot be read; restore it from a backup.
    #[error("the store of this home failed")]
    Store(#[source] StoreError),
    /// The file with the store key cannot be used; see its own error.
    #[error("the store key cannot be used")]
    KeyFile(#[source] KeyFileError),
    /// The home was not made whole; remove the folder and make it again.
    #[error("the home in `{}` was not made whole", .0.display())]
    HalfMade(PathBuf),
    /// The system does not give access to a folder; check who owns it.
    #[error("cannot use the folder")]
    Folder(#[source] std::io::Error),
    /// The bus cannot be used; see its own error.
    #[error("the bus failed")]
    Bus(#[source] BusError),
    /// What is said of the servers of the bus cannot be used; see its own error.
    #[error("cannot talk to the servers of the bus: {0}")]
    Servers(#[from] ServersError),
    /// The URL does not name a bus.
    #[error("cannot use this bus: {0}")]
    BusUrl(#[source] sealcast_bus::BusUrlError),
    /// The ticket cannot be used; ask for a new one.
    #[error("cannot use this ticket: {0}")]
    Ticket(#[source] TicketError),
    /// No stream of this name in this home; create or join it.
    #[error("no such stream: {0}")]
    NoStream(String),
    /// No contact of this name, and not a user id; add the contact, or give the id.
    #[error("no such user: {0}")]
    NoUser(String),
    /// No grant with this id, or none that still counts; see who has one.
    #[error("no such grant: {0}")]
    NoGrant(String),
    /// The name is taken in this home; choose another.
    #[error("the name is taken: {0}")]
    NameTaken(String),
    /// The access log gives this user no right to do it; ask the owner or an admin for a grant.
    #[error("not allowed: {0}")]
    NotAllowed(&'static str),
    /// The stream was closed by its owner or an admin; nothing more is published in it.
    #[error("the stream is closed")]
    Closed,
    /// The access log names entries that the bus does not show, a removal perhaps; nothing is sealed
    /// until it shows them.
    #[error("the access log is not complete: {0} entries are missing")]
    LogIncomplete(usize),
    /// The clock is behind what was sealed already by this many milliseconds; set it.
    #[error("the clock is {behind_ms} ms behind the newest position of this lane")]
    ClockBehind {
        /// How far.
        behind_ms: u64,
    },
    /// The payload is longer than this bus takes; split it. Nothing was sent.
    #[error("the message has {size} bytes; at most {limit} fit")]
    TooLarge {
        /// Bytes that came.
        size: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// The stream's bus is a broker on which its messages have topics of the users' own, and this is none
    /// of them; publish on one that matches. Nothing was sent.
    #[error("the topic is none of those that the bus has for messages: {0}")]
    OtherTopic(String),
    /// A backfill's times must ascend and lie in the past; sort the records.
    #[error("backfill times must ascend and lie in the past")]
    BackfillTime,
    /// The publisher ended because something could not be published; finishing it says why.
    #[error("the publisher has ended")]
    PublisherEnded,
    /// What is said of key nodes cannot be; see what it says.
    #[error("cannot do this to the key nodes: {0}")]
    KeyNodes(&'static str),
    /// Key nodes would open less of these lanes than they do, until their publishers come by and deal to those
    /// that are named; wait for them, or say that it is to be done all the same. Nothing was named.
    #[error("key nodes would open less of {} until their publishers come by", lanes(.0))]
    LanesClose(Vec<UserId>),
    /// What this device kept of what it did as a key node was altered, and nothing more is released; find
    /// out who has access to it.
    #[error("the audit of this key node does not hold")]
    Audit(#[source] AuditFault),
    /// The interval is empty or ends before it begins; let it end later.
    #[error("the interval is empty")]
    EmptyInterval,
    /// Admins hold every key, so their grants have neither beginning nor end; leave both open.
    #[error("an admin's grant has no interval: it runs from the start without end")]
    AdminInterval,
    /// The bus lost access-log entries or session records, and what is written behind them would never
    /// count, or open; restore the bus from a backup.
    #[error("the bus went back on what it showed before: {0}")]
    RolledBack(&'static str),
    /// Two copies of this home wrote access-log entries in one place, and nothing that its device
    /// grants counts any more; use one copy only, and let another device or an admin go on.
    #[error("copies of this home wrote two access-log entries in one place")]
    Forked,
    /// The folder holds a device that waits to be added to a user; go on with that.
    #[error("the device in `{}` waits to be added to its user", .0.display())]
    NotAdded(PathBuf),
    /// No new device that shows this code was found; see that it runs, on the same bus.
    #[error("no new device shows this code here")]
    NoApplicant,
    /// Where the new device should have left its keys lies something else than what the code names:
    /// whoever writes to the bus is in between. Nothing was added.
    #[error("what lies on the bus is not the new device that shows this code")]
    FalseApplicant,
    /// The new device did not answer in time; see that it runs, and add it again.
    #[error("the new device did not answer")]
    NoConsent,
    /// The new device became another user's: somebody else knew its code. Begin again on it.
    #[error("the new device has consented to be another user's")]
    OtherConsent,
    /// The user has no such device, or several begin so.
    #[error("no such device: {0}")]
    NoDevice(String),
    /// A device cannot revoke itself.
    #[error("this device cannot revoke itself")]
    OwnDevice,
    /// A revoked device never comes back; begin again on it, in a new home.
    #[error("the device was revoked, and that is for good: {0}")]
    DeviceRevoked(DeviceId),
    /// Only the user's first device holds the root key, which says what devices the user has; use that
    /// one.
    #[error("this device does not hold the root key of its user")]
    NoRoot,
    /// Copies of this home wrote two device lists on different buses; use one copy only.
    #[error("copies of this home wrote two entries of the device list in one place")]
    ListForked,
    /// The device list takes no such entry; see its own error.
    #[error("the device list does not take this")]
    List(#[source] ListFault),
    /// The passphrase does not open the file, or the file was altered; check which passphrase it is.
    #[error("wrong passphrase for this file, or the file was altered")]
    FileWrongPassphrase,
    /// The file is encrypted to other age keys than these; hand in the one that it was made for.
    #[error("none of these age keys opens the file")]
    FileWrongIdentity,
    /// The file is encrypted under a passphrase; hand it in.
    #[error("this file needs its passphrase")]
    FileNeedsPassphrase,
    /// The file is encrypted to an age key; hand in its secret half.
    #[error("this file needs an age key")]
    FileNeedsIdentity,
    /// A file that is made needs a passphrase or an age key that will open it; name one.
    #[error("nothing is named that will open the file")]
    FileNeedsLock,
    /// A file is made for so many age keys at most; make several files.
    #[error("a file is for at most {0} age keys")]
    FileTooManyRecipients(usize),
    /// The passphrase of a file must be text in UTF-8, and not empty; choose another.
    #[error("the passphrase of a file is text, and not empty")]
    FilePassphraseText,
    /// The file is cut off or altered; use another copy of it.
    #[error("the file is damaged: {0}")]
    FileDamaged(&'static str),
    /// The bytes are no file in the age format; see that it is the right one.
    #[error("this is not a file in the age format")]
    FileUnknown,
    /// The file was made by a newer version, of the format that it names; update this program.
    #[error("the file was made by a newer version of {0}")]
    FileTooNew(&'static str),
    /// The file opens, and holds neither keys nor a home; see that it is the right one.
    #[error("the file holds neither keys nor a home")]
    FileNotOurs,
    /// The file holds something else than what is asked for; import keys, and restore homes.
    #[error("the file holds {0}")]
    FileOtherKind(&'static str),
    /// There is a file already, and it was not to be replaced; choose another name.
    #[error("there is a file already: {}", .0.display())]
    FileExists(PathBuf),
    /// The file that is to be replaced is a store, its key or another database; choose another name.
    #[error("this is {what}, and is not replaced: {}", path.display())]
    FileNotReplaced {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file cannot be written, and is not there; see what the system says.
    #[error("cannot write the file: {}", path.display())]
    FileNotWritten {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No key of the interval is here; ask for a grant, or name another interval.
    #[error("this home holds no keys of that interval")]
    NoKeys,
    /// The file would have more in it than one may; export shorter intervals.
    #[error("there is more to export than one file may hold")]
    ExportTooLarge,
    /// The keys are of a stream that this home has not joined; join it first.
    #[error("the keys are of a stream that this home has not joined: {name} ({stream})")]
    NotJoined {
        /// What whoever made the file calls it.
        name: Name,
        /// The stream.
        stream: StreamId,
    },
    /// The file says that a session has another root than it has; whoever made it is false. Nothing
    /// was imported.
    #[error("the file is false: {0}")]
    WrongRoot(#[source] WrongRoot),
    /// An archive is a bus of its own, and this is the bus that it would copy; name another folder.
    #[error("the archive and the bus are one folder")]
    ArchiveIsBus,
    /// Streams are copied from one bus to another, and both are one; name two.
    #[error("both are one bus: {0}")]
    OneBus(String),
    /// Nobody has set up a bus there yet; set it up, or see that it is the right place.
    #[error("there is no bus yet at {0}")]
    NoBus(String),
    /// What is there cannot hold a bus as it is; see why, and change it or name another place.
    #[error("there cannot be a bus at {place}: {why}")]
    BusUnusable {
        /// The URL.
        place: String,
        /// What is in the way.
        why: String,
    },
    /// The bus does not show how the stream begins; see that the stream is on that bus.
    #[error("the stream is not on this bus: {0}")]
    StreamElsewhere(Name),
    /// Something that cannot be; a fault in this program. Report it.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl Error {
    /// Whether it says that the bus is away for now. What failed for it may be tried again:
    /// [`Stream::wait_for_bus`](crate::Stream::wait_for_bus) says when.
    pub fn is_bus_away(&self) -> bool {
        matches!(
            self,
            Self::Bus(BusError::Unreachable { .. } | BusError::Busy { .. })
        )
    }

    /// Whether it says that a record of the home's store is damaged, so that trying again does not help.
    pub fn is_store_damaged(&self) -> bool {
        matches!(self, Self::Store(StoreError::Damaged { .. }))
    }

    /// The same again, where it says that the bus is away: for another who waited for it.
    pub(crate) fn of_bus_away(&self) -> Option<Self> {
        if let Self::Bus(error) = self
            && self.is_bus_away()
        {
            return Some(again(error).into());
        }
        None
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoHome(_) => "home.missing",
            Self::HomeExists(_) => "home.exists",
            Self::NeedsPassphrase => "home.needs-passphrase",
            Self::WrongPassphrase => "home.wrong-passphrase",
            Self::Store(_) => "store.failed",
            Self::KeyFile(_) => "home.key-file",
            Self::HalfMade(_) => "home.half-made",
            Self::Folder(_) => "home.folder",
            Self::Ticket(_) => "ticket.unusable",
            Self::Bus(_) => "bus.failed",
            Self::Servers(_) => "servers.wrong",
            Self::BusUrl(_) => "bus.url",
            Self::NoStream(_) => "stream.unknown",
            Self::NoUser(_) => "user.unknown",
            Self::NoGrant(_) => "grant.unknown",
            Self::NameTaken(_) => "name.taken",
            Self::NotAllowed(_) => "access.not-allowed",
            Self::Closed => "stream.closed",
            Self::LogIncomplete(_) => "access.incomplete",
            Self::ClockBehind { .. } => "clock.behind",
            Self::TooLarge { .. } => "message.too-large",
            Self::OtherTopic(_) => "message.topic",
            Self::BackfillTime => "backfill.time",
            Self::PublisherEnded => "publisher.ended",
            Self::KeyNodes(_) => "key-nodes.impossible",
            Self::LanesClose(_) => "key-nodes.lanes-close",
            Self::Audit(_) => "key-nodes.audit",
            Self::EmptyInterval => "interval.empty",
            Self::AdminInterval => "interval.admin",
            Self::RolledBack(_) => "bus.rolled-back",
            Self::Forked => "access.forked",
            Self::NotAdded(_) => "home.not-added",
            Self::NoApplicant => "pairing.no-request",
            Self::FalseApplicant => "pairing.false-request",
            Self::NoConsent => "pairing.no-consent",
            Self::OtherConsent => "pairing.other-user",
            Self::NoDevice(_) => "device.unknown",
            Self::OwnDevice => "device.own",
            Self::DeviceRevoked(_) => "device.revoked",
            Self::NoRoot => "device.no-root",
            Self::ListForked => "device.list-forked",
            Self::List(_) => "device.list",
            Self::FileWrongPassphrase => "file.wrong-passphrase",
            Self::FileWrongIdentity => "file.wrong-identity",
            Self::FileNeedsPassphrase => "file.needs-passphrase",
            Self::FileNeedsIdentity => "file.needs-identity",
            Self::FileNeedsLock => "file.needs-lock",
            Self::FileTooManyRecipients(_) => "file.too-many-recipients",
            Self::FilePassphraseText => "file.passphrase-text",
            Self::FileDamaged(_) => "file.damaged",
            Self::FileUnknown => "file.unknown",
            Self::FileTooNew(_) => "file.too-new",
            Self::FileNotOurs => "file.not-ours",
            Self::FileOtherKind(_) => "file.other-kind",
            Self::FileExists(_) => "file.exists",
            Self::FileNotReplaced { .. } => "file.not-replaced",
            Self::FileNotWritten { .. } => "file.not-written",
            Self::NoKeys => "keys.none",
            Self::ExportTooLarge => "keys.too-many",
            Self::NotJoined { .. } => "stream.not-joined",
            Self::WrongRoot(_) => "keys.wrong-root",
            Self::ArchiveIsBus => "archive.is-bus",
            Self::OneBus(_) => "bus.same",
            Self::NoBus(_) => "bus.missing",
            Self::BusUnusable { .. } => "bus.unusable",
            Self::StreamElsewhere(_) => "stream.elsewhere",
            Self::Internal(_) => "internal",
        }
    }
}

fn lanes(of: &[UserId]) -> String {
    match of {
        [one] => format!("the lane of {one}"),
        [first, ..] => format!("{} lanes, that of {first} among them", of.len()),
        [] => "no lane".to_owned(),
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

/// What kept a bus from doing something, once more: for another who waited for the same.
pub(crate) fn again(error: &BusError) -> BusError {
    let cause = |of: &dyn std::error::Error| of.to_string().into();
    match error {
        BusError::Unreachable { place, cause: of } => BusError::Unreachable {
            place: place.clone(),
            cause: cause(&**of),
        },
        BusError::Busy { place } => BusError::Busy {
            place: place.clone(),
        },
        BusError::Full { place } => BusError::Full {
            place: place.clone(),
        },
        BusError::OutOfTurn => BusError::OutOfTurn,
        BusError::TooLarge { .. }
        | BusError::Damaged { .. }
        | BusError::TooNew { .. }
        | BusError::Backend(_)
        | _ => BusError::Backend(cause(error)),
    }
}
