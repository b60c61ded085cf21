//! What a carrier keeps in a home until it can be delivered.

use std::fmt;

use sealcast_crypto::digest;

use crate::blocking::off_thread;
use crate::error::Error;
use crate::home::Home;
use crate::vault::Vault;

/// Keeps sealed messages that a carrier cannot deliver yet, for each of whom they are for; made by
/// [`Home::shelf`].
///
/// They lie in the home's store, encrypted once more, and survive whatever happens to the process. Each has a label,
/// which is small and can be read without it.
#[derive(Clone, Debug)]
pub struct Shelf(Vault);

/// For whom something is kept: one of them, and not who that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShelfOwner(pub [u8; 16]);

/// A change of what is kept for somebody.
#[derive(Clone, PartialEq, Eq)]
pub enum ShelfChange {
    /// Keeps something under a number.
    Put {
        /// The number; what was under it is replaced.
        number: u64,
        /// The label.
        label: Vec<u8>,
        /// What is kept, at most 16 MiB of it.
        content: Vec<u8>,
    },
    /// Gives something another label.
    Relabel {
        /// Its number.
        number: u64,
        /// The label.
        label: Vec<u8>,
    },
    /// Throws something away.
    Remove {
        /// Its number.
        number: u64,
    },
}

/// What is kept, but for what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShelfLabel {
    /// For whom.
    pub owner: ShelfOwner,
    /// Under which number.
    pub number: u64,
    /// The label.
    pub label: Vec<u8>,
}

/// What is kept, as far as can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShelfLabels {
    /// Ascending by owner and number.
    pub readable: Vec<ShelfLabel>,
    /// How many labels are damaged. What they stood for is lost.
    pub damaged: u64,
}

/// Shows numbers, and nothing of what is kept.
impl fmt::Debug for ShelfChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put {
                number, content, ..
            } => write!(f, "Put({number}, {} bytes)", content.len()),
            Self::Relabel { number, .. } => write!(f, "Relabel({number})"),
            Self::Remove { number } => write!(f, "Remove({number})"),
        }
    }
}

impl ShelfOwner {
    /// The owner that is known by some parts, of which nobody finds out from it who cannot guess them.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(first_half("sealcast.v1 shelf owner", parts))
    }
}

impl Home {
    /// Where a carrier keeps what it cannot deliver yet.
    pub fn shelf(&self) -> Shelf {
        Shelf(self.inner.vault.clone())
    }
}

impl Shelf {
    /// By what something that is kept is known again.
    pub fn mark(parts: &[&[u8]]) -> [u8; 16] {
        first_half("sealcast.v1 shelf mark", parts)
    }

    /// The labels of all that is kept for somebody, or for anybody.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn labels(&self, owner: Option<ShelfOwner>) -> Result<ShelfLabels, Error> {
        let vault = self.0.clone();
        off_thread(move || vault.shelf_labels(owner)).await?
    }

    /// Some of what is kept for somebody, by number; `None` for what is not there, or is damaged.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn contents(
        &self,
        owner: ShelfOwner,
        numbers: Vec<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let vault = self.0.clone();
        off_thread(move || vault.shelf_contents(owner, &numbers)).await?
    }

    /// Makes all of some changes, or none. They are durable when this returns, and are made also when the caller stops
    /// waiting.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn change(&self, owner: ShelfOwner, changes: Vec<ShelfChange>) -> Result<(), Error> {
        let vault = self.0.clone();
        off_thread(move || vault.change_shelf(owner, &changes)).await?
    }
}

fn first_half(label: &str, parts: &[&[u8]]) -> [u8; 16] {
    let digest = digest(label, parts);
    let mut half = [0; 16];
    let bytes = digest.as_bytes().iter();
    half.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    half
}
