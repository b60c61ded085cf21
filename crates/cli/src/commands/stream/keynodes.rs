//! Which key nodes a stream has.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealcast::{
    Demand, DeviceId, GrantId, KeyNodesInfo, LaneDealt, LaneRecords, Name, NamingOptions,
    NodeRefusalReason, NodeStanding, NodesSaid, Stream, UserId,
};
use serde::Serialize;

use super::approvals::missing_text;
use super::condition::{SpanArgs, condition_of, tell_end, text as condition_text};
use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::rfc3339;
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
/// as it is, unless one is given: those of `sealcast stream condition` may be, and hold from the same moment on. Where one goes, or more are needed, publishers seal with a new secret from then on, as soon as they know of it:
/// nodes that were named before open what was sealed with the old ones, as many of them as were needed then, and nothing else.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes set boiler --threshold 2 ada bob cy
  sealcast stream keynodes set boiler --threshold 2 ada bob cy --approved-by '1 of dan eve'
  sealcast stream keynodes set boiler --threshold 2 ada bob cy --new-secret
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
    #[command(flatten)]
    spans: SpanArgs,
    #[command(flatten)]
    naming: NamingArgs,
}

#[derive(Args, Debug)]
struct NamingArgs {
    /// Have publishers seal with a new secret also where the nodes are those that they were: somebody may have
    /// seen what they hold
    #[arg(long)]
    new_secret: bool,
    /// Do it though key nodes will open less of some lanes until their publishers come by
    #[arg(long)]
    anyway: bool,
}

impl NamingArgs {
    fn options(&self) -> NamingOptions {
        NamingOptions {
            new_secrets: self.new_secret,
            closes_lanes: self.anyway,
        }
    }
}

/// Show the key nodes of a stream, and whether they answer
///
/// Each is asked for one segment, as far as you may read it. `yes`: it proved that it answered with its
/// share. What of a lane is not dealt opens by asking keyholders alone, until its publishers come by. A node whose device is
/// revoked, expired or unknown is dealt nothing, and the others go on without it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream keynodes status boiler
  sealcast stream keynodes status boiler --records
  sealcast stream keynodes status boiler --json")]
struct StatusArgs {
    /// The stream
    stream: Name,
    /// Read all segment records as well, and show of which sessions and times there are some
    #[arg(long)]
    records: bool,
}

/// Put one key node in the place of another
///
/// The others go on releasing what was published so far. Publishers seal with a new secret from then on, and deal it and
/// the old ones to the new node, as they come by. The old one keeps what it holds: with others that were nodes then, as
/// many as the threshold says, it opens what was sealed while it was one, and nothing else. Two that are replaced
/// before publishers come by may close their lanes until then; that is refused unless you say `--anyway`.
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
    #[command(flatten)]
    naming: NamingArgs,
}

type Records = BTreeMap<UserId, LaneRecords>;

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
    lanes_dealt_in_part: Vec<String>,
    lanes_not_dealt: Vec<String>,
    void: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<RecordsLine>>,
}

#[derive(Serialize)]
struct RecordLines {
    records: Vec<RecordsLine>,
}

#[derive(Serialize)]
struct RecordsLine {
    lane: String,
    sessions: usize,
    covered: usize,
    records: u64,
    from: Option<String>,
    until: Option<String>,
}

#[derive(Serialize)]
struct BesideLine {
    entry: String,
    threshold: u8,
    nodes: Vec<String>,
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
    let names = Names::of(&home)?;
    let call = |user: &UserId| names.call(user);
    let condition = condition_of(&args.spans, &home, call)?;
    let (options, is_given) = (args.naming.options(), !condition.0.is_empty());
    if is_given && nodes.is_empty() {
        return Err(CommandError::usage(
            "nobody would release on this condition",
        ));
    }
    let id = match is_given {
        true => {
            let condition = condition.clone();
            stream
                .set_key_nodes_on(args.threshold, &nodes, condition, options)
                .await?
        }
        false => {
            stream
                .set_key_nodes(args.threshold, &nodes, options)
                .await?
        }
    };
    show_entry(ui, id)?;
    ui.talk(match nodes.len() {
        0 => "The stream has no key nodes any more.".to_owned(),
        of => format!(
            "From now on {} of {of} key nodes release what is published to whom the access log entitles.",
            args.threshold
        ),
    });
    if is_given {
        ui.talk(format!("From now on {}.", condition_text(&condition, call)));
        tell_end(ui, &condition);
    }
    Ok(())
}

