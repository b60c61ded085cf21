use std::error::Error as StdError;

/// Why a bus could not do what was asked.
///
/// `place` is what the bus calls itself: for a file bus the path that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus is not there, or may not be used: a missing or unwritable folder, a server that
    /// does not answer. Check the place and the permissions, then call again. Whether it
    /// wrote anything is not known.
    #[error("bus cannot be reached at {place}")]
    Unreachable {
        /// The path or address that was tried.
        place: String,
        /// What kept the bus from being reached.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// Others kept the bus locked for too long. Nothing was done; call again.
    #[error("bus is in use by others at {place}")]
    Busy {
        /// The path that stayed locked.
        place: String,
    },
    /// The payload, or the batch, is larger than [`Limits`](crate::Limits) allow. Nothing was
    /// written; split it.
    #[error("{size} bytes are too many at once, the limit is {limit}")]
    TooLarge {
        /// Bytes in the payload, or in the batch.
        size: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// There is no room left. Nothing was written; make room and call again.
    #[error("bus is full at {place}")]
    Full {
        /// The path or address that is full.
        place: String,
    },
    /// An append that was to be ahead of this one failed. Nothing was written unless that one was, where that
    /// is not known; make that one again, and then this.
    #[error("an append ahead of this one failed")]
    OutOfTurn,
    /// What the bus holds is not what it wrote. Calling again does not help; put a backup in
    /// place, or begin a new bus.
    #[error("bus is damaged at {place}")]
    Damaged {
        /// The path that is damaged.
        place: String,
        /// What was found.
        #[source]
        cause: Box<dyn StdError + Send + Sync>,
    },
    /// The bus was written by a newer version of this program. Update the program.
    #[error("bus at {place} has format {found}, this program knows up to {known}")]
    TooNew {
        /// The path of the bus.
        place: String,
        /// Format of the bus.
        found: u32,
        /// Newest format that this program knows.
        known: u32,
    },
    /// The database or the system below failed in another way. Whether it wrote anything is not
    /// known.
    #[error("bus backend failed")]
    Backend(#[source] Box<dyn StdError + Send + Sync>),
}

impl BusError {
    /// Whether the same call may succeed when its cause is gone. What fails otherwise is not to be
    /// called again: the bus refuses it for good.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Full { .. } | Self::OutOfTurn
        )
    }
}
