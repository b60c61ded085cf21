//! What is told besides messages.

use core::fmt;

use sealcast_protocol::{DeviceId, SessionId, UserId};

use super::ControlTopic;

/// Something on the bus that an honest bus and honest devices do not put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// Two entries of a user's device list have one place.
    ListForked(UserId),
    /// The topic has something in it that none of those wrote whose topic it is. It changed nothing.
    Forged(ControlTopic),
    /// The user signed an entry that does not fit what the list says, and what follows it counts no
    /// more than the entry.
    ListUnsound(UserId),
    /// The bus shows entries of a user's device list and hides others before them.
    ListHidden(UserId),
    /// A device wrote two access-log entries with one number. Its grants do not count any more.
    LogForked(UserId, DeviceId),
    /// A keyholder's bundle or root does not open for this device, or is not the session's.
    BadKeys(UserId, DeviceId),
    /// The share that a device dealt to this key node does not fit what it says of it.
    BadShare(UserId, DeviceId),
    /// A key node released what is false.
    FalseNode(UserId, DeviceId),
    /// So many sets of key nodes are named in the access log by entries of which none follows the others, or by
    /// one that a fork took, and none of them is in force.
    KeyNodesBeside(usize),
    /// So many entries about key nodes do not count since whoever wrote them was removed, and nobody named key nodes since.
    KeyNodesVoid(usize),
    /// There is no room for more records of what key nodes release. What lies behind them opens by asking
    /// others.
    RecordsFull,
    /// Keys that this home's user imported do not open what others open.
    BadImport(SessionId),
    /// Nothing that is here opens a message of the session, and this giver's keys are among it: the
    /// giver is false, or whoever sealed the message. The driver tells this one.
    Misfit(SessionId, UserId, DeviceId),
    /// As [`Misfit`](Self::Misfit), of keys that this home's user imported.
    MisfitImport(SessionId),
    /// The bus shows other or fewer items of a topic than it did: it was emptied, or put back to an
    /// older state. The driver tells this one.
    WentBack(ControlTopic),
    /// As [`WentBack`](Self::WentBack), for messages that live reading was past.
    LostMessages,
    /// This device put something on the bus of which its home does not know: the home was put back
    /// to an older state, or a copy of it is in use. The driver tells this one.
    HomeWentBack,
}

impl Alarm {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ListForked(_) => {
                "ask the user: a copy of their first device is in use, or someone has its root key"
            }
            Self::Forged(_) | Self::BadKeys(..) => "find out who writes to this bus",
            Self::BadShare(..) => {
                "ask the publisher; this node releases nothing that it was dealt so"
            }
            Self::FalseNode(..) => {
                "ask who runs the key node; it is not asked again, and the others suffice as long as \
                 enough of them answer"
            }
            Self::KeyNodesBeside(_) => {
                "name the key nodes again, with `stream keynodes set`: until then they release nothing, and what \
                 is published opens by asking keyholders alone"
            }
            Self::KeyNodesVoid(_) => {
                "look at `stream keynodes status` and `stream condition`, and say anew what is to hold: what was before \
                 holds again, or there are no key nodes"
            }
            Self::RecordsFull => {
                "what key nodes would open opens by asking others; begin a new stream where sessions are \
                 that many"
            }
            Self::ListUnsound(_) => "ask the user what their first device did",
            Self::ListHidden(_) => {
                "ask who runs the bus why it is not shown; the user puts it back by using their \
                 first device"
            }
            Self::BadImport(_) => "ask for the file of keys anew, from somebody whom you trust",
            Self::Misfit(..) => {
                "find out who of them is false, whoever gave the keys or the publisher"
            }
            Self::MisfitImport(_) => {
                "the file of keys is false, or the publisher: ask for the file anew, from somebody \
                 whom you trust"
            }
            Self::LogForked(..) => {
                "a copy of its home is in use, or someone has its keys: revoke the device"
            }
            Self::WentBack(_) | Self::LostMessages => {
                "ask who runs the bus whether it was restored; devices put back what they know, but \
                 messages that it lost are lost"
            }
            Self::HomeWentBack => {
                "use one copy of this home only; if it was neither restored nor copied, someone has \
                 its keys"
            }
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListForked(user) => write!(f, "two device lists are shown for {user}"),
            Self::Forged(of) => say_forged(of, f),
            Self::ListUnsound(user) => write!(
                f,
                "the device list of {user} ends in an entry that does not fit the others"
            ),
            Self::ListHidden(user) => {
                write!(f, "the bus hides entries of the device list of {user}")
            }
            Self::LogForked(user, device) => {
                write!(
                    f,
                    "device {device} of {user} wrote two entries in one place"
                )
            }
            Self::WentBack(of) => say_went_back(of, f),
            Self::LostMessages => f.write_str("the bus has lost messages that it showed before"),
            Self::HomeWentBack => f.write_str(
                "this home is older than what its device put on the bus: it was restored from a \
                 copy, or a copy of it is in use",
            ),
            Self::BadImport(session) => {
                write!(f, "the imported keys of session {session} are not its keys")
            }
            Self::Misfit(session, user, device) => write!(
                f,
                "keys of session {session} from device {device} of {user} do not open a message of it"
            ),
            Self::MisfitImport(session) => write!(
                f,
                "the imported keys of session {session} do not open a message of it"
            ),
            Self::BadShare(user, device) => write!(
                f,
                "device {device} of {user} dealt this key node a share that does not fit"
            ),
            Self::FalseNode(user, device) => {
                write!(
                    f,
                    "the key node {device} of {user} released something false"
                )
            }
            Self::KeyNodesBeside(count) => write!(
                f,
                "{count} sets of key nodes were named at the same time or taken by a fork: none is in force"
            ),
            Self::KeyNodesVoid(count) => write!(
                f,
                "what was said of key nodes is void, in so many entries: {count}; whoever said it was removed"
            ),
            Self::RecordsFull => f.write_str("there is no room for more records of key nodes"),
            Self::BadKeys(user, device) => {
                write!(f, "keys from device {device} of {user} do not open")
            }
        }
    }
}

fn say_forged(of: &ControlTopic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match of {
        ControlTopic::Devices(user) => write!(
            f,
            "the device list of {user} has something in it on the bus that the user did not write"
        ),
        ControlTopic::Access(user, device) => write!(
            f,
            "the access log of device {device} of {user} has something in it on the bus that the device did not write"
        ),
        ControlTopic::Keys => f.write_str(
            "among the session records and keys on the bus is something that no device of the stream wrote",
        ),
    }
}

fn say_went_back(of: &ControlTopic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match of {
        ControlTopic::Devices(user) => {
            write!(f, "the bus has lost entries of the device list of {user}")
        }
        ControlTopic::Access(user, device) => write!(
            f,
            "the bus has lost access-log entries of device {device} of {user}"
        ),
        ControlTopic::Keys => f.write_str("the bus has lost session records or keys"),
    }
}
