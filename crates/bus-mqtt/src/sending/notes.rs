//! Files of a home in which its processes note what they are about to publish: spec/bus-mqtt.md, section 8.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, BufMut as _, Bytes};
use sealcast_bus::{Arrival, Topic};

use crate::link::draw;

/// What every file begins with.
const MAGIC: [u8; 4] = *b"SCN\x01";
/// Bytes before what is noted: those, and how many bytes are noted, and their check.
const HEAD: usize = 4 + 8 + 8;
/// Files that a process has at a time; what is more is published without.
const FILES_MAX: usize = 64;
/// Bytes of a file that are kept for what is noted next.
const KEPT_MAX: u64 = 4 << 20;
/// The most bytes of a file that are read.
const READ_MAX: u64 = 64 << 20;

/// The files of this process.
#[derive(Debug)]
pub(super) struct Notes {
    folder: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    free: Vec<Note>,
    /// With those that are in use.
    count: usize,
}

/// A file of this process, which has it locked.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
    path: PathBuf,
}

/// A file of a process that has ended.
#[derive(Debug)]
pub(super) struct Left {
    note: Note,
    bytes: Bytes,
}

impl Notes {
    pub(super) fn new(folder: PathBuf) -> Self {
        let files = Mutex::default();
        Self { folder, files }
    }

    /// Notes what is about to be published; nothing where that cannot be noted. It is there when this process is
    /// killed; when the machine is, it may not be.
    pub(super) async fn note(&self, arrivals: impl Into<Arc<[Arrival]>>) -> Option<Note> {
        let free = {
            let mut files = self.files();
            let free = files.free.pop();
            if free.is_none() {
                if files.count >= FILES_MAX {
                    return None;
                }
                files.count += 1;
            }
            free
        };
        let (folder, arrivals): (_, Arc<[Arrival]>) = (self.folder.clone(), arrivals.into());
        let noting = tokio::task::spawn_blocking(move || -> io::Result<Note> {
            let mut note = match free {
                Some(note) => note,
                None => Note::create(&folder)?,
            };
            note.write(&encode(&arrivals))?;
            Ok(note)
        });
        let noted = noting.await.ok().and_then(Result::ok);
        if noted.is_none() {
            self.files().count -= 1;
        }
        noted
    }

    /// What was noted is in the mirror, or its writer was told that it is not.
    pub(super) fn settle(&self, mut note: Note) {
        let is_cleared = note.clear().is_ok();
        let mut files = self.files();
        match is_cleared {
            true => files.free.push(note),
            false => files.count -= 1,
        }
    }

    /// Where there are files, of processes that have ended, too; the one that was written to first before the others.
    pub(super) async fn places(&self) -> Vec<PathBuf> {
        let folder = self.folder.clone();
        let looking = tokio::task::spawn_blocking(move || -> io::Result<Vec<PathBuf>> {
            let entries = fs::read_dir(folder)?;
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry?;
                // One that is gone meanwhile was another process's to take in.
                if let Ok(written) = entry.metadata().and_then(|of| of.modified()) {
                    found.push((written, entry.path()));
                }
            }
            found.sort();
            Ok(found.into_iter().map(|(_, path)| path).collect())
        });
        // Without the folder nothing was noted.
        let found = looking.await.ok().and_then(Result::ok);
        found.unwrap_or_default()
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        for note in std::mem::take(&mut self.files().free) {
            // One that stays has nothing in it.
            let _is_gone = fs::remove_file(&note.path).is_ok();
        }
    }
}

impl Note {
    /// Makes a file; under a name that others look at only when it is locked.
    fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let name = draw().map_err(io::Error::other)?;
        let (path, new) = (
            folder.join(format!("{name:016x}")),
            folder.join(format!("{name:016x}.new")),
        );
        let file = File::options().write(true).create_new(true).open(&new)?;
        file.try_lock().map_err(io::Error::other)?;
        fs::rename(&new, &path)?;
        Ok(Self { file, path })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > KEPT_MAX {
            return self.file.set_len(0);
        }
        let none = [&MAGIC[..], &[0; HEAD - MAGIC.len()]].concat();
        self.write(&none)
    }
}

