//! Config files of any kind: how they are read, and where in them something is wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest config file, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read; see what the system says.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file says something that it cannot say; mend the line.
    #[error("{}, line {line}: {says}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
        /// What is wrong there.
        says: String,
    },
}

/// In which line, and what is wrong there.
pub type WrongLine = (usize, String);

impl ConfigError {
    /// Reads a config file, and has `parse` find out what it says.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, or is longer than 1 MiB, or when `parse` says in which line what is wrong.
    pub fn read<T>(
        path: &Path,
        parse: impl FnOnce(&str) -> Result<T, WrongLine>,
    ) -> Result<T, Self> {
        let text = text_of(path).map_err(|source| Self::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        parse(&text).map_err(|(line, says)| Self::Wrong {
            path: path.to_owned(),
            line,
            says,
        })
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    match fs::metadata(path)?.len() > BYTES_MAX {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => fs::read_to_string(path),
    }
}

/// The line in which a byte of a text is, from 1 on.
pub fn line_of(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The line in which a section of a text in TOML names a key; the one in which the section begins where it does not, and
/// the first where there is no such section. A section is said as in the text, such as `[[rule]]`, and which of those with
/// that name it is, from 1 on. What stands before all of them is in that of an empty name.
pub fn line_of_key(text: &str, (section, number): (&str, usize), key: &str) -> usize {
    let (mut count, mut is_in, mut begins) = (0, section.is_empty(), 1);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let is_it = line
                .split('#')
                .next()
                .is_some_and(|of| of.trim() == section);
            count += usize::from(is_it);
            is_in = is_it && count == number;
            if is_in {
                begins = index + 1;
            }
        }
        let name = line.split('=').next().unwrap_or_default();
        if is_in && name.trim() == key {
            return index + 1;
        }
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_bytes_and_by_sections() {
        let text = "a = 1\n[x] # one\nb = 2\n[[y]]\nb = 3\n  [[y]]\nc = 4\n b = 5\n";
        assert_eq!(line_of(text, 0), 1);
        assert_eq!(line_of(text, text.find("b = 2").unwrap()), 3);
        assert_eq!(line_of(text, usize::MAX), 9);
        for (section, key, line) in [
            (("", 0), "a", 1),
            (("[x]", 1), "b", 3),
            (("[[y]]", 1), "b", 5),
            (("[[y]]", 2), "b", 8),
            (("[[y]]", 1), "c", 4),
            (("[z]", 1), "b", 1),
        ] {
            assert_eq!(line_of_key(text, section, key), line, "{section:?} {key}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_too_long_or_wrong_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        let read = || {
            ConfigError::read(&path, |text| match text.find("wrong") {
                Some(at) => Err((line_of(text, at), "it is".to_owned())),
                None => Ok(()),
            })
        };
        let unreadable = |kind: io::ErrorKind| match read() {
            Err(ConfigError::Unreadable { source, .. }) => assert_eq!(source.kind(), kind),
            other => panic!("{other:?}"),
        };
        unreadable(io::ErrorKind::NotFound);
        fs::write(&path, "#".repeat(BYTES_MAX as usize)).unwrap();
        assert!(read().is_ok());
        fs::write(&path, "#".repeat(BYTES_MAX as usize + 1)).unwrap();
        unreadable(io::ErrorKind::FileTooLarge);
        fs::write(&path, "a = 1\nwrong\n").unwrap();
        let said = read().unwrap_err().to_string();
        assert_eq!(said, format!("{}, line 2: it is", path.display()));
    }
}
