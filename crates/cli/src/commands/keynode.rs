use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealcast::{AuditLine, Home, Name, Releasing, Stream, StreamId};
use serde::Serialize;

use crate::commands::init;
use crate::commands::stream::refusal_text;
use crate::context::{Context, Names};
use crate::error::CommandError;
use crate::signals::asked_to_end;
use crate::time::rfc3339;
use crate::ui::{Ui, count, thousands};

/// How often streams that were joined meanwhile are taken up, and alarms told.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before a stream is tried again that could not be opened.
const AGAIN: Duration = Duration::from_secs(10);

/// Be a key node: release keys to whom the access log entitles
///
/// A stream may name several key nodes, of which so many together release the keys of what was
/// published to those who may read it, with everybody else offline. One of them alone, or fewer than
/// that, can open nothing, and none sees a message. A key node has a home of its own.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keynode init --bus file:/srv/bus --no-passphrase
  sealcast join sealcast1:...
  sealcast keynode run")]
pub(crate) struct KeynodeArgs {
    #[command(subcommand)]
    command: KeynodeCommand,
}

#[derive(Debug, Subcommand)]
enum KeynodeCommand {
    Init(InitArgs),
    Run(RunArgs),
    Status(StatusArgs),
    Audit(AuditArgs),
}

/// Make a home for a key node, and print its id
///
/// A key node releases on its own, so its home has no passphrase but in a file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keynode init --bus file:/srv/bus --no-passphrase
  sealcast keynode init --passphrase-file secret.txt --home /srv/keynode")]
struct InitArgs {
    /// Bus that it is on; that of each stream is in its ticket
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// Keep the key of the store in a file that only you may read
    #[arg(long)]
    no_passphrase: bool,
}

/// Release keys of all streams that this home has joined, until Ctrl-C or SIGTERM
///
/// Each request is checked by the access log as the bus has it then, and what comes of it is written
/// down before it leaves. Streams that are joined meanwhile are taken up. One process a home does this.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keynode run")]
struct RunArgs {}

/// Show of which streams this home is a key node, and what it holds
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keynode status
  sealcast keynode status --json")]
struct StatusArgs {}

/// Show what this key node released and refused, and check that nothing was altered
///
/// Every entry names the one before, and is signed. The digest of the last one is told at the end: kept
/// elsewhere, it shows later whether entries were cut off. The exit code is 6 where the audit does
/// not hold.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast keynode audit boiler
  sealcast keynode audit boiler --last 20 --json")]
struct AuditArgs {
    /// The stream
    stream: Name,
    /// Print only so many of the newest entries
    #[arg(long, value_name = "COUNT")]
    last: Option<usize>,
}

#[derive(Serialize)]
struct StatusLine {
    name: String,
    stream: String,
    named: bool,
    shares: usize,
    audit_entries: u64,
}

#[derive(Serialize)]
struct Entry {
    seq: u64,
    time: String,
    event: &'static str,
    reason: Option<&'static str>,
    user: Option<String>,
    device: Option<String>,
    lane: Option<String>,
    session: Option<String>,
    segments: usize,
    from: Option<String>,
    until: Option<String>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: KeynodeArgs) -> Result<(), CommandError> {
    match args.command {
        KeynodeCommand::Init(args) => {
            let args = init::InitArgs {
                name: None,
                bus: args.bus,
                no_passphrase: args.no_passphrase,
            };
            init::run_as(ui, context, args, init::Purpose::KeyNode).await
        }
        KeynodeCommand::Run(_) => serve(ui, context).await,
        KeynodeCommand::Status(_) => status(ui, context).await,
        KeynodeCommand::Audit(args) => audit(ui, context, &args).await,
    }
}

