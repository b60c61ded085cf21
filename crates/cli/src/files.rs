//! Files in the age format: what opens them, and how they are read and written.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use sealcast::{FileKey, FileLock, FileNeeds, Identities, Recipient, SealedFile, SecretBytes};

use crate::context::{Context, ask, ask_twice, from_file, has_terminal};
use crate::error::CommandError;
use crate::ui::Ui;

/// Longest file of age keys, in bytes.
const IDENTITY_LEN_MAX: usize = 1 << 20;

/// What will open a file that is made, and how it is written.
#[derive(Args, Debug)]
pub(crate) struct LockArgs {
    /// File with a passphrase for FILE; asked for where not given
    #[arg(long, value_name = "F", conflicts_with = "recipient")]
    file_passphrase: Option<PathBuf>,
    /// Encrypt FILE to this age key, `age1...`; may be given several times
    #[arg(long, value_name = "KEY")]
    recipient: Vec<Recipient>,
    /// Write FILE as text, to be copied and pasted
    #[arg(long)]
    armor: bool,
    /// Replace FILE if there is one
    #[arg(long)]
    overwrite: bool,
}

/// What opens a file that there is.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// File with the passphrase of FILE; asked for where not given
    #[arg(long, value_name = "F", conflicts_with = "identity")]
    file_passphrase: Option<PathBuf>,
    /// File with the age key that opens FILE, as `age-keygen` makes it
    #[arg(long, value_name = "F")]
    identity: Option<PathBuf>,
}

impl LockArgs {
    /// Whether the file is written as text.
    pub(crate) fn is_armored(&self) -> bool {
        self.armor
    }

    /// Refuses a place where nothing can be written, before any work is done.
    pub(crate) fn check(&self, ui: &Ui, path: &Path) -> Result<(), CommandError> {
        if is_stream(path) {
            if ui.is_json() {
                return Err(CommandError::usage(
                    "the file and the JSON cannot both go to standard output",
                )
                .with_hint("name a file instead of `-`"));
            }
            if io::stdout().is_terminal() && !self.armor {
                return Err(CommandError::usage(
                    "the file is not text, and standard output is a terminal",
                )
                .with_hint("write text with `--armor`, or name a file"));
            }
            return Ok(());
        }
        match !self.overwrite && path.symlink_metadata().is_ok() {
            true => Err(sealcast::Error::FileExists(path.into()).into()),
            false => Ok(()),
        }
    }

    /// What will open the file. `is_home_open` says that the home needed no passphrase, so that a
    /// passphrase file that was named can only be meant for this one.
    pub(crate) fn lock(
        &self,
        ui: &Ui,
        context: &Context,
        is_home_open: bool,
    ) -> Result<FileLock, CommandError> {
        if !self.recipient.is_empty() {
            return Ok(FileLock::recipients(self.recipient.clone()));
        }
        let passphrase = match &self.file_passphrase {
            Some(path) => Some(from_file(path)?),
            None => meant_for_file(ui, context, is_home_open)?,
        };
        match passphrase {
            Some(passphrase) => Ok(FileLock::passphrase(passphrase)),
            None if has_terminal() => {
                ask_twice("New passphrase for the file: ").map(FileLock::passphrase)
            }
            None => Err(
                CommandError::from(sealcast::Error::FileNeedsLock).with_hint(
                    "name a file with a passphrase for it, `--file-passphrase F`, or an age key, \
                     `--recipient age1...`",
                ),
            ),
        }
    }

    /// Writes the file, whole or not at all, or to standard output.
    pub(crate) async fn write(
        &self,
        ui: &Ui,
        file: &SealedFile,
        path: &Path,
    ) -> Result<(), CommandError> {
        if is_stream(path) {
            ui.bytes(file.as_bytes())?;
            return ui.flush();
        }
        match file.write(path, self.overwrite).await {
            Err(sealcast::Error::FileNotWritten { path, source }) => {
                Err(CommandError::unwritten(&path, &source))
            }
            written => Ok(written?),
        }
    }
}

impl KeyArgs {
    /// What opens the file.
    pub(crate) fn key(
        &self,
        ui: &Ui,
        context: &Context,
        file: &SealedFile,
        is_home_open: bool,
    ) -> Result<FileKey, CommandError> {
        if let Some(path) = &self.identity {
            return identities(path).map(FileKey::Identities);
        }
        if let Some(path) = &self.file_passphrase {
            return from_file(path).map(FileKey::Passphrase);
        }
        if file.needs()? == FileNeeds::Identity {
            return Err(sealcast::Error::FileNeedsIdentity.into());
        }
        match meant_for_file(ui, context, is_home_open)? {
            Some(passphrase) => Ok(FileKey::Passphrase(passphrase)),
            None if has_terminal() => ask("Passphrase of the file: ").map(FileKey::Passphrase),
            None => Err(sealcast::Error::FileNeedsPassphrase.into()),
        }
    }
}

/// `--passphrase-file` is the home's. Where the home has none, and the option stands on the command
/// line, it can only be meant for the file.
fn meant_for_file(
    ui: &Ui,
    context: &Context,
    is_home_open: bool,
) -> Result<Option<SecretBytes>, CommandError> {
    match context.named_passphrase_file().filter(|_| is_home_open) {
        None => Ok(None),
        Some(path) => {
            ui.talk(format!(
                "The home has no passphrase: that in `{}` is taken for the file.",
                path.display()
            ));
            from_file(path).map(Some)
        }
    }
}

fn identities(path: &Path) -> Result<Identities, CommandError> {
    let bytes = bounded(path, IDENTITY_LEN_MAX)?;
    Identities::parse(&bytes).map_err(|error| {
        CommandError::usage(format!("{error}: {}", path.display()))
            .with_hint("`age-keygen -o F` makes such a file, and prints the `age1...` half")
    })
}

/// Reads a small file that holds secrets into room that is taken once.
fn bounded(path: &Path, len_max: usize) -> Result<SecretBytes, CommandError> {
    let fault = |error: io::Error| CommandError::file(path, &error);
    let file = File::open(path).map_err(fault)?;
    let mut bytes = Vec::with_capacity(len_max + 1);
    let read = file.take(len_max as u64 + 1).read_to_end(&mut bytes);
    let bytes = SecretBytes::from(bytes);
    read.map_err(fault)?;
    match bytes.len() > len_max {
        true => Err(CommandError::usage(format!(
            "the file has more bytes than the most allowed, {len_max}: {}",
            path.display()
        ))),
        false => Ok(bytes),
    }
}

/// Whether a path stands for standard input or output.
pub(crate) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads the beginning of a file, or of standard input for `-`.
pub(crate) fn head(path: &Path, len_max: u64) -> Result<Vec<u8>, CommandError> {
    let fault = |error: io::Error| match is_stream(path) {
        true => CommandError::input(&error),
        false => CommandError::file(path, &error),
    };
    let source: Box<dyn Read> = match is_stream(path) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(fault)?),
    };
    let mut bytes = Vec::new();
    let read = source.take(len_max).read_to_end(&mut bytes);
    read.map_err(fault)?;
    Ok(bytes)
}

/// Reads a file in the age format.
pub(crate) fn sealed(path: &Path) -> Result<SealedFile, CommandError> {
    let bytes = head(path, SealedFile::LEN_MAX + 1)?;
    match bytes.len() as u64 > SealedFile::LEN_MAX {
        true => Err(CommandError::usage(format!(
            "the file is longer than any that this program writes: {}",
            path.display()
        ))),
        false => Ok(SealedFile::new(bytes)?),
    }
}