impl Left {
    /// Nothing where its process runs, or where it is no such file.
    pub(super) async fn at(path: PathBuf) -> Option<Self> {
        let looking = tokio::task::spawn_blocking(move || Self::look(&path));
        looking.await.ok().flatten()
    }

    fn look(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_ours = name.len() == 16 && name.bytes().all(|of| of.is_ascii_hexdigit());
        let options = || File::options().read(true).write(true).open(path).ok();
        let mut file = is_ours.then(options).flatten()?;
        file.try_lock().ok()?;
        let mut bytes = Vec::new();
        let mut start = io::Read::by_ref(&mut file).take(READ_MAX);
        start.read_to_end(&mut bytes).ok()?;
        // Of a later version that somebody else may know.
        if bytes.len() >= MAGIC.len() && !bytes.starts_with(&MAGIC) {
            return None;
        }
        let path = path.to_owned();
        Some(Self {
            note: Note { file, path },
            bytes: bytes.into(),
        })
    }

    /// What was noted; nothing where that is not whole.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        decode(&self.bytes).unwrap_or_default()
    }

    /// It is in the mirror.
    pub(super) fn done(self) {
        // One that stays is taken in once more, and dropped.
        let _is_gone = fs::remove_file(&self.note.path).is_ok();
    }
}

fn encode(arrivals: &[Arrival]) -> Vec<u8> {
    let payloads = arrivals.iter().flat_map(|of| &of.payloads);
    let room: usize = payloads.map(|of| of.len() + 512).sum();
    let mut bytes = Vec::with_capacity(HEAD + room);
    bytes.put_slice(&MAGIC);
    bytes.put_bytes(0, HEAD - MAGIC.len());
    for arrival in arrivals {
        let topic = arrival.topic.as_ref().as_bytes();
        // Names and counts are far below these bounds.
        bytes.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        bytes.put_slice(topic);
        bytes.put_slice(&arrival.id);
        bytes.put_u32(arrival.parts);
        bytes.put_u32(u32::try_from(arrival.payloads.len()).unwrap_or(u32::MAX));
        for payload in &arrival.payloads {
            bytes.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
            bytes.put_slice(payload);
        }
    }
    let noted = &bytes[HEAD..];
    let (length, check) = (noted.len() as u64, check(noted));
    let mut head = &mut bytes[MAGIC.len()..HEAD];
    head.put_u64(length);
    head.put_u64(check);
    bytes
}

fn decode(file: &Bytes) -> Option<Vec<Arrival>> {
    let mut rest = &file[..];
    rest = rest.strip_prefix(&MAGIC)?;
    let length = usize::try_from(rest.try_get_u64().ok()?).ok()?;
    let expected = rest.try_get_u64().ok()?;
    let noted = rest.get(..length)?;
    if length == 0 || check(noted) != expected {
        return None;
    }
    let mut rest = noted;
    let mut arrivals = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest.try_get_u16().ok()?);
        let (topic, behind) = rest.split_at_checked(length)?;
        rest = behind;
        let topic = Topic::new(std::str::from_utf8(topic).ok()?).ok()?;
        let (id, behind) = rest.split_first_chunk()?;
        rest = behind;
        let parts = rest.try_get_u32().ok()?;
        let mut payloads = Vec::new();
        for _ in 0..rest.try_get_u32().ok()? {
            let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
            let (payload, behind) = rest.split_at_checked(length)?;
            payloads.push(file.slice_ref(payload));
            rest = behind;
        }
        arrivals.push(Arrival {
            topic,
            id: *id,
            stamp: 0,
            payloads,
            is_own: true,
            parts,
        });
    }
    Some(arrivals)
}

