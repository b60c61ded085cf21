use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealcast::{
    AskedOfNode, AuditLine, AuditedEvent, Home, Name, NodeRefusalReason, RefusalCounts,
    ReleaseOptions, Releasing, Stream, StreamId,
};
use serde::Serialize;

use crate::commands::init;
use crate::commands::stream::refusal_text;
use crate::context::{Context, Names};
use crate::error::{CommandError, Kind};
use crate::signals::asked_to_end;
use crate::time::rfc3339;
use crate::ui::{Ui, count as counted, thousands};

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
  sealcast keynode run
  sealcast keynode run --clock-is-right")]
struct RunArgs {
    /// Go on though the audit has entries from later than now: the clock was ahead once, and is right
    #[arg(long)]
    clock_is_right: bool,
}

/// Show of which streams this home is a key node, what it holds, released and refused, and what is wrong
///
/// What it released and refused is counted in the audit, which is checked on the way.
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
    released: u64,
    refused: BTreeMap<&'static str, u64>,
    turned_away: u64,
    bus_shows_all: bool,
}

/// What an audit comes to.
#[derive(Default)]
struct Tally {
    released: u64,
    refused: RefusalCounts,
    turned_away: u64,
}

#[derive(Serialize)]
struct Entry {
    seq: u64,
    time: String,
    event: &'static str,
    count: Option<u64>,
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
        KeynodeCommand::Run(args) => serve(ui, context, &args).await,
        KeynodeCommand::Status(_) => status(ui, context).await,
        KeynodeCommand::Audit(args) => audit(ui, context, &args).await,
    }
}

async fn serve(ui: &Ui, context: &Context, args: &RunArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    let mut end = std::pin::pin!(asked_to_end());
    let mut serving = BTreeMap::<StreamId, Serving>::new();
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
            match begin(&home, &info.name, args).await {
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
        for of in serving.values_mut() {
            ui.alarms(&of.stream);
            of.tell_trouble(ui);
        }
        if let Some(of) = serving.values().find(|of| of.releasing.has_ended()) {
            // Says what is wrong.
            tally(&of.stream).await?;
            let says = format!("releasing for `{}` has ended", of.name);
            return Err(CommandError::new(Kind::Internal, "internal", says));
        }
        tokio::select! {
            ended = &mut end => return ended,
            () = tokio::time::sleep(pause) => (),
        }
    }
}

/// A stream that keys are released of.
struct Serving {
    name: Name,
    stream: Stream,
    releasing: Releasing,
    /// What was told last of what keeps it from releasing.
    trouble: Option<String>,
}

impl Serving {
    /// Says what keeps it from releasing, when that changes.
    fn tell_trouble(&mut self, ui: &Ui) {
        let clock = self.releasing.clock_behind_ms().map(|behind_ms| {
            format!(
                "the clock is {} minutes behind what the audit says of it: set it right; if it is, and was \
                 ahead before, run with --clock-is-right",
                behind_ms / 60_000
            )
        });
        let bus = self.releasing.is_bus_short().then(|| {
            "the bus shows less of access log or device lists than it did: ask who runs it"
                .to_owned()
        });
        let trouble = clock.or(bus);
        if trouble == self.trouble {
            return;
        }
        let name = &self.name;
        match &trouble {
            Some(trouble) => ui.warn(format!("nothing is released for `{name}`: {trouble}")),
            None => ui.talk(format!("Releasing for `{name}` again.")),
        }
        self.trouble = trouble;
    }
}

async fn begin(home: &Home, name: &Name, args: &RunArgs) -> Result<Serving, sealcast::Error> {
    let stream = home.stream(name).await?;
    let mut options = ReleaseOptions::default();
    options.trusts_clock = args.clock_is_right;
    let releasing = stream.release_with(options).await?;
    Ok(Serving {
        name: name.clone(),
        stream,
        releasing,
        trouble: None,
    })
}

/// Goes through all of an audit.
async fn tally(stream: &Stream) -> Result<Tally, sealcast::Error> {
    let mut tally = Tally::default();
    let mut audit = stream.audit().await?;
    loop {
        let lines = audit.next().await?;
        if lines.is_empty() {
            return Ok(tally);
        }
        for line in lines {
            match line.event {
                AuditedEvent::Asked(asked) => match asked.refused {
                    None => tally.released += 1,
                    Some(reason) => tally.refused.note(reason),
                },
                AuditedEvent::TurnedAway(count) => tally.turned_away += count,
                AuditedEvent::Began | AuditedEvent::ClockSet | _ => (),
            }
        }
    }
}

