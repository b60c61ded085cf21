mod approvals;
mod approve;
mod condition;
mod keynodes;

use clap::{Args, Subcommand, ValueEnum};
use sealcast::{BusUrl, Home, Name, Sharing, StreamOptions};
use serde::Serialize;

use crate::context::{Context, Names, bus_here};
use crate::error::CommandError;
use crate::shell::quoted;
use crate::time::DurationArg;
use crate::ui::Ui;

pub(crate) use keynodes::{refusal_text, tell_nodes_said};

/// Make streams, list them, change their settings
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream create boiler
  sealcast stream list
  sealcast stream set boiler --rekey-every 7d")]
pub(crate) struct StreamArgs {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    Create(CreateArgs),
    List(ListArgs),
    Set(SetArgs),
    Keynodes(keynodes::KeynodesArgs),
    Condition(condition::ConditionArgs),
    Approve(approve::ApproveArgs),
}

/// Make a stream that you own, and print its ticket
///
/// The ticket tells others where the stream is. It gives no right to read anything.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream create boiler
  sealcast stream create boiler --bus file:/srv/bus
  sealcast stream create weather --public")]
struct CreateArgs {
    /// What to call it
    name: Name,
    /// Bus that carries and stores it; that of the home where not given
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// When keys are handed out
    #[arg(long, value_name = "WHEN", default_value = "active")]
    share: Share,
    /// Let anyone read it
    #[arg(long)]
    public: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Share {
    /// At each grant and each new session
    Active,
    /// When a reader asks
    OnRequest,
    /// Never over the bus
    Manual,
}

/// List the streams of this home
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream list --json")]
struct ListArgs {}

/// Change the settings of a stream
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast stream set boiler --rekey-every 7d
  sealcast stream set boiler --rekey-every 0s")]
struct SetArgs {
    /// The stream
    stream: Name,
    /// Start a new session after this long, such as `7d`; `0s` for never
    #[arg(long, value_name = "DURATION", required = true)]
    rekey_every: DurationArg,
}

#[derive(Serialize)]
struct CreateLine {
    name: String,
    stream: String,
    ticket: String,
}

#[derive(Serialize)]
struct StreamLine {
    name: String,
    stream: String,
    owner: String,
    bus: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: StreamArgs) -> Result<(), CommandError> {
    match args.command {
        StreamCommand::Create(args) => create(ui, &context.open().await?, &args).await,
        StreamCommand::List(_) => list(ui, &context.open().await?),
        StreamCommand::Set(args) => set(ui, &context.open().await?, &args).await,
        StreamCommand::Keynodes(args) => keynodes::run(ui, context, args).await,
        StreamCommand::Condition(args) => condition::run(ui, context, &args).await,
        StreamCommand::Approve(args) => approve::run(ui, context, &args).await,
    }
}

async fn create(ui: &Ui, home: &Home, args: &CreateArgs) -> Result<(), CommandError> {
    let bus = args.bus.as_deref().map(BusUrl::parse).transpose();
    let options = StreamOptions {
        bus: bus_here(bus.map_err(sealcast::Error::BusUrl)?.as_ref())?,
        sharing: match args.share {
            Share::Active => Sharing::Active,
            Share::OnRequest => Sharing::OnRequest,
            Share::Manual => Sharing::Manual,
        },
        public: args.public,
    };
    let stream = home.create_stream(&args.name, options).await?;
    let ticket = stream.ticket().to_string();
    if ui.is_json() {
        return ui.json(&CreateLine {
            name: args.name.to_string(),
            stream: stream.id().to_string(),
            ticket,
        });
    }
    ui.data(ticket)?;
    ui.flush()?;
    ui.talk("This is the ticket: others join with it, and read once you grant them something.");
    let name = quoted(args.name.as_str());
    ui.hint(format!("publish with `sealcast pub {name} -m TEXT`"));
    ui.hint("its keys are here alone: keep a copy of them with `sealcast backup FILE`");
    Ok(())
}

fn list(ui: &Ui, home: &Home) -> Result<(), CommandError> {
    let streams = home.streams()?;
    let names = Names::of(home)?;
    let owners: Vec<String> = streams
        .iter()
        .map(|stream| names.call(&stream.owner))
        .collect();
    let name_width = streams
        .iter()
        .map(|s| s.name.as_str().chars().count())
        .max();
    let owner_width = owners.iter().map(|owner| owner.chars().count()).max();
    for (stream, owner) in streams.iter().zip(&owners) {
        if ui.is_json() {
            ui.json(&StreamLine {
                name: stream.name.to_string(),
                stream: stream.id.to_string(),
                owner: stream.owner.to_string(),
                bus: stream.bus.to_string(),
            })?;
        } else {
            ui.data(format!(
                "{:names$}  {owner:owners$}  {}",
                stream.name.as_str(),
                stream.bus,
                names = name_width.unwrap_or_default(),
                owners = owner_width.unwrap_or_default(),
            ))?;
        }
    }
    if streams.is_empty() {
        ui.talk("There are no streams yet.");
        ui.hint("make one with `sealcast stream create NAME`, or join one with its ticket");
    }
    Ok(())
}

async fn set(ui: &Ui, home: &Home, args: &SetArgs) -> Result<(), CommandError> {
    let stream = home.stream(&args.stream).await?;
    stream.set_rekey_every(args.rekey_every.ms).await?;
    ui.talk(match args.rekey_every.ms {
        0 => "Sessions last until something else ends them.",
        _ => "Sessions end after that time.",
    });
    Ok(())
}
