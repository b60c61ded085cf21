//! The file that holds the key of a store, in clear or under a passphrase (`spec/store.md`,
//! section "Key file").

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use rand_core::CryptoRng;
use sealcast_crypto::{SecretBytes, StoreKey, delimited};
use zeroize::Zeroizing;

use crate::place::Draft;

const MAGIC: &[u8; 12] = b"sealcast-key";
const VERSION: u8 = 1;
const PLAIN: u8 = 1;
const PASSPHRASE: u8 = 2;
const LABEL: &str = "sealcast.v1 key file";

const KEY_LEN: usize = 32;
const SALT_LEN: usize = 16;
const LOCK_LEN: usize = 12 + SALT_LEN;
const FILE_BYTES_MAX: usize = 512;

/// The file that holds the key of a store.
#[derive(Clone, Copy, Debug)]
pub struct KeyFile;

/// How a key file guards its key.
#[derive(Clone, Copy, Debug)]
pub enum Protection<'a> {
    /// Not at all: whoever reads the file has the key. The file is made for its owner alone.
    Plain,
    /// Under a passphrase, through Argon2id with 19 MiB and two passes.
    Passphrase(&'a SecretBytes),
}

/// Why a key file could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is a file of that name. It is never overwritten; move it away if it is not needed.
    #[error("key file `{}` exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An empty passphrase guards nothing. Choose one, or no protection.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The key is under a passphrase and none was given. Ask for it.
    #[error("key file `{}` needs its passphrase", path.display())]
    NeedsPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is not the right one, or the file was altered.
    #[error("the passphrase does not open key file `{}`", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write the key in clear. Take that right from them.
    #[error(
        "key file `{}` is open to other users (mode {mode:03o}): run `chmod 600` on it, and make \
         a new home if others may have read it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold what was written. Restore it from a backup.
    #[error("key file `{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// The file was written by a newer version of this program. Update the program.
    #[error("key file `{}` has version {found}, this program knows up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: u8,
        /// Newest version that this program reads.
        known: u8,
    },
    /// The file could not be read or written.
    #[error("key file `{}` cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl KeyFile {
    /// Writes `key` to the new file `path`, durably and whole or not at all, and makes its folder.
    ///
    /// # Errors
    ///
    /// Fails when there is a file already, when the passphrase is empty, and when the file cannot
    /// be written.
    pub fn create(
        path: impl AsRef<Path>,
        key: &StoreKey,
        protection: Protection<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyFileError> {
        let path = path.as_ref();
        let bytes = match protection {
            Protection::Plain => encode_plain(key, rng),
            Protection::Passphrase(passphrase) if passphrase.is_empty() => {
                return Err(KeyFileError::EmptyPassphrase);
            }
            Protection::Passphrase(passphrase) => encode_sealed(key, passphrase, rng)
                .map_err(|source| KeyFileError::io(path, source))?,
        };
        write(path, rng.next_u64(), bytes.expose()).map_err(|source| KeyFileError::io(path, source))
    }

    /// Draws a key and writes it as [`KeyFile::create`] does.
    ///
    /// # Errors
    ///
    /// As [`KeyFile::create`].
    pub fn generate(
        path: impl AsRef<Path>,
        protection: Protection<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<StoreKey, KeyFileError> {
        let key = StoreKey::generate(rng);
        Self::create(path, &key, protection, rng)?;
        Ok(key)
    }

    /// Reads the key in the file `path`. The passphrase is not used when the file needs none.
    ///
    /// # Errors
    ///
    /// Fails when the file needs a passphrase and none or a wrong one was given, when a key in clear
    /// is open to other users, and when the file is damaged, too new or not readable.
    pub fn open(
        path: impl AsRef<Path>,
        passphrase: Option<&SecretBytes>,
    ) -> Result<StoreKey, KeyFileError> {
        let path = path.as_ref();
        let damaged = |what| KeyFileError::damaged(path, what);
        let (bytes, mode) = read(path).map_err(|source| KeyFileError::io(path, source))?;
        let bytes = bytes.expose();
        if bytes.len() > FILE_BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let body = bytes.strip_prefix(MAGIC);
        let (version, body) = body
            .and_then(<[u8]>::split_first)
            .ok_or_else(|| damaged("it is not a key file"))?;
        if *version > VERSION {
            let (path, found, known) = (path.to_owned(), *version, VERSION);
            return Err(KeyFileError::TooNew { path, found, known });
        }
        match body.split_first() {
            Some((&PLAIN, body)) if *version == VERSION => match mode & 0o077 {
                0 => decode_plain(body).ok_or_else(|| damaged("its check does not hold")),
                _ => Err(KeyFileError::exposed(path, mode)),
            },
            Some((&PASSPHRASE, body)) if *version == VERSION => open_sealed(path, body, passphrase),
            Some(_) | None => Err(damaged("its kind is unknown")),
        }
    }
}

/// What a sealed key is bound to: all that stands before it.
struct Lock<'a> {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: &'a [u8; SALT_LEN],
}

