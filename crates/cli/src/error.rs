//! What a command ends with: an exit code, a message, its causes and a hint.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;
use std::path::Path;

use sealcast::{BusError, BusUrlError, ConfigError, StoreError};
use serde::Serialize;

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it.
    Done,
    /// All of it, but messages stayed sealed or were rejected.
    NotAllOpened,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// The exit code.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotAllOpened => 3,
            Self::Refused => 4,
        }
    }
}

/// What kind of thing went wrong; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whoever read the output has gone; nothing to say.
    OutputClosed,
    /// A fault of this program or the system below.
    Internal,
    /// The command was not given right.
    Usage,
    /// The access log, or the system, does not allow it.
    NotAllowed,
    /// The bus cannot be used.
    Bus,
    /// The passphrase is wrong, or the store cannot be used.
    Store,
    /// There is no such stream, user, grant, home or file.
    Missing,
}

impl Kind {
    /// The exit code.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotAllowed => 4,
            Self::Bus => 5,
            Self::Store => 6,
            Self::Missing => 7,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    code: Cow<'static, str>,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// How an error is printed with `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorLine {
    code: Cow<'static, str>,
    message: String,
    hint: Option<String>,
}

impl CommandError {
    /// Makes an error; `code` is its stable name.
    pub(crate) fn new(
        kind: Kind,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            code: code.into(),
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// The command was not given right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", message)
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A config file that was named cannot be used; `hint` says where it is told what can stand there.
    pub(crate) fn config(error: ConfigError, hint: &'static str) -> Self {
        match error {
            ConfigError::Unreadable { path, source } => Self::file(&path, &source),
            error @ ConfigError::Wrong { .. } => {
                Self::new(Kind::Usage, "config.wrong", error.to_string()).with_hint(hint)
            }
        }
    }

    /// A file that was named cannot be read.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let is = |kind: io::ErrorKind| error.kind() == kind;
        let (kind, code, says) = if is(io::ErrorKind::NotFound) {
            (Kind::Missing, "file.missing", "no such file")
        } else if is(io::ErrorKind::PermissionDenied) {
            (
                Kind::NotAllowed,
                "file.not-allowed",
                "the file may not be read",
            )
        } else if is(io::ErrorKind::IsADirectory) {
            (Kind::Usage, "usage", "this is a folder, not a file")
        } else if is(io::ErrorKind::InvalidInput) {
            let says = "there is a device, or the like, and not a file";
            (Kind::Usage, "usage", says)
        } else {
            (Kind::Internal, "file.failed", "the file cannot be read")
        };
        let mut made = Self::new(kind, code, format!("{says}: {}", path.display()));
        if kind == Kind::Internal {
            made.causes.push(error.to_string());
        }
        made
    }

    /// A file that was named cannot be written.
    pub(crate) fn unwritten(path: &Path, error: &io::Error) -> Self {
        let is = |kind: io::ErrorKind| error.kind() == kind;
        let (kind, code, says) = if is(io::ErrorKind::NotFound) || is(io::ErrorKind::NotADirectory)
        {
            (Kind::Missing, "file.missing", "no such folder to write in")
        } else if is(io::ErrorKind::PermissionDenied) || is(io::ErrorKind::ReadOnlyFilesystem) {
            let says = "the file may not be written";
            (Kind::NotAllowed, "file.not-allowed", says)
        } else if is(io::ErrorKind::IsADirectory) {
            (Kind::Usage, "usage", "this is a folder, not a file")
        } else if is(io::ErrorKind::InvalidInput) {
            let says = "there is a device, or the like, and not a file";
            (Kind::Usage, "usage", says)
        } else {
            let says = "the file cannot be written";
            (Kind::Internal, "file.not-written", says)
        };
        let mut made = Self::new(kind, code, format!("{says}: {}", path.display()));
        if kind == Kind::Internal {
            made.causes.push(error.to_string());
        }
        match is(io::ErrorKind::StorageFull) || is(io::ErrorKind::QuotaExceeded) {
            true => made.with_hint("make room on that disk, then try again"),
            false => made,
        }
    }