async fn serve(ui: &Ui, context: &Context) -> Result<(), CommandError> {
    let home = context.open().await?;
    let mut end = std::pin::pin!(asked_to_end());
    let mut serving = BTreeMap::<StreamId, (Stream, Releasing)>::new();
    ui.talk(format!(
        "Key node {}, device {}.",
        home.user(),
        home.device()
    ));
    loop {
        let mut pause = LOOK_EVERY;
        for info in home.streams()? {
            if serving.contains_key(&info.id) {
                continue;
            }
            match begin(&home, &info.name).await {
                Ok(begun) => {
                    ui.talk(format!("Releasing for `{}`.", info.name));
                    serving.insert(info.id, begun);
                }
                // It will not get better by itself, and nothing is to be released meanwhile.
                Err(error @ (sealcast::Error::Audit(_) | sealcast::Error::Store(_))) => {
                    return Err(error.into());
                }
                Err(error) => {
                    ui.error(&error.into());
                    pause = AGAIN;
                }
            }
        }
        for (stream, _) in serving.values() {
            ui.alarms(stream);
        }
        let ended = serving.values().find(|(_, of)| of.has_ended());
        if let Some((stream, _)) = ended {
            // Says what is wrong.
            stream.audit(0).await?;
        }
        tokio::select! {
            ended = &mut end => return ended,
            () = tokio::time::sleep(pause) => (),
        }
    }
}

async fn begin(home: &Home, name: &Name) -> Result<(Stream, Releasing), sealcast::Error> {
    let stream = home.stream(name).await?;
    let releasing = stream.release().await?;
    Ok((stream, releasing))
}

async fn status(ui: &Ui, context: &Context) -> Result<(), CommandError> {
    let home = context.open().await?;
    let mut rows = vec![["STREAM", "KEY NODE", "SHARES", "AUDIT"].map(str::to_owned)];
    for info in home.streams()? {
        let stream = home.stream(&info.name).await?;
        ui.alarms(&stream);
        let own = stream.own_key_node().await?;
        if ui.is_json() {
            ui.json(&StatusLine {
                name: info.name.to_string(),
                stream: info.id.to_string(),
                named: own.is_named,
                shares: own.shares,
                audit_entries: own.audit_entries,
            })?;
        }
        rows.push([
            info.name.to_string(),
            if own.is_named { "yes" } else { "no" }.to_owned(),
            own.shares.to_string(),
            format!("{} entries", thousands(own.audit_entries)),
        ]);
    }
    match ui.is_json() {
        true => Ok(()),
        false => ui.table(&rows),
    }
}

async fn audit(ui: &Ui, context: &Context, args: &AuditArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let audit = stream.audit(args.last.unwrap_or(usize::MAX)).await?;
    let names = Names::of(&home)?;
    for line in &audit.lines {
        match ui.is_json() {
            true => ui.json(&entry(line))?,
            false => ui.data(text(line, &names))?,
        }
    }
    ui.flush()?;
    let entries = thousands(audit.entries);
    ui.talk(format!(
        "The audit holds: {entries} entries, and the digest of the last is {audit}."
    ));
    Ok(())
}

fn text(line: &AuditLine, names: &Names) -> String {
    let time = rfc3339(line.time);
    let Some(asked) = &line.asked else {
        return format!("{}  {time}  began to run", line.seq);
    };
    let did = match asked.refused {
        None => "released".to_owned(),
        Some(reason) => format!("refused, {}", refusal_text(reason)),
    };
    let segments = count(asked.segments.len() as u64, "segment");
    let user = names.call(&asked.user);
    let lane = names.call(&asked.lane);
    format!(
        "{}  {time}  {did}: {segments} of {lane} to {user}, device {}",
        line.seq, asked.device
    )
}

fn entry(line: &AuditLine) -> Entry {
    let asked = line.asked.as_ref();
    let reason = asked.and_then(|of| of.refused);
    Entry {
        seq: line.seq,
        time: rfc3339(line.time),
        event: match (asked, reason) {
            (None, _) => "began",
            (Some(_), None) => "released",
            (Some(_), Some(_)) => "refused",
        },
        reason: reason.map(refusal_text),
        user: asked.map(|of| of.user.to_string()),
        device: asked.map(|of| of.device.to_string()),
        lane: asked.map(|of| of.lane.to_string()),
        session: asked.map(|of| of.session.to_string()),
        segments: asked.map_or(0, |of| of.segments.len()),
        from: asked.and_then(|of| of.segments.first().map(|of| rfc3339(of.from))),
        until: asked.and_then(|of| of.segments.last().map(|of| rfc3339(of.until))),
    }
}
