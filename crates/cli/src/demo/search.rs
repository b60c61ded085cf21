//! Looks for texts among the bytes of a folder.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

/// Texts at least this long are found by these many first bytes.
const KEY_LEN: usize = 16;

/// Texts to look for.
#[derive(Debug)]
pub(super) struct Needles<'a> {
    long: HashMap<[u8; KEY_LEN], Vec<&'a [u8]>>,
    short: Vec<&'a [u8]>,
    /// Whether some text begins with these two bytes: spares most of the looking.
    begins: Vec<bool>,
}

/// What a search came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    /// Bytes looked through.
    pub(super) bytes: u64,
    /// Files looked through.
    pub(super) files: u64,
    /// Texts that were there.
    pub(super) found: u64,
}

impl<'a> Needles<'a> {
    /// Takes texts of two bytes or more.
    pub(super) fn new(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needles = Self {
            long: HashMap::new(),
            short: Vec::new(),
            begins: vec![false; 1 << 16],
        };
        for text in texts {
            let text = text.as_bytes();
            let Some([first, second]) = text.first_chunk() else {
                continue;
            };
            if let Some(begins) = needles.begins.get_mut(place(*first, *second)) {
                *begins = true;
            }
            match text.first_chunk() {
                Some(key) => needles.long.entry(*key).or_default().push(text),
                None => needles.short.push(text),
            }
        }
        needles
    }

    /// Looks through every file below a folder.
    pub(super) fn search(&self, folder: &Path) -> io::Result<Searched> {
        let mut searched = Searched::default();
        let mut found = BTreeSet::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let content = fs::read(entry.path())?;
                searched.files += 1;
                searched.bytes += content.len() as u64;
                self.look(&content, &mut found);
            }
        }
        searched.found = found.len() as u64;
        Ok(searched)
    }

    fn look(&self, content: &[u8], found: &mut BTreeSet<&'a [u8]>) {
        for at in 0..content.len() {
            let rest = content.get(at..).unwrap_or_default();
            let Some([first, second]) = rest.first_chunk() else {
                return;
            };
            if self.begins.get(place(*first, *second)) != Some(&true) {
                continue;
            }
            let long = rest.first_chunk().and_then(|key| self.long.get(key));
            let candidates = long.into_iter().flatten().chain(&self.short);
            found.extend(candidates.filter(|text| rest.starts_with(text)));
        }
    }
}

fn place(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_wherever_they_lie_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(
            folder.path().join("deep/a"),
            b"\0\0boilerxx synthetic #00001 boiler",
        )
        .unwrap();
        fs::write(folder.path().join("b"), b"synthetic #00002 boile").unwrap();
        let texts = [
            "boiler",
            "alice",
            "synthetic #00001 boiler",
            "synthetic #00002 boiler",
        ];
        let searched = Needles::new(texts).search(folder.path()).unwrap();
        assert_eq!((searched.files, searched.found), (2, 2));
        assert_eq!(searched.bytes, 34 + 22);
    }

    #[test]
    fn texts_with_one_beginning_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), b"synthetic #00001 two").unwrap();
        let needles = Needles::new(["synthetic #00001 one", "synthetic #00001 two", "x", ""]);
        assert_eq!(needles.search(folder.path()).unwrap().found, 1);
    }
}
