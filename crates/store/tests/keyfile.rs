//! Key files: what they guard, and what they refuse.
#![cfg(test)]

use std::fs;
use std::path::Path;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_crypto::{SecretBytes, StoreKey};
use sealcast_store::{KeyFile, KeyFileError, Protection};
use tempfile::TempDir;

/// Offset of the parameters in a file under a passphrase: memory, passes, lanes.
const PARAMETERS: usize = 14;

#[test]
fn a_plain_key_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("home").join("store.key");
    let key = KeyFile::generate(&path, Protection::Plain, &mut rng()).unwrap();
    assert_eq!(KeyFile::open(&path, None).unwrap().expose(), key.expose());
    let unused = passphrase(b"not needed");
    assert_eq!(
        KeyFile::open(&path, Some(&unused)).unwrap().expose(),
        key.expose()
    );
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "no draft is left"
    );
}

#[test]
fn a_key_under_a_passphrase_comes_back_with_it_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let right = passphrase(b"correct horse");
    let key = KeyFile::generate(&path, Protection::Passphrase(&right), &mut rng()).unwrap();
    assert_eq!(
        KeyFile::open(&path, Some(&right)).unwrap().expose(),
        key.expose()
    );
    for wrong in [&b"correct hors"[..], b"correct horse ", b""] {
        let error = KeyFile::open(&path, Some(&passphrase(wrong))).unwrap_err();
        assert!(
            matches!(error, KeyFileError::WrongPassphrase { .. }),
            "{error:?}"
        );
    }
    let error = KeyFile::open(&path, None).unwrap_err();
    assert!(
        matches!(error, KeyFileError::NeedsPassphrase { .. }),
        "{error:?}"
    );
}

/// fault 15
#[test]
fn a_key_under_a_passphrase_is_not_in_the_file_and_every_file_differs() {
    let folder = TempDir::new().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let key =
        StoreKey::init_with(|bytes| bytes.copy_from_slice(b"a key that one would recognise.."));
    let secret = passphrase(b"correct horse");
    for path in [&one, &other] {
        KeyFile::create(path, &key, Protection::Passphrase(&secret), &mut rng()).unwrap();
    }
    let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    for window in key.expose().windows(8).chain(secret.expose().windows(8)) {
        assert!(!one.windows(8).any(|bytes| bytes == window));
    }
    let salt = PARAMETERS + 12..PARAMETERS + 28;
    assert_ne!(one[salt.clone()], other[salt]);
}

/// fault 15
#[test]
fn an_empty_passphrase_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let protection = Protection::Passphrase(&passphrase(b""));
    let error = KeyFile::generate(&path, protection, &mut rng()).unwrap_err();
    assert!(matches!(error, KeyFileError::EmptyPassphrase), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    fs::write(&path, b"something else").unwrap();
    let error = KeyFile::generate(&path, Protection::Plain, &mut rng()).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), b"something else");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no draft is left"
    );
}

#[cfg(unix)]
#[test]
fn a_plain_key_that_others_may_read_or_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    KeyFile::generate(&path, Protection::Plain, &mut rng()).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    for open in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let error = KeyFile::open(&path, None).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Exposed { mode, .. } if mode == open),
            "{error:?}"
        );
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    KeyFile::open(&path, None).unwrap();
}

#[test]
fn a_flipped_byte_of_a_plain_key_is_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    KeyFile::generate(&path, Protection::Plain, &mut rng()).unwrap();
    let intact = fs::read(&path).unwrap();
    for at in 0..intact.len() {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = KeyFile::open(&path, None).unwrap_err();
        match at {
            // Version 0, and a kind that is not there.
            12 | 13 => assert!(!matches!(error, KeyFileError::Io { .. }), "{at}: {error:?}"),
            _ => assert!(
                matches!(error, KeyFileError::Damaged { .. }),
                "{at}: {error:?}"
            ),
        }
    }
}