    /// Standard input cannot be read.
    pub(crate) fn input(error: &io::Error) -> Self {
        let mut made = Self::new(Kind::Internal, "input.failed", "cannot read standard input");
        made.causes.push(error.to_string());
        made
    }

    /// Standard output cannot be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        let kind = match error.kind() == io::ErrorKind::BrokenPipe {
            true => Kind::OutputClosed,
            false => Kind::Internal,
        };
        let mut made = Self::new(kind, "output.failed", "cannot write standard output");
        made.causes.push(error.to_string());
        made
    }

    /// An error of the library of which code and text are left.
    pub(crate) fn told(code: String, message: String) -> Self {
        let hint = hint_of(&code).map(str::to_owned);
        Self {
            hint,
            ..Self::new(kind_of(&code), code, message)
        }
    }

    /// Says what brought it about.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    /// What kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What went wrong, on one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What brought it about, the nearest first.
    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error as one line of JSON has it.
    pub(crate) fn line(&self) -> ErrorLine {
        let mut message = self.message.clone();
        for cause in &self.causes {
            message.push_str(": ");
            message.push_str(cause);
        }
        ErrorLine {
            code: self.code.clone(),
            message,
            hint: self.hint.clone(),
        }
    }
}

impl From<sealcast::Error> for CommandError {
    fn from(error: sealcast::Error) -> Self {
        let code = error.code();
        let mut made = Self::new(kind_of(code), code, error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            let last = made.causes.last().unwrap_or(&made.message);
            if !last.ends_with(&text) && !text.ends_with(last) {
                made.causes.push(text);
            }
            cause = error.source();
        }
        if let sealcast::Error::Bus(BusError::TooLarge { .. }) = error {
            made.kind = Kind::Usage;
            made.code = "message.too-large".into();
        }
        let hint = hint_of_cause(&error).or_else(|| hint_of(&made.code));
        made.hint = hint.map(str::to_owned);
        made
    }
}

/// What to do about a damaged bus.
pub(crate) const BUS_DAMAGED: &str = "put a backup of the bus in its place, or begin a new one";

/// What to do where the cause says it better than the code.
fn hint_of_cause(error: &sealcast::Error) -> Option<&'static str> {
    use sealcast::Error;
    let is_full = matches!(
        error,
        Error::Bus(BusError::Full { .. }) | Error::Store(StoreError::Full { .. })
    );
    let is_busy = matches!(
        error,
        Error::Bus(BusError::Busy { .. }) | Error::Store(StoreError::Busy { .. })
    );
    let is_too_new = matches!(
        error,
        Error::Bus(BusError::TooNew { .. }) | Error::Store(StoreError::TooNew { .. })
    );
    if is_full {
        Some("make room on that disk, then try again")
    } else if is_busy {
        Some("try again when the other process has ended")
    } else if is_too_new {
        Some("update this program")
    } else if matches!(error, Error::Bus(BusError::Damaged { .. })) {
        Some(BUS_DAMAGED)
    } else if matches!(error, Error::BusUrl(BusUrlError::Credentials)) {
        Some(
            "leave them out, a URL is handed on: `servers.toml` in the home has them, or the \
             environment (docs/reference/servers.md)",
        )
    } else {
        None
    }
}

