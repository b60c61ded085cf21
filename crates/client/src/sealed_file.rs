//! Files in the age format (C2SP `age.md`), in which keys and homes are handed over and kept:
//! `spec/export.md`, section "The file".

use std::fmt;
use std::hint::black_box;
use std::io::{self, Write as _};
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

/// Work of making a key from a passphrase, as the power of two that scrypt takes: 256 MiB.
const WORK_FACTOR: u8 = 18;
/// The most work that a file may ask for: 1 GiB.
const WORK_FACTOR_MAX: u8 = 20;
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
    let sealed = writer.finish()?.finish();
    overwrite_freed();
    sealed
}

/// The library frees the buffer of its last chunk as it is. The next one of that size usually takes
/// its place.
fn overwrite_freed() {
    drop(black_box(Zeroizing::new(vec![0xff_u8; CHUNK])));
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

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes it for this user alone, durably, and whole or not at all.
    ///
    /// # Errors
    ///
    /// Fails when there is a file already and it is not to be replaced, or the file cannot be
    /// written; what was there stays as it was.
    pub async fn write(&self, path: &Path, replaces: bool) -> Result<(), Error> {
        let (file, path) = (self.clone(), path.to_owned());
        off_thread(move || {
            let tag = clock::rng().next_u64();
            let written = sealcast_store::write_whole(&path, &file.0, replaces, tag);
            written.map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists if !replaces => Error::FileExists(path),
                _ => Error::FileNotWritten { path, source },
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
        let reader = ArmoredReader::new(self.0.trim_ascii_start());
        Decryptor::new_buffered(reader).map_err(|error| of_age(&error, FileNeeds::Identity))
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
        Export::decode(plaintext.expose()).map_err(|error| match error {
            DecodeError::UnknownVersion { found } if found > 1 => Error::FileTooNew("sealcast"),
            _ => Error::FileNotOurs,
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