#[test]
fn a_flipped_byte_of_a_sealed_key_is_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let secret = passphrase(b"correct horse");
    KeyFile::generate(&path, Protection::Passphrase(&secret), &mut rng()).unwrap();
    let intact = fs::read(&path).unwrap();
    let sealed = PARAMETERS + 28;
    // Every try costs an Argon2id: one byte of each field.
    for at in [
        0,
        11,
        12,
        13,
        17,
        21,
        25,
        PARAMETERS + 12,
        sealed,
        sealed + 12,
        intact.len() - 1,
    ] {
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = KeyFile::open(&path, Some(&secret)).unwrap_err();
        match at {
            0..PARAMETERS => assert!(matches!(error, KeyFileError::Damaged { .. }), "{at}"),
            25 => assert!(
                matches!(error, KeyFileError::Damaged { .. }),
                "no lanes: {error:?}"
            ),
            _ => assert!(
                matches!(error, KeyFileError::WrongPassphrase { .. }),
                "{at}: {error:?}"
            ),
        }
    }
}

#[test]
fn a_truncated_or_longer_file_is_damaged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let secret = passphrase(b"correct horse");
    for protection in [Protection::Plain, Protection::Passphrase(&secret)] {
        KeyFile::generate(&path, protection, &mut rng()).unwrap();
        let intact = fs::read(&path).unwrap();
        for len in (0..intact.len()).chain([intact.len() + 1, 1 << 20]) {
            let mut bytes = intact.clone();
            bytes.resize(len, 0);
            fs::write(&path, bytes).unwrap();
            let error = KeyFile::open(&path, Some(&secret)).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Damaged { .. }),
                "{len}: {error:?}"
            );
        }
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_asks_for_too_much_work_is_refused_before_any_is_done() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let secret = passphrase(b"correct horse");
    KeyFile::generate(&path, Protection::Passphrase(&secret), &mut rng()).unwrap();
    let intact = fs::read(&path).unwrap();
    let [memory, passes, lanes] = [0, 4, 8].map(|offset| PARAMETERS + offset);
    assert_eq!(intact[memory..memory + 12], parameters(19 * 1024, 2, 1));
    for parameters in [
        parameters(u32::MAX, 2, 1),
        parameters(256 * 1024 + 1, 2, 1),
        parameters(19 * 1024, 17, 1),
        parameters(19 * 1024, u32::MAX, 1),
        parameters(19 * 1024, 2, 5),
        parameters(0, 2, 1),
        parameters(19 * 1024, 0, 1),
        parameters(19 * 1024, 2, 0),
    ] {
        let mut bytes = intact.clone();
        bytes[memory..lanes + 4].copy_from_slice(&parameters);
        assert_eq!(bytes[passes..lanes], parameters[4..8]);
        fs::write(&path, bytes).unwrap();
        let error = KeyFile::open(&path, Some(&secret)).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Damaged { .. }),
            "{parameters:?}: {error:?}"
        );
    }
}

#[test]
fn a_newer_file_and_a_missing_one_are_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.key");
    let error = KeyFile::open(&path, None).unwrap_err();
    assert!(matches!(error, KeyFileError::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    KeyFile::generate(&path, Protection::Plain, &mut rng()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] = 2;
    fs::write(&path, bytes).unwrap();
    let error = KeyFile::open(&path, None).unwrap_err();
    assert!(
        matches!(
            error,
            KeyFileError::TooNew {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_io_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [
        file.join("store.key"),
        Path::new("/dev/null/store.key").to_owned(),
    ] {
        let error = KeyFile::generate(path, Protection::Plain, &mut rng()).unwrap_err();
        assert!(matches!(error, KeyFileError::Io { .. }), "{error:?}");
    }
}

fn parameters(memory_kib: u32, passes: u32, lanes: u32) -> [u8; 12] {
    let numbers = [memory_kib, passes, lanes].map(u32::to_be_bytes);
    numbers.as_flattened().try_into().unwrap()
}

fn passphrase(bytes: &[u8]) -> SecretBytes {
    SecretBytes::from(bytes.to_vec())
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