async fn status(ui: &Ui, context: &Context) -> Result<(), CommandError> {
    let home = context.open().await?;
    let mut rows = vec![
        [
            "STREAM", "KEY NODE", "SHARES", "AUDIT", "RELEASED", "REFUSED", "BUS",
        ]
        .map(str::to_owned),
    ];
    for info in home.streams()? {
        let stream = home.stream(&info.name).await?;
        ui.alarms(&stream);
        let own = stream.own_key_node().await?;
        let tally = tally(&stream).await?;
        let refused: BTreeMap<_, _> = tally.refused.by_reason().into_iter().collect();
        let refused = refused.into_iter().filter(|(_, count)| *count > 0);
        let refused: Vec<_> = refused.collect();
        let says =
            |(reason, count): &(_, u64)| format!("{} {}", thousands(*count), refusal_text(*reason));
        let mut texts: Vec<_> = refused.iter().map(says).collect();
        if tally.turned_away > 0 {
            texts.push(format!("{} turned away", thousands(tally.turned_away)));
        }
        if ui.is_json() {
            ui.json(&StatusLine {
                name: info.name.to_string(),
                stream: info.id.to_string(),
                named: own.is_named,
                shares: own.shares,
                audit_entries: own.audit_entries,
                released: tally.released,
                refused: refused
                    .into_iter()
                    .map(|(of, count)| (of.name(), count))
                    .collect(),
                turned_away: tally.turned_away,
                bus_shows_all: own.is_shown_all,
            })?;
        }
        rows.push([
            info.name.to_string(),
            if own.is_named { "yes" } else { "no" }.to_owned(),
            own.shares.to_string(),
            match own.audit_entries {
                1 => "1 entry".to_owned(),
                many => format!("{} entries", thousands(many)),
            },
            thousands(tally.released),
            match texts.is_empty() {
                true => "none".to_owned(),
                false => texts.join(", "),
            },
            match own.is_shown_all {
                true => "whole",
                false => "shows less than it did",
            }
            .to_owned(),
        ]);
    }
    match ui.is_json() {
        true => Ok(()),
        false => ui.table(&rows),
    }
}

async fn audit(ui: &Ui, context: &Context, args: &AuditArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let mut audit = stream.audit().await?;
    let names = Names::of(&home)?;
    let last = args.last.map_or(u64::MAX, |last| last as u64);
    let from = audit.len().saturating_sub(last);
    loop {
        let lines = audit.next().await?;
        if lines.is_empty() {
            break;
        }
        for line in lines.iter().filter(|line| line.seq >= from) {
            match ui.is_json() {
                true => ui.json(&entry(line))?,
                false => ui.data(text(line, &names))?,
            }
        }
    }
    ui.flush()?;
    ui.talk(match audit.len() {
        0 => "The audit has no entries: this home was no key node of the stream so far.".to_owned(),
        1 => format!("The audit holds: 1 entry, and its digest is {audit}."),
        many => format!(
            "The audit holds: {} entries, and the digest of the last is {audit}.",
            thousands(many)
        ),
    });
    Ok(())
}

fn text(line: &AuditLine, names: &Names) -> String {
    let time = rfc3339(line.time);
    let did = match &line.event {
        AuditedEvent::Asked(asked) => asked_text(asked, names),
        AuditedEvent::TurnedAway(count) => format!(
            "turned away {} that had no entry each",
            counted(*count, "request")
        ),
        AuditedEvent::ClockSet => "took its clock for right".to_owned(),
        AuditedEvent::Began | _ => "began to run".to_owned(),
    };
    format!("{}  {time}  {did}", line.seq)
}

fn asked_text(asked: &AskedOfNode, names: &Names) -> String {
    let did = match asked.refused {
        None => "released".to_owned(),
        Some(reason) => format!("refused, {}", refusal_text(reason)),
    };
    let segments = counted(asked.segments.len() as u64, "segment");
    let user = names.call(&asked.user);
    let lane = names.call(&asked.lane);
    format!(
        "{did}: {segments} of {lane} to {user}, device {}",
        asked.device
    )
}

fn entry(line: &AuditLine) -> Entry {
    let asked = match &line.event {
        AuditedEvent::Asked(asked) => Some(asked),
        AuditedEvent::Began | AuditedEvent::TurnedAway(_) | AuditedEvent::ClockSet | _ => None,
    };
    let reason = asked.and_then(|of| of.refused);
    Entry {
        seq: line.seq,
        time: rfc3339(line.time),
        event: match (&line.event, reason) {
            (AuditedEvent::Asked(_), None) => "released",
            (AuditedEvent::Asked(_), Some(_)) => "refused",
            (AuditedEvent::TurnedAway(_), _) => "turned-away",
            (AuditedEvent::ClockSet, _) => "clock-set",
            (AuditedEvent::Began | _, _) => "began",
        },
        count: match line.event {
            AuditedEvent::TurnedAway(count) => Some(count),
            AuditedEvent::Began | AuditedEvent::Asked(_) | AuditedEvent::ClockSet | _ => None,
        },
        reason: reason.map(NodeRefusalReason::name),
        user: asked.map(|of| of.user.to_string()),
        device: asked.map(|of| of.device.to_string()),
        lane: asked.map(|of| of.lane.to_string()),
        session: asked.map(|of| of.session.to_string()),
        segments: asked.map_or(0, |of| of.segments.len()),
        from: asked.and_then(|of| of.segments.first().map(|of| rfc3339(of.from))),
        until: asked.and_then(|of| of.segments.last().map(|of| rfc3339(of.until))),
    }
}
