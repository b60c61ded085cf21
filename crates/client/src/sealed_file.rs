//! Files in the age format (C2SP `age.md`), in which keys and homes are handed over and kept:
//! `spec/export.md`, section "The file".

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read as _, Write as _};
use std::path::Path;
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor};
use rand_core::Rng as _;
use sealcast_crypto::SecretBytes;
use sealcast_protocol::{DecodeError, Export};
use zeroize::Zeroizing;

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::inspect::{Sight, inspect};

/// Work of making a key from a passphrase, as the power of two that scrypt takes: 256 MiB.
const WORK_FACTOR: u8 = 18;
/// The most work that a file may ask for: 1 GiB.
const WORK_FACTOR_MAX: u8 = 20;
/// The longest head that is read. Reading one takes time with the square of its lines.
const HEAD_LEN_MAX: u64 = 64 << 10;
const HEAD_LINES_MAX: usize = 2048;
/// Recipients of one file, whose head is well within that.
const RECIPIENTS_MAX: usize = 512;
/// By what a file is known that is not replaced.
const PRECIOUS_HEAD: u64 = 128;
/// What age encrypts at once.
const CHUNK: usize = 64 << 10;

const HEAD: &[u8] = b"age-encryption.org/";
const HEAD_V1: &[u8] = b"age-encryption.org/v1\n";
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// Whom a file is encrypted to: the public half of an age key, `age1…`.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let recipient = text.trim().parse().map_err(|_| RecipientError)?;
        Ok(Self(recipient))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// The text is not the public half of an age key of the kind `age1…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an age recipient: one starts with `age1`, as `age-keygen` prints it")]
pub struct RecipientError;

/// What will open a file that is being made.
pub struct FileLock {
    to: To,
    work_factor: u8,
}

enum To {
    Passphrase(SecretBytes),
    Recipients(Vec<Recipient>),
}

impl FileLock {
    /// A passphrase, for people.
    pub fn passphrase(passphrase: SecretBytes) -> Self {
        Self {
            to: To::Passphrase(passphrase),
            work_factor: WORK_FACTOR,
        }
    }

    /// The age keys of all of these, each alone.
    pub fn recipients(recipients: Vec<Recipient>) -> Self {
        Self {
            to: To::Recipients(recipients),
            work_factor: WORK_FACTOR,
        }
    }

    /// Makes guessing the passphrase cheaper. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn danger_with_work_factor(mut self, log_n: u8) -> Self {
        self.work_factor = log_n.clamp(1, WORK_FACTOR_MAX);
        self
    }

    /// Encrypts an export, as text where `is_armored`.
    pub(crate) fn seal(&self, export: &Export, is_armored: bool) -> Result<SealedFile, Error> {
        let plaintext = export.encode().map_err(|_| Error::ExportTooLarge)?;
        let encryptor = match &self.to {
            To::Passphrase(passphrase) => {
                let mut recipient = age::scrypt::Recipient::new(text_of(passphrase)?);
                recipient.set_work_factor(self.work_factor);
                Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
            To::Recipients(recipients) if recipients.len() > RECIPIENTS_MAX => {
                return Err(Error::FileTooManyRecipients(RECIPIENTS_MAX));
            }
            To::Recipients(recipients) => {
                let recipients = recipients.iter().map(|of| &of.0 as &dyn age::Recipient);
                Encryptor::with_recipients(recipients)
            }
        };
        let encryptor = encryptor.map_err(|_| Error::FileNeedsLock)?;
        let sealed = encrypt(encryptor, plaintext.expose(), is_armored);
        let sealed = sealed.map_err(|_| Error::Internal("writing into memory failed"));
        sealed.map(SealedFile)
    }
}

fn encrypt(encryptor: Encryptor, plaintext: &[u8], is_armored: bool) -> io::Result<Vec<u8>> {
    let format = match is_armored {
        true => Format::AsciiArmor,
        false => Format::Binary,
    };
    let armor = ArmoredWriter::wrap_output(Vec::new(), format)?;
    let mut writer = encryptor.wrap_output(armor)?;
    writer.write_all(plaintext)?;
    writer.finish()?.finish()
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Passphrase(_) => f.write_str("FileLock(passphrase)"),
            To::Recipients(recipients) => write!(f, "FileLock({recipients:?})"),
        }
    }
}

/// What opens a file that there is.
pub enum FileKey {
    /// Its passphrase.
    Passphrase(SecretBytes),
    /// One of these age keys.
    Identities(Identities),
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "FileKey(passphrase)",
            Self::Identities(_) => "FileKey(identities)",
        })
    }
}

/// The secret halves of age keys, `AGE-SECRET-KEY-1…`.
pub struct Identities(Vec<age::x25519::Identity>);

