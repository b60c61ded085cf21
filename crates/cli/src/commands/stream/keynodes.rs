//! Which key nodes a stream has.

use std::time::Duration;

use clap::{Args, Subcommand};
use sealcast::{
    Condition, Demand, DeviceId, GrantId, KeyNodesInfo, Name, NodeRefusalReason, NodeStanding,
    UserId,
};
use serde::Serialize;

use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::{TimeArg, now, rfc3339};
use crate::ui::Ui;

/// How long nodes have to answer.
const PROBE_FOR: Duration = Duration::from_secs(10);

/// Say which servers together release keys, and see whether they do
///
/// So many key nodes as the threshold says release the keys of what is published from then on to those
/// whom the access log entitles, with everybody else offline. Fewer of them can open nothing, whatever
/// they do; as many of them as that can open everything, so let them be run by different people. What was
/// published before there were key nodes opens by asking keyholders.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes set boiler --threshold 2 ada bob cy
  sealcast stream keynodes status boiler
  sealcast stream keynodes replace boiler cy dan")]
pub(super) struct KeynodesArgs {
    #[command(subcommand)]
    command: KeynodesCommand,
}

#[derive(Debug, Subcommand)]
enum KeynodesCommand {
    Set(SetArgs),
    Status(StatusArgs),
    Replace(ReplaceArgs),
}

/// Name all key nodes of a stream, and how many of them are needed
///
/// Each must have joined the stream. Without a NODE, and with a threshold of 0, there are none any more. The condition stays
/// as it is. Nodes that were named before keep their shares: as many of them as were needed then still open what
/// is published in lanes that were dealt to them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes set boiler --threshold 2 ada bob cy
  sealcast stream keynodes set boiler --threshold 0")]
struct SetArgs {
    /// The stream
    stream: Name,
    /// How many must answer
    #[arg(long, value_name = "COUNT")]
    threshold: u8,
    /// The nodes: ids or names of contacts, `USER/DEVICE` where one has several devices
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// Show the key nodes of a stream, and whether they answer
///
/// Each is asked for one segment, as far as you may read it. `yes`: it proved that it answered with its
/// share. The lanes that are told as `not dealt` open by asking keyholders alone, until their publishers
/// come by.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes status boiler
  sealcast stream keynodes status boiler --json")]
struct StatusArgs {
    /// The stream
    stream: Name,
}

/// Put one key node in the place of another
///
/// The others go on releasing what was published so far. Publishers deal to the new one as they come by.
/// The old one keeps what it holds: where it, with others that were replaced, is as many as the threshold says,
/// and is not trusted, make a new stream.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes replace boiler cy dan")]
struct ReplaceArgs {
    /// The stream
    stream: Name,
    /// The node that goes
    old: String,
    /// The node that comes
    new: String,
}

#[derive(Serialize)]
struct NodeLine {
    user: String,
    device: String,
    answers: String,
}

#[derive(Serialize)]
struct StatusLine {
    entry: String,
    threshold: u8,
    nodes: Vec<NodeLine>,
    condition: String,
    lanes_dealt: Vec<String>,
    lanes_not_dealt: Vec<String>,
}

#[derive(Serialize)]
struct EntryLine {
    entry: String,
}

pub(super) async fn run(
    ui: &Ui,
    context: &Context,
    args: KeynodesArgs,
) -> Result<(), CommandError> {
    match args.command {
        KeynodesCommand::Set(args) => set(ui, context, &args).await,
        KeynodesCommand::Status(args) => status(ui, context, &args).await,
        KeynodesCommand::Replace(args) => replace(ui, context, &args).await,
    }
}

async fn set(ui: &Ui, context: &Context, args: &SetArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let nodes = args.nodes.iter().map(|text| node_of(&home, text));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let id = stream.set_key_nodes(args.threshold, &nodes).await?;
    show_entry(ui, id)?;
    ui.talk(match nodes.len() {
        0 => "The stream has no key nodes any more.".to_owned(),
        of => format!(
            "From now on {} of {of} key nodes release what is published to whom the access log entitles.",
            args.threshold
        ),
    });
    Ok(())
}

async fn replace(ui: &Ui, context: &Context, args: &ReplaceArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let (old, _) = node_of(&home, &args.old)?;
    let id = stream
        .replace_key_node(old, node_of(&home, &args.new)?)
        .await?;
    show_entry(ui, id)?;
    ui.talk("Replaced. Publishers deal to the new node as they come by.");
    Ok(())
}

/// Prints the access-log entry that was written.
fn show_entry(ui: &Ui, id: GrantId) -> Result<(), CommandError> {
    let entry = id.to_string();
    match ui.is_json() {
        true => ui.json(&EntryLine { entry })?,
        false => ui.data(entry)?,
    }
    ui.flush()
}

/// A user, and the device where it is named.
fn node_of(home: &sealcast::Home, text: &str) -> Result<(UserId, Option<DeviceId>), CommandError> {
    let Some((user, device)) = text.split_once('/') else {
        return Ok((user_of(home, text)?, None));
    };
    let device = device.parse().map_err(|_| {
        CommandError::usage(format!("this is no device id: {device}"))
            .with_hint("`sealcast keynode init` prints it with `--json`")
    })?;
    Ok((user_of(home, user)?, Some(device)))
}

async fn status(ui: &Ui, context: &Context, args: &StatusArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let info = stream.key_nodes(PROBE_FOR).await?;
    ui.alarms(&stream);
    let Some(info) = info else {
        ui.talk("The stream has no key nodes.");
        return Ok(());
    };
    if ui.is_json() {
        return ui.json(&line(&info));
    }
    let names = Names::of(&home)?;
    let mut rows = vec![["NODE", "DEVICE", "ANSWERS"].map(str::to_owned)];
    rows.extend(info.nodes.iter().map(|node| {
        [
            names.call(&node.user),
            node.device.to_string(),
            standing(node.standing),
        ]
    }));
    ui.table(&rows)?;
    ui.data(format!(
        "{} of {} must answer; {}",
        info.threshold,
        info.nodes.len(),
        condition_text(&info.condition)
    ))?;
    for (lane, is_dealt) in &info.dealt {
        let dealt = if *is_dealt { "dealt" } else { "not dealt" };
        ui.data(format!("lane of {}: {dealt}", names.call(lane)))?;
    }
    Ok(())
}

fn line(info: &KeyNodesInfo) -> StatusLine {
    let lanes = |wanted: bool| {
        let of = info
            .dealt
            .iter()
            .filter(move |(_, dealt)| **dealt == wanted);
        of.map(|(lane, _)| lane.to_string()).collect()
    };
    let node = |of: &sealcast::KeyNodeInfo| NodeLine {
        user: of.user.to_string(),
        device: of.device.to_string(),
        answers: standing(of.standing),
    };
    StatusLine {
        entry: info.id.to_string(),
        threshold: info.threshold,
        nodes: info.nodes.iter().map(node).collect(),
        condition: condition_text(&info.condition),
        lanes_dealt: lanes(true),
        lanes_not_dealt: lanes(false),
    }
}

fn standing(of: NodeStanding) -> String {
    match of {
        NodeStanding::Unasked => "not asked".to_owned(),
        NodeStanding::Answers => "yes".to_owned(),
        NodeStanding::Refuses(reason) => format!("refuses: {}", refusal_text(reason)),
        NodeStanding::Lies => "falsely".to_owned(),
        NodeStanding::Silent => "no".to_owned(),
        NodeStanding::NoCard => "its device is revoked, expired or unknown here".to_owned(),
    }
}

/// Why a key node released nothing, in a few words.
pub(crate) fn refusal_text(reason: NodeRefusalReason) -> &'static str {
    match reason {
        NodeRefusalReason::NotEntitled => "not entitled",
        NodeRefusalReason::UnknownDeal => "no share",
        NodeRefusalReason::Condition => "the condition does not hold",
        NodeRefusalReason::Throttled => "too much at once",
        NodeRefusalReason::LogBehind => "the access log is not whole here",
    }
}

