//! What a bus offers, found by looking at it, and what was made where there was none.

use std::time::Duration;

/// What a bus offers and what it lacks, as an adapter finds it.
///
/// Each adapter has two functions besides its `open`, which take what `open` takes:
///
/// - `check` looks, and makes nothing: no folder, no table, no stream. It fails as `open` does where the
///   place cannot be reached or does not let anybody in; all else it says in a report, also that there
///   is no bus yet.
/// - `setup` makes what `open` would need, and leaves alone what is there: a [`BusSetup`].
///
/// An adapter states every [`Aspect`] of a bus that is ready, in a few words, and as much as it can
/// learn of one that is not. What cannot be learned from where the program stands is said to be so.
///
/// ```
/// use std::time::Duration;
///
/// use sealcast_bus::{Aspect, BusReport, Standing};
///
/// let mut report = BusReport::new(Standing::Ready);
/// report.round_trip = Some(Duration::from_micros(400));
/// report.state(Aspect::Server, "example-server 2.1");
/// report.state(Aspect::Tls, "off");
/// report.warn(
///     "what is older than 7 days is removed, and readers take that for damage",
///     ["example-admin set max-age 0"],
/// );
/// assert_eq!(report.stated(Aspect::Tls), Some("off"));
/// assert!(report.unstated().contains(&Aspect::History));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BusReport {
    /// Whether it can be used.
    pub standing: Standing,
    /// How long it took to learn the end of a log; where there is no bus, any answer of the server.
    pub round_trip: Option<Duration>,
    facts: Vec<(Aspect, String)>,
    warnings: Vec<Warning>,
}

/// Whether a bus can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, and can be used.
    Ready,
    /// There is none yet, and `setup` makes it.
    Missing,
    /// There cannot be one as things are; why.
    Unusable(String),
}

/// What is told of a bus. The order is that in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// What serves it, and its version.
    Server,
    /// Whether several servers serve it, and on how many it is kept.
    Cluster,
    /// Whether the connection is encrypted.
    Tls,
    /// What is there of the past for who comes later.
    History,
    /// What is removed by itself, and when.
    Retention,
    /// How large things may be.
    Limits,
    /// How much room there is, and how much is taken.
    Room,
    /// What an acknowledged append survives.
    Durability,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Cluster,
        Self::Tls,
        Self::History,
        Self::Retention,
        Self::Limits,
        Self::Room,
        Self::Durability,
    ];

    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Cluster => "cluster",
            Self::Tls => "tls",
            Self::History => "history",
            Self::Retention => "retention",
            Self::Limits => "limits",
            Self::Room => "room",
            Self::Durability => "durability",
        }
    }
}

/// Something that a bus lacks or may do to its users.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// What, and for what that matters.
    pub says: String,
    /// Commands or lines of the server's configuration that change it, as they are typed.
    pub remedy: Vec<String>,
}

impl BusReport {
    /// Nothing is known yet but this.
    pub fn new(standing: Standing) -> Self {
        Self {
            standing,
            round_trip: None,
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// States an aspect; again, in the place of what was stated before.
    pub fn state(&mut self, aspect: Aspect, says: impl Into<String>) {
        self.facts.retain(|(of, _)| *of != aspect);
        self.facts.push((aspect, says.into()));
    }

    /// Warns of something, with what changes it.
    pub fn warn<S: Into<String>>(
        &mut self,
        says: impl Into<String>,
        remedy: impl IntoIterator<Item = S>,
    ) {
        self.warnings.push(Warning {
            says: says.into(),
            remedy: remedy.into_iter().map(Into::into).collect(),
        });
    }

    /// What was stated of an aspect.
    pub fn stated(&self, aspect: Aspect) -> Option<&str> {
        let found = self.facts.iter().find(|(of, _)| *of == aspect);
        found.map(|(_, says)| says.as_str())
    }

    /// What nothing was stated of.
    pub fn unstated(&self) -> Vec<Aspect> {
        let all = Aspect::ALL.into_iter();
        all.filter(|of| self.stated(*of).is_none()).collect()
    }

    /// What was warned of.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// A number of bytes, as reports say it: `512 bytes`, `32 MiB`, `1.5 GiB`.
    pub fn size(bytes: u64) -> String {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let mut tenths = u128::from(bytes) * 10;
        let mut unit = None;
        for name in UNITS {
            if tenths < 10_240 {
                break;
            }
            tenths /= 1024;
            unit = Some(name);
        }
        match (unit, tenths % 10) {
            (None, _) => format!("{bytes} bytes"),
            (Some(unit), 0) => format!("{} {unit}", tenths / 10),
            (Some(unit), tenth) => format!("{}.{tenth} {unit}", tenths / 10),
        }
    }
}

/// What was made for a bus, and what was there already and left as it is. Each is said in a few words:
/// `the folder /srv/bus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusSetup {
    /// What was made.
    pub made: Vec<String>,
    /// What was there.
    pub left: Vec<String>,
}

impl BusSetup {
    /// Something was made.
    pub fn made(what: impl Into<String>) -> Self {
        Self {
            made: Vec::from([what.into()]),
            left: Vec::new(),
        }
    }

    /// Something was there.
    pub fn left(what: impl Into<String>) -> Self {
        Self {
            made: Vec::new(),
            left: Vec::from([what.into()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        for (bytes, says) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (32 << 20, "32 MiB"),
            ((1 << 30) + (1 << 29), "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(BusReport::size(bytes), says);
        }
    }

    #[test]
    fn what_is_stated_again_takes_the_place_of_what_was() {
        let mut report = BusReport::new(Standing::Ready);
        report.state(Aspect::Tls, "off");
        report.state(Aspect::Tls, "on");
        assert_eq!(report.stated(Aspect::Tls), Some("on"));
        assert_eq!(report.unstated().len(), Aspect::ALL.len() - 1);
    }
}
