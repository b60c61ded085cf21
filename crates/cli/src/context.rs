//! Where the home is and how it is opened.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy as _, choose_native_strategy};
use sealcast::{BusUrl, Home, Name, SecretBytes, Stream, UserId};

use crate::args::GlobalArgs;
use crate::error::{CommandError, Kind};
use crate::ui::Ui;

/// Longest passphrase, in bytes.
const PASSPHRASE_LEN_MAX: usize = 4096;

/// What the global options come to.
#[derive(Debug)]
pub(crate) struct Context {
    home: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    /// That of the command line alone.
    named_passphrase_file: Option<PathBuf>,
}

impl Context {
    /// Reads the global options.
    pub(crate) fn new(args: &GlobalArgs) -> Self {
        Self {
            home: given(args.home.as_ref(), "SEALCAST_HOME"),
            passphrase_file: given(args.passphrase_file.as_ref(), "SEALCAST_PASSPHRASE_FILE"),
            named_passphrase_file: args.passphrase_file.clone(),
        }
    }

    /// The folder of the home.
    pub(crate) fn home_path(&self) -> Result<PathBuf, CommandError> {
        if let Some(home) = &self.home {
            return Ok(home.clone());
        }
        let platform = choose_native_strategy().map_err(|_| {
            CommandError::usage("this system names no folder for data")
                .with_hint("name one with `--home DIR`")
        })?;
        Ok(platform.data_dir().join("sealcast"))
    }

    /// Opens the home, asking for its passphrase where it has one.
    pub(crate) async fn open(&self) -> Result<Home, CommandError> {
        Ok(self.open_telling().await?.0)
    }

    /// Opens the home, and tells whether it has no passphrase.
    pub(crate) async fn open_telling(&self) -> Result<(Home, bool), CommandError> {
        let path = self.home_path()?;
        match Home::open(&path, None).await {
            Err(sealcast::Error::NeedsPassphrase) => {}
            opened => return Ok((opened?, true)),
        }
        let passphrase = self.passphrase()?;
        Ok((Home::open(&path, Some(&passphrase)).await?, false))
    }

    /// Opens the home and one of its streams, and tells what that brought to light: it is told once,
    /// whatever becomes of the command.
    pub(crate) async fn stream(
        &self,
        ui: &Ui,
        name: &Name,
    ) -> Result<(Home, Stream), CommandError> {
        let home = self.open().await?;
        let stream = home.stream(name).await?;
        ui.alarms(&stream);
        Ok((home, stream))
    }

    /// The passphrase of a home that there is.
    pub(crate) fn passphrase(&self) -> Result<SecretBytes, CommandError> {
        match &self.passphrase_file {
            Some(path) => from_file(path),
            None if has_terminal() => ask("Passphrase: "),
            None => Err(sealcast::Error::NeedsPassphrase.into()),
        }
    }

    /// The passphrase of a home to be made; `None` when there is no way to learn one.
    pub(crate) fn new_passphrase(&self) -> Result<Option<SecretBytes>, CommandError> {
        if let Some(path) = &self.passphrase_file {
            return from_file(path).map(Some);
        }
        if !has_terminal() {
            return Ok(None);
        }
        ask_twice("New passphrase: ").map(Some)
    }

    /// The passphrase file that was named on the command line, if one was.
    pub(crate) fn named_passphrase_file(&self) -> Option<&Path> {
        self.named_passphrase_file.as_deref()
    }

    /// Whether a passphrase file was named.
    pub(crate) fn has_passphrase_file(&self) -> bool {
        self.passphrase_file.is_some()
    }
}

