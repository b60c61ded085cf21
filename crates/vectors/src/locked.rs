//! Key files. They are read where they lie, so there are none without a file system of modes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use sealcast_crypto::SecretBytes;
use sealcast_store::KeyFile;

use crate::case::{Given, Lines, Outcome, named};

const KEY_FILE: &[(&str, &str)] = &[
    ("Damaged", "damaged"),
    ("TooNew", "newer version"),
    ("WrongPassphrase", "wrong passphrase"),
];

pub(crate) fn key_file(given: &mut Given) -> Outcome {
    let bytes = given.bytes("file")?;
    let passphrase = given.maybe_text("passphrase");
    let passphrase = passphrase.map(|text| SecretBytes::from(text.into_bytes()));
    let fault = |error: io::Error| error.to_string();
    let home = tempfile::tempdir().map_err(fault)?;
    let path = home.path().join("store.key");
    fs::write(&path, bytes).map_err(fault)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(fault)?;
    let key = KeyFile::open(&path, passphrase.as_ref());
    let key = key.map_err(|error| named(KEY_FILE)(&error))?;
    Lines::default().hex("store-key", key.expose()).done()
}
