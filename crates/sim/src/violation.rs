use sealcast_protocol::{DeviceId, Position, SessionId};

/// What must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A device opened a message outside everything that it was granted.
    #[error("device {device} opened message {message}, which nothing entitles it to")]
    OpenedWithoutRight {
        /// Who opened it.
        device: usize,
        /// The message.
        message: usize,
    },
    /// A device opened something that nobody sealed, or something else than was sealed.
    #[error("device {device} opened what nobody sealed: {what}")]
    Forged {
        /// Who opened it.
        device: usize,
        /// What it is.
        what: String,
    },
    /// A reader was given one record twice.
    #[error("device {device} opened message {message} twice")]
    OpenedTwice {
        /// Who opened it.
        device: usize,
        /// The message.
        message: usize,
    },
    /// A reader was given a publisher's messages out of order without being told.
    #[error("device {device} opened message {message} behind a later one, and was not told")]
    OutOfOrder {
        /// Who opened it.
        device: usize,
        /// The message.
        message: usize,
    },
    /// One key sealed two plaintexts.
    #[error("{0}")]
    KeyUsedTwice(String),
    /// An envelope left although its session was never announced.
    #[error("device {device} sent an envelope under session {session}, whose record is not there")]
    EnvelopeBeforeRecord {
        /// Who sent it.
        device: DeviceId,
        /// Its session.
        session: SessionId,
    },
    /// A device sealed below a position at which it had sealed.
    #[error("device {device} sealed at {to:?} after {from:?}")]
    PositionWentBack {
        /// Who sealed.
        device: DeviceId,
        /// The highest position before.
        from: Position,
        /// The lower one.
        to: Position,
    },
    /// A device sealed with a session that it did not draw.
    #[error("device {device} sealed with session {session}, which it did not draw")]
    ForeignSession {
        /// Who sealed.
        device: DeviceId,
        /// Whose it is not.
        session: SessionId,
    },
    /// Two devices saw the same entries and disagree about what they mean.
    #[error("devices {0} and {1} know the same entries and disagree about the state")]
    StatesDiffer(usize, usize),
    /// At rest, two devices know different entries.
    #[error("devices {0} and {1} do not know the same entries at rest: {2}")]
    LogsDiffer(usize, usize, String),
    /// At rest, an entitled device does not open a message, for no known cause.
    #[error("device {device} does not open message {message}: {why}")]
    StaysSealed {
        /// Who should open it.
        device: usize,
        /// The message.
        message: usize,
        /// What the reader said, and why that is not enough.
        why: String,
    },
    /// Faults have stopped and the system does not come to rest.
    #[error("still busy {rounds} rounds after the faults stopped: {why}")]
    Restless {
        /// How often everybody had its turn.
        rounds: usize,
        /// What was still going on.
        why: String,
    },
    /// A device answered a request for keys that it should not have answered so.
    #[error("device {giver} gave keys to {asker} {what}")]
    Answered {
        /// Who gave.
        giver: usize,
        /// To whom.
        asker: DeviceId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key node released what it should not have released so.
    #[error("key node {node} released {what}")]
    Released {
        /// Which device.
        node: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key node refused what it should have released.
    #[error("key node {node} refused {asker} for its condition, which holds")]
    Refused {
        /// Which device.
        node: usize,
        /// Whom.
        asker: DeviceId,
    },
    /// A key node lied so that it shows, and was not named.
    #[error("device {device} was lied to by key node {node} and did not name it")]
    LiarUnnamed {
        /// Whom it lied to.
        device: usize,
        /// The node.
        node: DeviceId,
    },
    /// A key node that did not lie was named as one that did.
    #[error("device {device} named key node {node}, which never lied")]
    HonestNamed {
        /// Who named it.
        device: usize,
        /// The node.
        node: DeviceId,
    },
    /// Fewer key nodes than are needed opened something.
    #[error("{what} opens session {session}")]
    TooFewOpen {
        /// Who they are.
        what: String,
        /// What they opened.
        session: SessionId,
    },
    /// A device said that keys work which its store does not have.
    #[error("device {device} acknowledged keys of session {session} before they were durable")]
    ReceiptTooSoon {
        /// Who.
        device: usize,
        /// Of which session.
        session: SessionId,
    },
    /// What waited for its keys is neither there nor was it delivered.
    #[error("device {device} let message {message} wait, and lost it: {why}")]
    ParkedLost {
        /// Whose home.
        device: usize,
        /// The message.
        message: usize,
        /// How it stands.
        why: &'static str,
    },
    /// Something was told that did not happen.
    #[error("device {device} was told without cause: {alarm}")]
    FalseAlarm {
        /// Who was told.
        device: usize,
        /// What.
        alarm: String,
    },
    /// A step of the driver failed in a way that is not foreseen.
    #[error("device {device} failed: {why}")]
    Failed {
        /// Whose step.
        device: usize,
        /// How.
        why: String,
    },
    /// The simulator met what it cannot be.
    #[error("{0} is odd")]
    Odd(&'static str),
}