async fn replace(ui: &Ui, context: &Context, args: &ReplaceArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let (old, _) = node_of(&home, &args.old)?;
    let id = stream
        .replace_key_node(old, node_of(&home, &args.new)?, args.naming.options())
        .await?;
    show_entry(ui, id)?;
    ui.talk(
        "Replaced. Publishers seal with a new secret, and deal to the new node, as they come by.",
    );
    Ok(())
}

/// Prints the access-log entry that was written.
pub(super) fn show_entry(ui: &Ui, id: GrantId) -> Result<(), CommandError> {
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
    let records = match args.records {
        true => Some(stream.segment_records().await?),
        false => None,
    };
    ui.alarms(&stream);
    tell_void(ui, &stream);
    let names = Names::of(&home)?;
    match info {
        None => {
            show_beside(ui, &names, &stream)?;
            if let Some(records) = records.as_ref().filter(|_| ui.is_json()) {
                let records = records.iter().map(records_line).collect();
                ui.json(&RecordLines { records })?;
            }
        }
        Some(info) if ui.is_json() => return ui.json(&line(&info, &stream, records.as_ref())),
        Some(info) => show_info(ui, &names, &info)?,
    }
    match records {
        Some(records) if !ui.is_json() => show_records(ui, &names, &records),
        _ => Ok(()),
    }
}

fn show_info(ui: &Ui, names: &Names, info: &KeyNodesInfo) -> Result<(), CommandError> {
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
        condition_text(&info.condition, |user| names.call(user))
    ))?;
    for (lane, dealt) in &info.dealt {
        let says = match (dealt.open, dealt.secrets) {
            (0, _) => "not dealt".to_owned(),
            (open, of) if open < of => {
                format!("dealt in part, {open} of {of} secrets to {}", dealt.nodes)
            }
            (_, _) => format!("dealt to {}", dealt.nodes),
        };
        ui.data(format!("lane of {}: {says}", names.call(lane)))?;
    }
    Ok(())
}

fn show_records(ui: &Ui, names: &Names, records: &Records) -> Result<(), CommandError> {
    for (lane, of) in records {
        let span = of.span.map(|of| [of.from, of.until].map(rfc3339));
        let span = span.map_or(String::new(), |[from, until]| {
            format!(", from {from} to {until}")
        });
        ui.data(format!(
            "lane of {}: {} records, of {} of {} sessions{span}",
            names.call(lane),
            of.records,
            of.covered,
            of.sessions
        ))?;
    }
    Ok(())
}

/// Says that entries about key nodes are void, where nobody named any since.
pub(super) fn tell_void(ui: &Ui, stream: &Stream) {
    let void = stream.key_nodes_void();
    if !void.is_empty() {
        let entries: Vec<_> = void.iter().map(ToString::to_string).collect();
        ui.talk(format!(
            "Void, since whoever wrote it was removed: what was said of key nodes in {}. What was before holds, or there \
             are none.",
            entries.join(", ")
        ));
        ui.hint("to say anew what is to hold: `sealcast stream keynodes set STREAM`");
    }
}