impl Identities {
    /// Reads an identity file as `age-keygen` makes it: a key a line; empty lines and those that
    /// begin with `#` say nothing.
    ///
    /// # Errors
    ///
    /// Fails when a line is something else, or there is no key.
    pub fn parse(file: &SecretBytes) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(file.expose()).map_err(|_| IdentityError)?;
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = keys.map(|line| line.parse().map_err(|_| IdentityError));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err(IdentityError),
            false => Ok(Self(keys)),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// The bytes are no identity file: they hold no key `AGE-SECRET-KEY-1…`, or something else besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an age identity file: it holds lines that start with `AGE-SECRET-KEY-1`")]
pub struct IdentityError;

/// What a file needs to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileNeeds {
    /// Its passphrase.
    Passphrase,
    /// The age key of one of its recipients.
    Identity,
}

/// A file of keys, or a backup, as it was read.
#[derive(Clone)]
pub struct SealedFile(Vec<u8>);

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFile({} bytes)", self.0.len())
    }
}

impl SealedFile {
    /// Most bytes that a file may have.
    pub const LEN_MAX: u64 = 2 << 30;

    /// Takes the bytes of a file.
    ///
    /// # Errors
    ///
    /// Fails when they are none in the age format, or one of a newer version.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let head = bytes.trim_ascii_start();
        if head.starts_with(HEAD_V1) || head.starts_with(ARMOR) {
            return Ok(Self(bytes));
        }
        match head.starts_with(HEAD) {
            true if head.contains(&b'\n') => Err(Error::FileTooNew("age")),
            true => Err(CUT),
            false => Err(Error::FileUnknown),
        }
    }

    /// Whether bytes begin as a file in the age format does, of whatever version.
    pub(crate) fn looks_like_one(bytes: &[u8]) -> bool {
        let head = bytes.trim_ascii_start();
        head.starts_with(HEAD) || head.starts_with(ARMOR)
    }

    /// Whether it is text.
    pub fn is_armored(&self) -> bool {
        self.0.trim_ascii_start().starts_with(ARMOR)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes it for this user alone, durably, and whole or not at all.
    ///
    /// # Errors
    ///
    /// Fails when there is a file already and it is not to be replaced, or is a store, the key of one
    /// or another database, or the file cannot be written; what was there stays as it was.
    pub async fn write(&self, path: &Path, replaces: bool) -> Result<(), Error> {
        let (file, path) = (self.clone(), path.to_owned());
        off_thread(move || {
            if replaces {
                check_not_precious(&path)?;
            }
            let tag = clock::rng().next_u64();
            let written = sealcast_store::write_whole(&path, &file.0, replaces, tag);
            let is_there = io::ErrorKind::AlreadyExists;
            written.map_err(|source| match !replaces && source.kind() == is_there {
                true => Error::FileExists(path),
                false => Error::FileNotWritten { path, source },
            })
        })
        .await?
    }

    /// What it must be opened with.
    ///
    /// # Errors
    ///
    /// Fails when its head is damaged.
    pub fn needs(&self) -> Result<FileNeeds, Error> {
        Ok(match self.decryptor()?.is_scrypt() {
            true => FileNeeds::Passphrase,
            false => FileNeeds::Identity,
        })
    }

    fn decryptor(&self) -> Result<Decryptor<ArmoredReader<io::BufReader<&[u8]>>>, Error> {
        let reader = || ArmoredReader::new(self.0.trim_ascii_start());
        let of_age = |error| of_age(&error, FileNeeds::Identity);
        match has_short_head(reader()).map_err(|error| of_age(error.into()))? {
            true => Decryptor::new_buffered(reader()).map_err(of_age),
            false => Err(Error::FileDamaged("its head has no end")),
        }
    }

    /// Decrypts what is in it.
    pub(crate) fn open(&self, key: &FileKey) -> Result<Export, Error> {
        let needs = self.needs()?;
        let decryptor = self.decryptor()?;
        let fault = |error| of_age(&error, needs);
        let reader = match (needs, key) {
            (FileNeeds::Passphrase, FileKey::Passphrase(passphrase)) => {
                let mut identity = age::scrypt::Identity::new(text_of(passphrase)?);
                identity.set_max_work_factor(WORK_FACTOR_MAX);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            (FileNeeds::Identity, FileKey::Identities(identities)) => {
                let identities = identities.0.iter().map(|of| of as &dyn age::Identity);
                decryptor.decrypt(identities)
            }
            (FileNeeds::Passphrase, FileKey::Identities(_)) => {
                return Err(Error::FileNeedsPassphrase);
            }
            (FileNeeds::Identity, FileKey::Passphrase(_)) => return Err(Error::FileNeedsIdentity),
        };
        let plaintext = self.read(reader.map_err(fault)?)?;
        Export::decode(plaintext.expose()).map_err(|error| {
            let is_newer = matches!(error, DecodeError::UnknownVersion { found } if found > 1);
            match is_newer {
                true => Error::FileTooNew("sealcast"),
                false => Error::FileNotOurs,
            }
        })
    }

    fn read(&self, mut from: impl io::Read) -> Result<SecretBytes, Error> {
        let mut plaintext = SecretBytes::with_capacity(self.0.len());
        let mut chunk = Zeroizing::new(vec![0; CHUNK]);
        loop {
            let read = from.read(&mut chunk);
            let read = read.map_err(|error| of_age(&error.into(), FileNeeds::Identity))?;
            match chunk.get(..read) {
                Some(some) if !some.is_empty() => plaintext.extend_from_slice(some),
                Some(_) | None => return Ok(plaintext),
            }
        }
    }
}

/// Nobody means to write keys or a home over what a home or a bus lies in.
fn check_not_precious(path: &Path) -> Result<(), Error> {
    let mut head = Vec::new();
    let is_file = path.symlink_metadata().is_ok_and(|of| of.is_file());
    if let Some(file) = is_file.then(|| File::open(path).ok()).flatten() {
        let _read: io::Result<usize> = file.take(PRECIOUS_HEAD).read_to_end(&mut head);
    }
    let sight = inspect(&head);
    let what = if matches!(sight, Sight::KeyFile { .. }) {
        "the key of a store"
    } else if matches!(sight, Sight::Store) {
        "the store of a home"
    } else if matches!(sight, Sight::FileBus | Sight::OtherDatabase) {
        "a database"
    } else {
        return Ok(());
    };
    let path = path.into();
    Err(Error::FileNotReplaced { path, what })
}

/// Whether the head ends where one may at the latest, or the file does before.
fn has_short_head(file: impl BufRead) -> io::Result<bool> {
    let mut file = file.take(HEAD_LEN_MAX);
    let mut line = Vec::new();
    for _ in 0..HEAD_LINES_MAX {
        line.clear();
        file.read_until(b'\n', &mut line)?;
        if line.starts_with(b"---") || (line.is_empty() && file.limit() > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

const CUT: Error = Error::FileDamaged("it is cut off");
const ALTERED: Error = Error::FileDamaged("it was altered");

fn of_age(error: &DecryptError, needs: FileNeeds) -> Error {
    if let DecryptError::Io(error) = error {
        return match error.kind() == io::ErrorKind::UnexpectedEof {
            true => CUT,
            false => ALTERED,
        };
    }
    if matches!(error, DecryptError::ExcessiveWork { .. }) {
        return Error::FileDamaged("it asks for too much work");
    }
    if matches!(error, DecryptError::UnknownFormat) {
        return Error::FileTooNew("age");
    }
    let is_key = matches!(
        error,
        DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed
    );
    match needs {
        FileNeeds::Passphrase if is_key => Error::FileWrongPassphrase,
        FileNeeds::Identity if matches!(error, DecryptError::NoMatchingKeys) => {
            Error::FileWrongIdentity
        }
        FileNeeds::Passphrase | FileNeeds::Identity => ALTERED,
    }
}

/// The format takes passphrases as text.
fn text_of(passphrase: &SecretBytes) -> Result<SecretString, Error> {
    let text = std::str::from_utf8(passphrase.expose()).map_err(|_| Error::FilePassphraseText)?;
    match text.is_empty() {
        true => Err(Error::FilePassphraseText),
        false => Ok(SecretString::from(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use sealcast_protocol::{HomeExport, Position};

    use super::*;

    fn identity() -> age::x25519::Identity {
        age::x25519::Identity::generate()
    }

    fn lock(to: &age::x25519::Identity) -> FileLock {
        FileLock::recipients(Vec::from([Recipient(to.to_public())]))
    }

    fn key(of: &age::x25519::Identity) -> FileKey {
        FileKey::Identities(Identities(Vec::from([of.clone()])))
    }

    fn export() -> Export {
        Export::Home(HomeExport {
            time: Position(7),
            records: Vec::new(),
        })
    }

    fn code(file: Vec<u8>, key: &FileKey) -> &'static str {
        let opened = SealedFile::new(file).and_then(|file| file.open(key));
        opened.map_or_else(|error| error.code(), |_| "opened")
    }

    #[test]
    fn a_file_cut_anywhere_or_with_any_byte_altered_is_refused() {
        let identity = identity();
        let key = key(&identity);
        for is_armored in [false, true] {
            let good = lock(&identity).seal(&export(), is_armored).unwrap().0;
            assert_eq!(code(good.clone(), &key), "opened");
            // The newline that ends the text may be missing.
            let len = good.len() - usize::from(is_armored);
            for at in 0..len {
                let cut = code(good[..at].to_vec(), &key);
                assert!(
                    ["file.damaged", "file.unknown"].contains(&cut),
                    "{at}: {cut}"
                );
                let mut altered = good.clone();
                altered[at] ^= 1;
                assert_ne!(code(altered, &key), "opened", "{at}");
            }
        }
    }

    #[test]
    fn a_longer_file_cut_between_its_chunks_is_refused() {
        let identity = identity();
        let records = vec![sealcast_protocol::ExportedRecord {
            space: 1,
            id: Vec::new(),
            value: SecretBytes::from(vec![7; 3 * CHUNK]),
        }];
        let time = Position(7);
        let export = Export::Home(HomeExport { time, records });
        let good = lock(&identity).seal(&export, false).unwrap().0;
        let key = key(&identity);
        assert_eq!(code(good.clone(), &key), "opened");
        let chunk = CHUNK + 16;
        let head = good.len() % chunk;
        for chunks in 0..good.len() / chunk {
            let cut = good[..head + chunks * chunk].to_vec();
            assert_eq!(code(cut, &key), "file.damaged", "{chunks}");
        }
        let behind = [&good[..], b"x"].concat();
        assert_eq!(code(behind, &key), "file.damaged");
    }

    #[test]
    fn too_much_work_is_refused_before_it_is_done() {
        let passphrase = || SecretBytes::from(b"x".to_vec());
        let lock = FileLock::passphrase(passphrase()).danger_with_work_factor(1);
        let good = lock.seal(&export(), false).unwrap().0;
        let key = FileKey::Passphrase(passphrase());
        assert_eq!(code(good.clone(), &key), "opened");
        let text = String::from_utf8_lossy(&good).into_owned();
        let head = text.lines().nth(1).unwrap().len();
        let at = "age-encryption.org/v1\n".len() + head;
        let asks = |work: &[u8]| [&good[..at - 1], work, &good[at..]].concat();
        assert_eq!(code(asks(b"1"), &key), "opened");
        for work in [&b"21"[..], b"63"] {
            let error = SealedFile::new(asks(work)).and_then(|file| file.open(&key));
            let said = error.unwrap_err().to_string();
            assert!(said.contains("too much work"), "{said}");
        }
    }

    /// What parses a head begins anew with every line of it.
    #[test]
    fn a_head_without_end_is_refused_before_it_is_read() {
        let identity = identity();
        let key = key(&identity);
        let good = lock(&identity).seal(&export(), false).unwrap().0;
        let begin = HEAD_V1.len();
        let with = |stanzas: Vec<u8>| [HEAD_V1, &stanzas, &good[begin..]].concat();
        let short = b"-> a\n\n".repeat(HEAD_LINES_MAX / 2);
        let wide = [&b"-> "[..], &vec![b'a'; HEAD_LEN_MAX as usize], b"\n\n"].concat();
        for stanzas in [short, wide] {
            let file = SealedFile::new(with(stanzas)).unwrap();
            for error in [file.needs().err(), file.open(&key).err()] {
                let said = error.map(|error| error.to_string());
                let expected = "the file is damaged: its head has no end";
                assert_eq!(said.as_deref(), Some(expected));
            }
        }
        let most = Recipient(identity.to_public());
        let most = FileLock::recipients(vec![most; RECIPIENTS_MAX]);
        for is_armored in [false, true] {
            let file = most.seal(&export(), is_armored).unwrap().0;
            assert_eq!(code(file, &key), "opened");
        }
        let more = Recipient(identity.to_public());
        let more = FileLock::recipients(vec![more; RECIPIENTS_MAX + 1]);
        let refused = more.seal(&export(), false).unwrap_err();
        assert_eq!(refused.code(), "file.too-many-recipients");
    }

    #[test]
    fn a_newer_version_inside_and_other_content_are_told_apart() {
        let identity = identity();
        let recipient = identity.to_public();
        let key = key(&identity);
        let of = |plaintext: &[u8]| age::encrypt(&recipient, plaintext).unwrap();
        assert_eq!(code(of(&[0x81, 2]), &key), "file.too-new");
        assert_eq!(code(of(b"something else"), &key), "file.not-ours");
        assert_eq!(code(of(b""), &key), "file.not-ours");
        let head = b"age-encryption.org/v9\n".to_vec();
        assert_eq!(code(head, &key), "file.too-new");
    }
}