/// A path from an option, or else from the environment. An empty one is none.
fn given(option: Option<&PathBuf>, variable: &str) -> Option<PathBuf> {
    let from_environment = || env::var_os(variable).map(PathBuf::from);
    let path = option.cloned().or_else(from_environment);
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Whether somebody is there who can be asked.
pub(crate) fn has_terminal() -> bool {
    io::stdin().is_terminal() || io::stderr().is_terminal()
}

/// Asks for a new passphrase, twice.
pub(crate) fn ask_twice(prompt: &str) -> Result<SecretBytes, CommandError> {
    let first = ask(prompt)?;
    let second = ask("The same again: ")?;
    match first.expose() == second.expose() {
        true => Ok(first),
        false => Err(CommandError::usage("the passphrases differ")),
    }
}

/// Asks for a passphrase on the terminal.
pub(crate) fn ask(prompt: &str) -> Result<SecretBytes, CommandError> {
    let typed = rpassword::prompt_password(prompt).map_err(|_| {
        CommandError::usage("cannot ask for the passphrase on this terminal")
            .with_hint("name a file that holds it with `--passphrase-file F`")
    })?;
    checked(typed.into_bytes())
}

/// Reads a passphrase; the newline that ends the file is not part of it.
pub(crate) fn from_file(path: &Path) -> Result<SecretBytes, CommandError> {
    let fault = |error: io::Error| CommandError::file(path, &error);
    let file = File::open(path).map_err(fault)?;
    let mut bytes = Vec::with_capacity(PASSPHRASE_LEN_MAX + 3);
    let bytes_max = PASSPHRASE_LEN_MAX as u64 + 3;
    file.take(bytes_max)
        .read_to_end(&mut bytes)
        .map_err(fault)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    checked(bytes)
}

fn checked(bytes: Vec<u8>) -> Result<SecretBytes, CommandError> {
    let passphrase = SecretBytes::from(bytes);
    match passphrase.len() {
        0 => Err(CommandError::usage("the passphrase is empty")),
        1..=PASSPHRASE_LEN_MAX => Ok(passphrase),
        _ => Err(CommandError::usage(format!(
            "the passphrase has more bytes than the most allowed: {PASSPHRASE_LEN_MAX}"
        ))),
    }
}

/// The bus of a `--bus` option; a relative path is one below the working folder.
pub(crate) fn bus_here(bus: Option<&BusUrl>) -> Result<Option<BusUrl>, CommandError> {
    let Some(bus) = bus else {
        return Ok(None);
    };
    let here = env::current_dir().map_err(|error| {
        CommandError::new(
            Kind::Internal,
            "internal",
            format!("no working folder: {error}"),
        )
    })?;
    let bus = bus.absolute(&here).map_err(sealcast::Error::BusUrl)?;
    Ok(Some(bus))
}

/// Finds who is meant by an id or the name of a contact.
pub(crate) fn user_of(home: &Home, text: &str) -> Result<UserId, CommandError> {
    if let Ok(user) = text.parse::<UserId>() {
        return Ok(user);
    }
    let unknown = || sealcast::Error::NoUser(text.to_owned());
    let name: Name = text.parse().map_err(|_| unknown())?;
    match home.contact(&name) {
        Ok(user) => Ok(user),
        Err(sealcast::Error::NoUser(_)) if text.starts_with("sc1") => Err(CommandError::usage(
            format!("this is not a whole user id: {text}"),
        )
        .with_hint("copy it again, from `sc1` to its end")),
        Err(error) => Err(error.into()),
    }
}

/// What people call a user: the name of a contact, or the short id.
#[derive(Debug)]
pub(crate) struct Names {
    own: UserId,
    contacts: Vec<(Name, UserId)>,
}

impl Names {
    /// As an agent tells them.
    pub(crate) fn told(own: UserId, contacts: Vec<(Name, UserId)>) -> Self {
        Self { own, contacts }
    }

    /// Reads the contacts of a home.
    pub(crate) fn of(home: &Home) -> Result<Self, CommandError> {
        Ok(Self {
            own: home.user(),
            contacts: home.contacts()?,
        })
    }

    /// The home's user.
    pub(crate) fn own(&self) -> UserId {
        self.own
    }

    /// What to call a user.
    pub(crate) fn call(&self, user: &UserId) -> String {
        let known = self.contacts.iter().find(|(_, id)| id == user);
        match known {
            Some((name, _)) => name.to_string(),
            None if *user == self.own => "you".to_owned(),
            None => crate::ui::short(&user.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Vec<u8>, u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        from_file(file.path())
            .map(|passphrase| passphrase.expose().to_vec())
            .map_err(|error| error.kind().exit_code())
    }

    #[test]
    fn the_newline_that_ends_a_passphrase_file_is_not_part_of_it() {
        for (content, passphrase) in [
            (&b"correct horse\n"[..], &b"correct horse"[..]),
            (b"correct horse\r\n", b"correct horse"),
            (b"correct horse", b"correct horse"),
            (b" two \n\n", b" two \n"),
            (b"\xff\xfe\n", b"\xff\xfe"),
        ] {
            assert_eq!(read(content).as_deref(), Ok(passphrase));
        }
    }

    #[test]
    fn an_empty_or_endless_passphrase_file_is_refused() {
        assert_eq!(read(b"\n"), Err(2));
        assert_eq!(read(&vec![b'x'; PASSPHRASE_LEN_MAX + 1]), Err(2));
        assert_eq!(
            read(&vec![b'x'; PASSPHRASE_LEN_MAX]).map(|p| p.len()),
            Ok(PASSPHRASE_LEN_MAX)
        );
        assert!(from_file(Path::new("/no/such/file")).is_err());
    }
}