/// By what bytes are told from those that a machine left there which lost power. Against nobody: whoever may write
/// to the folder may write anything.
fn check(bytes: &[u8]) -> u64 {
    let step = |hash: u64, number: u64| {
        let product = (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product.rotate_left(29)
    };
    let (eights, rest) = bytes.as_chunks::<8>();
    let eights = eights.iter().map(|of| u64::from_be_bytes(*of));
    let hash = eights.fold(0xcbf2_9ce4_8422_2325, step);
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    match rest.is_empty() {
        true => hash,
        false => step(hash, u64::from_be_bytes(last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(id: u8, payloads: &[&'static str]) -> Arrival {
        Arrival {
            topic: Topic::new("s/1f/data").unwrap(),
            id: [id; 16],
            stamp: 0,
            payloads: payloads
                .iter()
                .map(|of| Bytes::from_static(of.as_bytes()))
                .collect(),
            is_own: true,
            parts: 2,
        }
    }

    async fn found(notes: &Notes) -> Vec<Vec<Arrival>> {
        let mut all = Vec::new();
        for path in notes.places().await {
            all.extend(Left::at(path).await.map(|left| left.arrivals()));
        }
        all.sort_by_key(|of| of.first().map(|of| of.id));
        all
    }

    #[tokio::test]
    async fn what_a_process_noted_is_found_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sending");
        let one = Notes::new(path.clone());
        assert_eq!(found(&one).await, [] as [Vec<Arrival>; 0]);
        let (a, b) = (arrival(1, &["a", ""]), arrival(2, &["bc"]));
        let both = [a.clone(), b.clone()];
        let first = one.note(both.clone()).await.unwrap();
        let second = one.note([b.clone()]).await.unwrap();
        let settled = one.note([a]).await.unwrap();
        one.settle(settled);
        let other = Notes::new(path.clone());
        assert_eq!(found(&other).await, [] as [Vec<Arrival>; 0]);
        // As the files are when it is killed.
        drop((first, second));
        let all = found(&other).await;
        assert_eq!(all, [both.to_vec(), vec![b]]);
        for path in other.places().await {
            // One of them is of the process that runs.
            let left = Left::at(path).await;
            left.into_iter().for_each(Left::done);
        }
        assert_eq!(found(&other).await, [] as [Vec<Arrival>; 0]);
        drop(one);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_is_used_again_and_there_are_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::new(folder.path().to_owned());
        let long = arrival(1, &["a long payload, and what is noted next is shorter"]);
        let (one, two) = (notes.note([long]).await.unwrap(), arrival(2, &["b"]));
        let path = one.path.clone();
        notes.settle(one);
        let mut noted = Vec::new();
        for _ in 0..FILES_MAX {
            noted.push(notes.note([two.clone()]).await.unwrap());
        }
        assert_eq!(noted[0].path, path);
        assert!(notes.note([two.clone()]).await.is_none());
        noted.truncate(1);
        let all = found(&notes).await;
        assert!(all.iter().all(|of| *of == [two.clone()]) && all.len() == FILES_MAX - 1);
    }

    /// The worked example of the specification.
    #[test]
    fn a_note_is_what_the_specification_shows_and_nothing_less() {
        let noted = [
            &b"\x00\x09s/1f/data"[..],
            &[7; 16],
            b"\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x00",
        ]
        .concat();
        let expected = [
            b"SCN\x01\0\0\0\0\0\0\0\x2c",
            &check(&noted).to_be_bytes()[..],
            &noted,
        ];
        let bytes = Bytes::from(encode(&[arrival(7, &["a", ""])]));
        assert_eq!(bytes, expected.concat());
        assert_eq!(check(&noted), CHECK_OF_EXAMPLE);
        assert_eq!(decode(&bytes), Some(vec![arrival(7, &["a", ""])]));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes.slice(..end)), None, "{end}");
        }
        for at in 0..bytes.len() {
            let mut odd = bytes.to_vec();
            odd[at] ^= 1;
            assert_eq!(decode(&odd.into()), None, "{at}");
        }
    }

    const CHECK_OF_EXAMPLE: u64 = 0x9e30_941c_80d8_10fb;
}
