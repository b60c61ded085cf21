use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealcast::{Bound, Interval, Name, Position};
use serde::Serialize;

use crate::commands::grant::until_json;
use crate::context::Context;
use crate::error::CommandError;
use crate::files::{KeyArgs, LockArgs, is_stream, sealed};
use crate::shell::quoted;
use crate::time::{TimeArg, bounds, from_text, rfc3339, until_text};
use crate::ui::{Ui, count};

/// Hand keys over in a file, or take them in
///
/// For keys that are agreed on beforehand, or must not travel on the bus: the owner makes the
/// stream with `--share manual`, starts a session with `sealcast rekey`, exports its keys before
/// the first message, and hands the file over.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keys export boiler -o boiler.keys --recipient age1...
  sealcast keys import boiler.keys --identity key.txt")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    Export(ExportArgs),
    Import(ImportArgs),
}

/// Write the keys of a stream, or of an interval of it, to a file
///
/// Whoever opens the file reads exactly that interval of the sessions that there are, as far as this
/// home holds it: keep it as you would the messages. Sessions that are started later are not in it.
/// The file is in the age format, under a passphrase or to the keys of its readers.
///
/// `--passphrase-file` is the passphrase of the home. Where the home has none, it is taken for
/// the file.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast keys export boiler -o boiler.keys
  sealcast keys export boiler -o march.keys --from 2026-03-01 --until 2026-04-01
  sealcast keys export boiler -o boiler.keys --recipient age1... --recipient age1...
  sealcast keys export boiler -o - --armor --file-passphrase secret.txt")]
struct ExportArgs {
    /// The stream
    stream: Name,
    /// File to write; `-` for standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// From when [default: start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArg>,
    /// Until when, not included [default: no end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<TimeArg>,
    #[command(flatten)]
    lock: LockArgs,
}

/// Take in the keys of a file
///
/// They open messages, and nothing is ever sealed with them. The stream must be joined first. Keys
/// of a session that has no message yet are kept. A command that is following the stream takes
/// them in when it is started again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keys import boiler.keys
  sealcast keys import boiler.keys --identity key.txt
  sealcast keys import - --file-passphrase secret.txt < boiler.keys")]
struct ImportArgs {
    /// The file; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Serialize)]
struct ExportLine {
    stream: String,
    file: String,
    from: String,
    until: Option<String>,
    whole: bool,
    sessions: usize,
}

#[derive(Serialize)]
struct ImportLine {
    name: String,
    stream: String,
    sessions: usize,
    new_keys: usize,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: KeysArgs) -> Result<(), CommandError> {
    match args.command {
        KeysCommand::Export(args) => export(ui, context, &args).await,
        KeysCommand::Import(args) => import(ui, context, &args).await,
    }
}

async fn export(ui: &Ui, context: &Context, args: &ExportArgs) -> Result<(), CommandError> {
    let (from, until) = bounds(args.from, Bound::At(Position::START), args.until)?;
    args.lock.check(ui, &args.output)?;
    let (home, is_home_open) = context.open_telling().await?;
    let lock = args.lock.lock(ui, context, is_home_open)?;
    let stream = home.stream(&args.stream).await?;
    let keys = stream.export_keys(from, until, lock, args.lock.is_armored());
    let keys = keys.await?;
    ui.alarms(&stream);
    args.lock.write(ui, &keys.file, &args.output).await?;
    if ui.is_json() {
        return ui.json(&ExportLine {
            stream: args.stream.to_string(),
            file: args.output.display().to_string(),
            from: rfc3339(keys.interval.from),
            until: until_json(keys.interval.until),
            whole: keys.is_whole,
            sessions: keys.sessions,
        });
    }
    let (from, until) = (
        from_text(keys.interval.from),
        until_text(keys.interval.until),
    );
    let sessions = count(keys.sessions as u64, "session");
    ui.talk(match (keys.interval == Interval::ALL, keys.is_whole) {
        (_, false) => format!(
            "This home holds a part of what was asked for. Exported that, of {sessions}, from {from} \
             until {until} at most. Whoever opens the file reads nothing else."
        ),
        (true, true) => {
            format!("Exported the keys of {sessions}. Whoever opens the file reads them whole.")
        }
        (false, true) => format!(
            "Exported the keys of {sessions}, from {from} until {until}. Whoever opens the file \
             reads that, and nothing else."
        ),
    });
    if !is_stream(&args.output) {
        ui.hint(format!(
            "its reader joins the stream, then takes the keys in: `sealcast keys import {}`",
            quoted(&args.output.display().to_string())
        ));
    }
    Ok(())
}

async fn import(ui: &Ui, context: &Context, args: &ImportArgs) -> Result<(), CommandError> {
    let (home, is_home_open) = context.open_telling().await?;
    let file = sealed(&args.file)?;
    let key = args.key.key(ui, context, &file, is_home_open)?;
    let keys = home.import_keys(&file, key).await?;
    if ui.is_json() {
        return ui.json(&ImportLine {
            name: keys.name.to_string(),
            stream: keys.stream.to_string(),
            sessions: keys.sessions,
            new_keys: keys.new_keys,
        });
    }
    let sessions = count(keys.sessions as u64, "session");
    ui.talk(match keys.new_keys {
        0 => format!(
            "All keys of {sessions} of `{}` were here already.",
            keys.name
        ),
        _ => format!("Imported the keys of {sessions} of `{}`.", keys.name),
    });
    ui.hint(format!(
        "read what they open with `sealcast read {}`",
        quoted(keys.name.as_str())
    ));
    Ok(())
}
