//! One file of `vectors/`.

use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use anyhow::ensure;

/// A case being written: what is given, then what is expected, then what comes out.
#[derive(Clone, Debug)]
pub(super) struct Case {
    area: &'static str,
    name: String,
    text: String,
    expected: bool,
}

impl Case {
    /// Starts the case `<area>/<name>.txt`; `about` says in a few words what is special.
    pub(super) fn new(area: &'static str, name: impl Into<String>, about: impl Display) -> Self {
        let (name, text, expected) = (name.into(), String::new(), false);
        let case = Self {
            area,
            name,
            text,
            expected,
        };
        case.with("about", about)
    }

    /// Adds a line as it is.
    pub(super) fn with(mut self, key: &str, value: impl Display) -> Self {
        let line = format!("{key}: {value}");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", line.trim_end());
        self
    }

    /// Adds a line of bytes.
    pub(super) fn hex(self, key: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.with(key, hex(bytes.as_ref()))
    }

    /// Adds a line for each.
    pub(super) fn each<T>(
        self,
        of: impl IntoIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        of.into_iter().fold(self, add)
    }

    /// What was given is good; what must come out follows.
    pub(super) fn ok(mut self) -> Self {
        self.expected = true;
        self.with("expect", "ok")
    }

    /// What was given must be refused so.
    pub(super) fn fails(mut self, failure: &str) -> Self {
        self.expected = true;
        self.with("expect", failure)
    }

    /// The path below the folder, and the text.
    pub(super) fn finish(self) -> anyhow::Result<(PathBuf, String)> {
        ensure!(self.expected, "{} expects nothing", self.name);
        let path = PathBuf::from(self.area).join(format!("{}.txt", self.name));
        Ok((path, self.text))
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