/// Has key nodes release at certain times only
///
/// What holds besides the access log: nothing is released before `--after`, and nothing from `--before` on,
/// by the clocks of the key nodes. Without either there is no condition any more. It concerns key nodes
/// alone: keyholders go on handing out keys.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast stream condition boiler --after 2027-01-01
  sealcast stream condition boiler --before +90d
  sealcast stream condition boiler")]
pub(super) struct ConditionArgs {
    /// The stream
    stream: Name,
    /// Nothing is released before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    after: Option<TimeArg>,
    /// Nothing is released from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    before: Option<TimeArg>,
}

pub(super) async fn condition(
    ui: &Ui,
    context: &Context,
    args: &ConditionArgs,
) -> Result<(), CommandError> {
    let (_home, stream) = context.stream(ui, &args.stream).await?;
    let now = now();
    let after = args.after.map(|time| Demand::After(time.position(now)));
    let before = args.before.map(|time| Demand::Before(time.position(now)));
    let all: Vec<_> = after.into_iter().chain(before).collect();
    let condition = match all.is_empty() {
        true => Condition::default(),
        false => Condition(vec![all]),
    };
    let says = condition_text(&condition);
    let id = stream.set_condition(condition).await?;
    show_entry(ui, id)?;
    ui.talk(format!("From now on {says}."));
    Ok(())
}

/// A condition in plain words.
fn condition_text(condition: &Condition) -> String {
    let demand = |of: &Demand| match of {
        Demand::After(time) => format!("not before {}", rfc3339(*time)),
        Demand::Before(time) => format!("no more from {} on", rfc3339(*time)),
    };
    let all = |of: &Vec<Demand>| of.iter().map(demand).collect::<Vec<_>>().join(" and ");
    match condition.0.as_slice() {
        [] => "key nodes release whenever the access log allows it".to_owned(),
        of => {
            let any: Vec<_> = of.iter().map(all).collect();
            format!("key nodes release {}", any.join(", or "))
        }
    }
}