/// Shows sets of key nodes of which none is in force; where there are none, there are no key nodes.
fn show_beside(ui: &Ui, names: &Names, stream: &Stream) -> Result<(), CommandError> {
    let sets = stream.key_nodes_beside();
    if sets.is_empty() {
        ui.talk("The stream has no key nodes.");
        return Ok(());
    }
    for (entry, set) in sets {
        let needed = set.threshold;
        if ui.is_json() {
            ui.json(&BesideLine {
                entry: entry.to_string(),
                threshold: needed,
                nodes: set.nodes.iter().map(|of| of.user.to_string()).collect(),
            })?;
            continue;
        }
        let nodes: Vec<_> = set.nodes.iter().map(|of| names.call(&of.user)).collect();
        let nodes = nodes.join(", ");
        ui.data(format!("not in force: {needed} of {nodes}; {entry}"))?;
    }
    Ok(())
}

fn line(info: &KeyNodesInfo, stream: &Stream, records: Option<&Records>) -> StatusLine {
    let void = stream.key_nodes_void();
    let lanes = |wanted: fn(&LaneDealt) -> bool| {
        let of = info.dealt.iter().filter(move |(_, dealt)| wanted(dealt));
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
        condition: condition_text(&info.condition, ToString::to_string),
        lanes_dealt: lanes(|of| of.open > 0 && of.open == of.secrets),
        lanes_dealt_in_part: lanes(|of| of.open > 0 && of.open < of.secrets),
        lanes_not_dealt: lanes(|of| of.open == 0),
        void: void.iter().map(ToString::to_string).collect(),
        records: records.map(|of| of.iter().map(records_line).collect()),
    }
}

fn records_line((lane, of): (&UserId, &LaneRecords)) -> RecordsLine {
    let span = of.span.map(|of| [of.from, of.until].map(rfc3339));
    let [from, until] = span.map_or([None, None], |of| of.map(Some));
    RecordsLine {
        lane: lane.to_string(),
        sessions: of.sessions,
        covered: of.covered,
        records: of.records,
        from,
        until,
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
        NodeRefusalReason::NotEnded => "what was asked for has not ended",
    }
}

/// Tells what kept key nodes from releasing what did not open.
pub(crate) fn tell_nodes_said(ui: &Ui, stream: &Stream, names: &Names, said: &NodesSaid) {
    for (node, reason) in &said.refused {
        let (node, reason) = (names.call(&node.user), refusal_text(*reason));
        ui.talk(format!("Key node {node} refused: {reason}."));
    }
    for node in &said.silent {
        let node = names.call(&node.user);
        ui.talk(format!("Key node {node} did not answer."));
    }
    if let Some((answered, needed)) = said.too_few {
        ui.talk(format!(
            "Of the {needed} key nodes that are needed {answered} released."
        ));
    }
    if let Some(at) = said.released_from {
        ui.talk(format!(
            "Their condition can end, so they release what was published last from {} on.",
            rfc3339(at)
        ));
    }
    if said.is_record_false {
        ui.talk(
            "Key nodes released keys that open nothing: the publisher is false, or all of them are.",
        );
    }
    let is_condition = |of: &NodeRefusalReason| *of == NodeRefusalReason::Condition;
    if said.refused.values().any(is_condition) {
        tell_condition(ui, stream, names);
    }
}

/// Says on what condition key nodes release, and what is missing for this user.
fn tell_condition(ui: &Ui, stream: &Stream, names: &Names) {
    let call = |user: &UserId| names.call(user);
    let me = names.own();
    let Some((_, condition)) = stream.release_condition() else {
        return;
    };
    ui.talk(format!("Here {}.", condition_text(&condition, call)));
    let mut readers = stream.reader_approvals().into_iter();
    let Some(mine) = readers.find(|of| of.user == me && !of.releases) else {
        return;
    };
    ui.talk(format!("You wait for: {}.", missing_text(&mine, call)));
    if mine
        .missing
        .iter()
        .flatten()
        .any(|of| matches!(of, Demand::Approved(_)))
    {
        ui.hint(format!(
            "who approves runs `sealcast stream approve STREAM {me}`, with their name of the stream"
        ));
    }
}