impl Lock<'_> {
    const MEMORY_KIB: u32 = 19 * 1024;
    const PASSES: u32 = 2;
    const LANES: u32 = 1;

    const MEMORY_KIB_MAX: u32 = 256 * 1024;
    const PASSES_MAX: u32 = 16;
    const LANES_MAX: u32 = 4;

    fn encode(&self) -> [u8; LOCK_LEN] {
        let mut bytes = [0; LOCK_LEN];
        let numbers = [self.memory_kib, self.passes, self.lanes].map(u32::to_be_bytes);
        let parts = numbers.as_flattened().iter().chain(self.salt);
        bytes
            .iter_mut()
            .zip(parts)
            .for_each(|(byte, part)| *byte = *part);
        bytes
    }

    /// The cost of trying a passphrase, if it is one that a file may ask for.
    fn params(&self) -> Option<Params> {
        let bounded = self.memory_kib <= Self::MEMORY_KIB_MAX
            && self.passes <= Self::PASSES_MAX
            && self.lanes <= Self::LANES_MAX;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_LEN));
        params.ok().filter(|_| bounded)
    }

    fn context(&self) -> Vec<u8> {
        delimited(LABEL, &[&[VERSION, PASSPHRASE], &self.encode()])
    }

    fn key(&self, params: Params, passphrase: &SecretBytes) -> io::Result<StoreKey> {
        let mut memory = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(params.block_count())?;
        memory.resize(params.block_count(), Block::new());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut done = Ok(());
        let key = StoreKey::init_with(|key| {
            let (passphrase, memory) = (passphrase.expose(), memory.as_mut_slice());
            done = argon2.hash_password_into_with_memory(passphrase, self.salt, key, memory);
        });
        done.map(|()| key).map_err(io::Error::other)
    }
}

fn encode_plain(key: &StoreKey, rng: &mut dyn CryptoRng) -> SecretBytes {
    let check = key.seal(rng, &plain_context(), &[]);
    join(&[MAGIC, &[VERSION, PLAIN], key.expose(), &check])
}

fn decode_plain(body: &[u8]) -> Option<StoreKey> {
    let (bytes, check) = body.split_first_chunk()?;
    let key = StoreKey::init_with(|key| *key = *bytes);
    let opened = key.open(&plain_context(), check).ok()?;
    opened.is_empty().then_some(key)
}

fn plain_context() -> Vec<u8> {
    delimited(LABEL, &[&[VERSION, PLAIN]])
}

fn encode_sealed(
    key: &StoreKey,
    passphrase: &SecretBytes,
    rng: &mut dyn CryptoRng,
) -> io::Result<SecretBytes> {
    let mut salt = [0; SALT_LEN];
    rng.fill_bytes(&mut salt);
    let lock = Lock {
        memory_kib: Lock::MEMORY_KIB,
        passes: Lock::PASSES,
        lanes: Lock::LANES,
        salt: &salt,
    };
    let params = lock.params().ok_or(ErrorKind::InvalidInput)?;
    let guard = lock.key(params, passphrase)?;
    let sealed = guard.seal(rng, &lock.context(), key.expose());
    Ok(join(&[
        MAGIC,
        &[VERSION, PASSPHRASE],
        &lock.encode(),
        &sealed,
    ]))
}