/// Which kind an error of the library is, by its stable code.
fn kind_of(code: &str) -> Kind {
    match code {
        "home.missing" | "stream.unknown" | "user.unknown" | "grant.unknown" => Kind::Missing,
        "stream.not-joined" | "keys.none" | "request.unknown" => Kind::Missing,
        "file.needs-passphrase" | "file.needs-identity" | "file.needs-lock" => Kind::Usage,
        "file.passphrase-text" | "file.unknown" | "file.other-kind" | "file.exists" => Kind::Usage,
        "file.not-replaced" => Kind::Usage,
        "keys.too-many" | "file.too-many-recipients" => Kind::Usage,
        "file.wrong-passphrase" | "file.wrong-identity" | "file.damaged" => Kind::Store,
        "file.too-new" | "file.not-ours" | "keys.wrong-root" => Kind::Store,
        "home.exists" | "home.needs-passphrase" | "name.taken" => Kind::Usage,
        "bus.url" | "servers.wrong" | "bus.same" | "ticket.unusable" | "archive.is-bus" => {
            Kind::Usage
        }
        "home.not-added" | "device.own" => Kind::Usage,
        "bus.missing" | "stream.elsewhere" => Kind::Missing,
        "device.unknown" | "pairing.no-request" | "pairing.no-consent" => Kind::Missing,
        "pairing.false-request" | "pairing.other-user" => Kind::NotAllowed,
        "device.revoked" | "device.no-root" | "device.list-forked" | "device.list" => {
            Kind::NotAllowed
        }
        "message.too-large" | "message.topic" | "backfill.time" => Kind::Usage,
        "interval.empty" | "interval.admin" | "key-nodes.impossible" | "key-nodes.lanes-close" => {
            Kind::Usage
        }
        "home.wrong-passphrase" | "home.key-file" | "home.half-made" | "home.folder" => Kind::Store,
        "store.failed" | "key-nodes.audit" => Kind::Store,
        "bus.failed" | "bus.unusable" | "bus.rolled-back" | "access.incomplete" => Kind::Bus,
        "access.not-allowed" | "access.forked" | "stream.closed" | "clock.behind" => {
            Kind::NotAllowed
        }
        _ => Kind::Internal,
    }
}

/// What to do about an error of the library.
fn hint_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "home.missing" => "make one with `sealcast init`, or name its folder with `--home DIR`",
        "home.half-made" => {
            "name another folder with `--home DIR`, or take `store.key` and `store.db` out of this one: \
             they open nothing"
        }
        "home.exists" => "name another folder with `--home DIR`, or use the home that is there",
        "home.needs-passphrase" => "name a file that holds it with `--passphrase-file F`",
        "home.wrong-passphrase" => {
            "check the passphrase, and which file `--passphrase-file` or \
             `SEALCAST_PASSPHRASE_FILE` names"
        }
        "name.taken" => "choose another name; `sealcast join` takes one with `--as NAME`",
        "stream.unknown" => {
            "`sealcast stream list` shows the names; `sealcast join TICKET` adds a stream"
        }
        "user.unknown" => "`sealcast contact list` shows the names; a user id starts with `sc1`",
        "grant.unknown" => "`sealcast who STREAM --json` shows the ids of grants",
        "access.forked" => {
            "use one copy of this home and remove the others; what it granted before the fork \
             stands, and an admin or a new stream can go on"
        }
        "access.not-allowed" => "`sealcast who STREAM` shows who may do what",
        "clock.behind" => "set the clock of this machine; `sealcast doctor` says more",
        "message.too-large" => "split it; the lines of a text can go as records: `sealcast pub -l`",
        "message.topic" => {
            "`sealcast stream list --json` shows the bus of the stream, with its topics"
        }
        "backfill.time" => {
            "each line is a time, a tab and the payload; times ascend, and all are past"
        }
        "interval.empty" => "`--until` must be later than `--from`",
        "archive.is-bus" => "name another folder with `--archive`, or in the config file",
        "stream.not-joined" => "join it with its ticket first: `sealcast join TICKET`",
        "request.unknown" => {
            "`sealcast requests list` shows those that wait; they do not outlive the agent"
        }
        "keys.none" => "`sealcast who STREAM` shows who may read when",
        "keys.too-many" => "export shorter intervals, with `--from` and `--until`",
        "keys.wrong-root" => "do not trust whoever gave you this file; nothing was imported",
        "file.needs-passphrase" => "name a file that holds it with `--file-passphrase F`",
        "file.needs-identity" => "name the file that holds it with `--identity F`",
        "file.needs-lock" => {
            "name a file with a passphrase, `--file-passphrase F`, or an age key, \
             `--recipient age1...`"
        }
        "file.too-many-recipients" => "make several files, each for some of the keys",
        "file.passphrase-text" => "choose another passphrase for the file",
        "file.unknown" | "file.not-ours" => "`sealcast inspect FILE` says what it is",
        "file.other-kind" => {
            "`sealcast keys import` takes keys, and `sealcast restore` makes a home of a backup"
        }
        "file.exists" => "name another file, or replace this one with `--overwrite`",
        "file.not-replaced" => "name another file",
        "file.wrong-passphrase" => "check which file `--file-passphrase` names",
        "file.wrong-identity" => "check which file `--identity` names",
        "file.damaged" => "use another copy of the file",
        "file.too-new" => "update this program",
        "key-nodes.impossible" => "`sealcast stream keynodes status STREAM` shows the key nodes",
        "key-nodes.lanes-close" => {
            "wait until they have come by, as `sealcast stream keynodes status STREAM` shows, or say `--anyway`"
        }
        "key-nodes.audit" => "find out who has access to this home, and set up a new key node",
        "interval.admin" => {
            "leave out `--from` and `--until`; `sealcast revoke STREAM USER` ends it one day"
        }
        _ => return hint_of_device(code).or_else(|| hint_of_bus(code)),
    })
}

