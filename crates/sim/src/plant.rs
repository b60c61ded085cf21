/// A fault planted in the driver on purpose, to see that a run finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Covers reach one position too far.
    WideCover,
    /// A crash loses the lane.
    LoseLane,
    /// Envelopes leave before the record of their session.
    EnvelopeFirst,
    /// How far a topic was read is kept, and what was read is not.
    PlaceBeforeKeys,
    /// Keys are handed out to nobody.
    NoHandout,
    /// Live reading forgets at a restart what came before.
    ForgetTracks,
    /// A run begins with the numbers of the one before, and the lane of a crash is lost.
    RepeatRun,
    /// Nobody who asks for keys is given any.
    NoAnswer,
    /// Keys are acknowledged before they are durable.
    ReceiptFirst,
    /// A crash loses what waits for keys.
    LoseParked,
    /// What had waited is not noted as delivered.
    DeliverAgain,
    /// A publisher goes on with its lane's secret when somebody is no key node any more.
    KeepSecret,
    /// Segment records are kept and never put on the bus.
    NoSegments,
    /// A key node decides by the access log as it happens to know it.
    StaleLog,
    /// A key node notes what it released when it has released it.
    AnswerFirst,
    /// A key node that starts knows nothing of what it released.
    ForgetAudit,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::WideCover,
        Self::LoseLane,
        Self::EnvelopeFirst,
        Self::PlaceBeforeKeys,
        Self::NoHandout,
        Self::ForgetTracks,
        Self::RepeatRun,
        Self::NoAnswer,
        Self::ReceiptFirst,
        Self::LoseParked,
        Self::DeliverAgain,
        Self::KeepSecret,
        Self::NoSegments,
        Self::StaleLog,
        Self::AnswerFirst,
        Self::ForgetAudit,
    ];
}