fn open_sealed(
    path: &Path,
    body: &[u8],
    passphrase: Option<&SecretBytes>,
) -> Result<StoreKey, KeyFileError> {
    let (lock, sealed) = decode_lock(body).ok_or(KeyFileError::damaged(path, "it is too short"))?;
    let params = lock
        .params()
        .ok_or(KeyFileError::damaged(path, "it asks for too much work"))?;
    let path = path.to_owned();
    let Some(passphrase) = passphrase else {
        return Err(KeyFileError::NeedsPassphrase { path });
    };
    let guard = lock
        .key(params, passphrase)
        .map_err(|source| KeyFileError::io(&path, source))?;
    let opened = guard.open(&lock.context(), sealed).ok();
    let key = opened
        .as_ref()
        .and_then(|opened| opened.expose().first_chunk());
    match key {
        Some(bytes) => Ok(StoreKey::init_with(|key| *key = *bytes)),
        None => Err(KeyFileError::WrongPassphrase { path }),
    }
}

fn decode_lock(body: &[u8]) -> Option<(Lock<'_>, &[u8])> {
    let (memory_kib, body) = body.split_first_chunk()?;
    let (passes, body) = body.split_first_chunk()?;
    let (lanes, body) = body.split_first_chunk()?;
    let (salt, sealed) = body.split_first_chunk()?;
    let lock = Lock {
        memory_kib: u32::from_be_bytes(*memory_kib),
        passes: u32::from_be_bytes(*passes),
        lanes: u32::from_be_bytes(*lanes),
        salt,
    };
    (sealed.len() == KEY_LEN + StoreKey::OVERHEAD).then_some((lock, sealed))
}

fn join(parts: &[&[u8]]) -> SecretBytes {
    let mut joined = SecretBytes::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined
}

fn write(path: &Path, tag: u64, bytes: &[u8]) -> io::Result<()> {
    let draft = Draft::begin(path, tag)?;
    File::options()
        .write(true)
        .open(draft.path())?
        .write_all(bytes)?;
    draft.put_in_place(path)
}

/// Reads a file, one byte more than allowed at most, and its permission bits.
fn read(path: &Path) -> io::Result<(SecretBytes, u32)> {
    let file = File::open(path)?;
    let mode = mode(&file)?;
    let mut buffer = Zeroizing::new([0; FILE_BYTES_MAX + 1]);
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match (&file).read(free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let bytes = buffer.get(..filled).unwrap_or_default();
    Ok((join(&[bytes]), mode))
}

#[cfg(unix)]
fn mode(file: &File) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.mode() & 0o777)
}

/// Elsewhere the folder of the user guards the file.
#[cfg(not(unix))]
fn mode(_file: &File) -> io::Result<u32> {
    Ok(0o600)
}

impl KeyFileError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() == ErrorKind::AlreadyExists && path.exists() {
            true => Self::Exists { path },
            false => Self::Io { path, source },
        }
    }

    fn damaged(path: &Path, what: &'static str) -> Self {
        let path = path.to_owned();
        Self::Damaged { path, what }
    }

    fn exposed(path: &Path, mode: u32) -> Self {
        let path = path.to_owned();
        Self::Exposed { path, mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ones::{Ones, hex};

    // Computed by another implementation.
    const PLAIN_EXAMPLE: &str = concat!(
        "7365616c636173742d6b65790101000102030405060708090a0b0c0d0e0f1011",
        "12131415161718191a1b1c1d1e1f010101010101010101010101505a8b27dc4b",
        "7664e2e96061abbda307",
    );
    const SEALED_EXAMPLE: &str = concat!(
        "7365616c636173742d6b6579010200004c000000000200000001010101010101",
        "0101010101010101010101010101010101010101010144027c82fb46312d34e0",
        "772bb9b59da752f6ac55496b8309eef01e8af69bf10fd4e9be5b1b3b5577234d",
        "aedfb55a6b25",
    );

    #[test]
    fn the_files_are_those_of_the_specification() {
        let key = StoreKey::init_with(|bytes| {
            bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
        });
        let passphrase = SecretBytes::from(b"example".to_vec());
        assert_eq!(hex(encode_plain(&key, &mut Ones).expose()), PLAIN_EXAMPLE);
        let sealed = encode_sealed(&key, &passphrase, &mut Ones).unwrap();
        assert_eq!(hex(sealed.expose()), SEALED_EXAMPLE);
    }

    #[test]
    fn debug_shows_no_passphrase() {
        let passphrase = SecretBytes::from(b"example".to_vec());
        let shown = format!("{:?}", Protection::Passphrase(&passphrase));
        assert_eq!(shown, "Passphrase(SecretBytes(..))");
    }
}