/// What to do about an error that has to do with the user's devices.
fn hint_of_device(code: &str) -> Option<&'static str> {
    Some(match code {
        "home.not-added" => "go on with `sealcast device join`",
        "pairing.no-request" => {
            "see that `sealcast device join` runs on the new device, and that `--bus` is the same there"
        }
        "pairing.no-consent" => {
            "see that `sealcast device join` runs on the new device, then add it again"
        }
        "pairing.false-request" => {
            "somebody who writes to this bus is in between: find out who, and begin again"
        }
        "pairing.other-user" => {
            "somebody else knew its code; begin again on the new device, with your id: \
             `sealcast device join sc1...`"
        }
        "device.unknown" => "`sealcast device list` shows your devices",
        "device.revoked" => "begin again on it, in another folder, with `sealcast device join`",
        "device.own" | "device.no-root" => "run it on your first device, which holds the root key",
        "device.list-forked" => "use one copy of this home and remove the others",
        "device.list" => "revoke devices that you do not use",
        _ => return None,
    })
}

/// What to do about an error that has to do with a bus.
fn hint_of_bus(code: &str) -> Option<&'static str> {
    Some(match code {
        "bus.url" => {
            "a bus is `file:` and a folder, such as `file:/srv/bus`, or a server, such as \
             `nats://broker.example/plant` or `postgres://db.example/fleet/plant`"
        }
        "bus.failed" => {
            "check that the bus is there and may be written; `sealcast stream list` shows where \
             it is"
        }
        "bus.rolled-back" | "access.incomplete" => {
            "the bus withholds what it showed before, or was restored from an old copy: ask who \
             runs it"
        }
        "servers.wrong" => "docs/reference/servers.md lists what can be said, and where",
        "bus.missing" => {
            "see that it is the right place, and make it with `sealcast bus setup URL`"
        }
        "bus.unusable" => "change what is in the way, or name another place",
        "bus.same" => "name the bus that has the streams, and then another one",
        "stream.elsewhere" => "`sealcast stream list` shows on which bus it is",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_library_has_the_exit_code_of_its_kind() {
        use sealcast::Error;
        for (error, exit_code) in [
            (Error::NoHome("h".into()), 7),
            (Error::HomeExists("h".into()), 2),
            (Error::NeedsPassphrase, 2),
            (Error::WrongPassphrase, 6),
            (Error::NoStream("s".into()), 7),
            (Error::NoUser("u".into()), 7),
            (Error::NoGrant("g".into()), 7),
            (Error::NameTaken("n".into()), 2),
            (Error::NotAllowed("grant"), 4),
            (Error::Closed, 4),
            (Error::LogIncomplete(2), 5),
            (Error::ClockBehind { behind_ms: 1 }, 4),
            (Error::TooLarge { size: 2, limit: 1 }, 2),
            (Error::BackfillTime, 2),
            (Error::EmptyInterval, 2),
            (Error::KeyNodes("there are none"), 2),
            (Error::LanesClose(Vec::new()), 2),
            (Error::Audit(sealcast::AuditFault::Broken { seq: 1 }), 6),
            (Error::AdminInterval, 2),
            (Error::RolledBack("device list"), 5),
            (Error::Forked, 4),
            (Error::FileWrongPassphrase, 6),
            (Error::FileWrongIdentity, 6),
            (Error::FileNeedsPassphrase, 2),
            (Error::FileNeedsIdentity, 2),
            (Error::FileNeedsLock, 2),
            (Error::FileTooManyRecipients(512), 2),
            (Error::FilePassphraseText, 2),
            (Error::FileDamaged("it is cut off"), 6),
            (Error::FileUnknown, 2),
            (Error::FileTooNew("age"), 6),
            (Error::FileNotOurs, 6),
            (Error::FileOtherKind("keys"), 2),
            (Error::FileExists("f".into()), 2),
            (Error::NoKeys, 7),
            (Error::ExportTooLarge, 2),
            (Error::ArchiveIsBus, 2),
            (Error::NotAdded("h".into()), 2),
            (Error::NoApplicant, 7),
            (Error::NoConsent, 7),
            (Error::FalseApplicant, 4),
            (Error::OtherConsent, 4),
            (Error::NoDevice("d".into()), 7),
            (Error::OwnDevice, 2),
            (Error::DeviceRevoked(sealcast::DeviceId([1; 16])), 4),
            (Error::NoRoot, 4),
            (Error::ListForked, 4),
            (Error::Internal("no"), 1),
        ] {
            check_code(error, exit_code);
        }
    }

    #[test]
    fn every_error_of_copying_has_the_exit_code_of_its_kind() {
        use sealcast::Error;
        let (place, why) = ("u".into(), "w".into());
        for (error, exit_code) in [
            (Error::OneBus("u".into()), 2),
            (Error::NoBus("u".into()), 7),
            (Error::BusUnusable { place, why }, 5),
            (Error::StreamElsewhere("s".parse().unwrap()), 7),
        ] {
            check_code(error, exit_code);
        }
    }

    fn check_code(error: sealcast::Error, exit_code: u8) {
        let code = error.code();
        let made = CommandError::from(error);
        assert_eq!(made.kind().exit_code(), exit_code, "{code}");
        let page = include_str!("../../../docs/reference/command-line.md");
        let row = page
            .lines()
            .find(|line| line.contains(&format!("`{code}`")));
        assert!(
            row.is_some_and(|row| row.starts_with(&format!("| {exit_code} |"))),
            "{code}"
        );
        assert_eq!(
            made.hint().is_some(),
            exit_code != 1 && code != "stream.closed",
            "{code}"
        );
    }

    #[test]
    fn a_cause_that_the_message_names_already_is_not_told_twice() {
        let error = sealcast::Error::BusUrl(BusUrlError::NoScheme);
        let made = CommandError::from(error);
        assert!(made.causes().is_empty());
        assert_eq!(made.kind().exit_code(), 2);
    }

    #[test]
    fn a_cause_hint_says_better_what_to_do_and_causes_are_not_repeated() {
        let damaged = BusError::Damaged {
            place: "bus/bus.db".to_owned(),
            cause: "file is not a database".into(),
        };
        let made = CommandError::from(sealcast::Error::Bus(damaged));
        assert_eq!(made.kind().exit_code(), 5);
        assert!(made.hint().is_some_and(|hint| hint.contains("backup")));
        assert_eq!(
            made.causes(),
            ["bus is damaged at bus/bus.db", "file is not a database"]
        );
        let large = sealcast::Error::Bus(BusError::TooLarge { size: 2, limit: 1 });
        assert_eq!(CommandError::from(large).kind().exit_code(), 2);
    }

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CommandError::output(&closed).kind().exit_code(), 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(CommandError::output(&full).kind().exit_code(), 1);
    }
}
