//! Files, and what another program sends.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use sealcast::{BusUrl, ConfigError, Identities, Place, Recipient, SealedFile, SecretBytes, Sight};
use sealcast_agent::{Config, DeliveryLine, StreamLine, base64_of};
use sealcast_engine::imported;
use sealcast_protocol::{DeviceId, Export, UserId};
use sealcast_store::{KeyFile, KeyFileError};
use tempfile::NamedTempFile;

use crate::signed::refused;

/// A file of keys or a backup, decrypted.
pub(crate) fn export(bytes: &[u8]) {
    let export = match Export::decode(bytes) {
        Ok(export) => export,
        Err(error) => return refused(error),
    };
    let again = export.encode();
    assert!(
        again.is_ok_and(|again| again.expose() == bytes),
        "canonical"
    );
    if let Export::Keys(keys) = &export {
        let covers = keys.sessions.iter().map(|of| of.covers.len());
        let are_sound = keys.sessions.iter().all(|of| of.keys().is_ok());
        match imported(keys, (UserId([1; 32]), DeviceId([2; 16]))) {
            Ok(puts) => assert_eq!(puts.len(), covers.sum::<usize>()),
            Err(_) => assert!(!are_sound, "every root is its session's"),
        }
    }
}

/// Whatever somebody asks about; and what age makes.
pub(crate) fn inspect(bytes: &[u8]) {
    let seen = sealcast::inspect(bytes);
    assert_eq!(matches!(seen, Sight::Nothing), bytes.is_empty());
    if let Ok(file) = SealedFile::new(bytes.to_vec()) {
        assert_eq!(file.as_bytes(), bytes);
        let needs = file.needs().ok();
        let is_same = matches!(
            seen,
            Sight::AgeFile { is_armored, needs: of }
                if (is_armored, of) == (file.is_armored(), needs)
        );
        assert!(is_same, "{seen:?}");
    }
    let identities = Identities::parse(&SecretBytes::from(bytes.to_vec()));
    assert!(identities.is_err() || bytes.len() > 70, "a key is longer");
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(recipient) = text.parse::<Recipient>()
    {
        assert!(recipient.to_string().eq_ignore_ascii_case(text.trim()));
    }
}

/// The file that holds the key of a store, read without a passphrase.
pub(crate) fn key_file(bytes: &[u8]) {
    const PLAIN_LEN: usize = 12 + 2 + 32 + 12 + 16;
    let Some(file) = written(bytes) else {
        return;
    };
    match KeyFile::open(file.path(), None) {
        Ok(key) => {
            assert_eq!(bytes.len(), PLAIN_LEN);
            assert_eq!(bytes.get(14..46), Some(key.expose().as_slice()));
        }
        Err(KeyFileError::TooNew { found, known, .. }) => {
            assert!(found > known && bytes.get(12) == Some(&found));
        }
        Err(KeyFileError::NeedsPassphrase { .. }) => {
            assert_eq!(bytes.get(12..14), Some(&[1, 2][..]));
        }
        Err(error) => assert!(matches!(error, KeyFileError::Damaged { .. }), "{error}"),
    }
}

/// A config file.
pub(crate) fn config(bytes: &[u8]) {
    let Some(file) = written(bytes) else {
        return;
    };
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    match Config::load(file.path(), Path::new("/home/kim")) {
        Ok(config) => {
            let archive = config.agent.archive;
            let is_relative =
                |of: &BusUrl| matches!(of.place(), Place::File(path) if path.is_relative());
            assert!(!archive.as_ref().is_some_and(is_relative));
            assert!(config.agent.listen.is_none_or(|of| of.ip().is_loopback()));
            assert!(config.asking.max_key_requests_per_second > 0);
            assert!(!config.asking.key_request_timeout.is_zero());
        }
        Err(ConfigError::Wrong { line, .. }) => assert!((1..=lines + 1).contains(&line)),
        Err(ConfigError::Unreadable { .. }) => assert!(std::str::from_utf8(bytes).is_err()),
    }
}

/// Where there is no room for the file, nothing is learned.
fn written(bytes: &[u8]) -> Option<NamedTempFile> {
    let memory = Path::new("/dev/shm");
    let file = match fs::exists(memory) {
        Ok(true) => NamedTempFile::new_in(memory),
        Ok(false) | Err(_) => NamedTempFile::new(),
    };
    let mut file = file.ok()?;
    file.write_all(bytes).ok()?;
    Some(file)
}

/// A line that the agent sends to whoever follows a stream.
pub(crate) fn agent_line(bytes: &[u8]) {
    let Ok(StreamLine::Delivery(delivery)) = StreamLine::read(bytes) else {
        return;
    };
    let base64 = base64_of(&delivery);
    let line = DeliveryLine::of(&delivery, base64.as_ref());
    let Ok(line) = serde_json::to_vec(&line) else {
        return assert!(delivery.payload.is_none(), "a line can be written");
    };
    let again = StreamLine::read(&line);
    let is_same = matches!(&again, Ok(StreamLine::Delivery(again)) if *again == delivery);
    assert!(is_same, "{delivery:?} comes back as {again:?}");
}
