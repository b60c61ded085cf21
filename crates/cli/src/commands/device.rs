use clap::{Args, Subcommand};
use sealcast::{DeviceInfo, Home, Position, StreamOutcome};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CommandError, Kind};
use crate::time::{now, rfc3339};
use crate::ui::Ui;

mod add;
mod join;

/// Add devices of your own, list and revoke them
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast device join --bus file:/srv/bus
  sealcast device add 7K2M-9FQR-...
  sealcast device list
  sealcast device revoke phone")]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    Join(join::JoinArgs),
    Add(add::AddArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// List your devices
///
/// USED is the week in which a device last drew a fallback key, as far as the buses show it: it
/// draws one in each week in which it is used.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast device list --json")]
struct ListArgs {}

/// Take a device out, for good
///
/// It is revoked in your device list and in each of your streams. Nothing opens for it that is
/// sealed by a publisher who has seen this. What it held stays held. Where a stream cannot be
/// reached, run the same command again later.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast device revoke phone
  sealcast device revoke d09a37f6")]
struct RevokeArgs {
    /// Its name, its id, or the first 6 letters of that
    device: String,
}

#[derive(Serialize)]
struct ListLine {
    device: String,
    name: Option<String>,
    this: bool,
    added: String,
    expires: String,
    revoked: Option<String>,
    used: Option<String>,
    state: &'static str,
}

#[derive(Serialize)]
struct OutcomeLine {
    device: String,
    streams: Vec<StreamLine>,
}

#[derive(Serialize)]
struct StreamLine {
    name: String,
    error: Option<String>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: DeviceArgs) -> Result<(), CommandError> {
    match args.command {
        DeviceCommand::Join(args) => join::run(ui, context, args).await,
        DeviceCommand::Add(args) => add::run(ui, context, &args).await,
        DeviceCommand::List(_) => list(ui, &context.open().await?).await,
        DeviceCommand::Revoke(args) => revoke(ui, &context.open().await?, &args).await,
    }
}

async fn list(ui: &Ui, home: &Home) -> Result<(), CommandError> {
    let devices = home.devices().await?;
    if ui.is_json() {
        return devices.iter().try_for_each(|of| ui.json(&line(of)));
    }
    let mut rows = vec![["DEVICE", "NAME", "ADDED", "EXPIRES", "USED", "STATE"].map(str::to_owned)];
    rows.extend(devices.iter().map(row));
    ui.table(&rows)
}

fn line(of: &DeviceInfo) -> ListLine {
    ListLine {
        device: of.device.to_string(),
        name: of.name.as_ref().map(ToString::to_string),
        this: of.is_this,
        added: rfc3339(of.added),
        expires: rfc3339(of.expires),
        revoked: of.revoked.map(rfc3339),
        used: of.used.map(rfc3339),
        state: state(of),
    }
}

fn row(of: &DeviceInfo) -> [String; 6] {
    let id = of.device.to_string();
    let this = if of.is_this { ", this one" } else { "" };
    [
        id.get(..12).unwrap_or(&id).to_owned(),
        of.name.as_ref().map_or("-".to_owned(), ToString::to_string),
        day(of.added),
        day(of.expires),
        of.used.map_or("-".to_owned(), day),
        format!("{}{this}", state(of)),
    ]
}

fn day(position: Position) -> String {
    let text = rfc3339(position);
    text.get(..10).unwrap_or(&text).to_owned()
}

fn state(of: &DeviceInfo) -> &'static str {
    match of.revoked {
        Some(_) => "revoked",
        None if of.expires <= now() => "expired",
        None => "live",
    }
}

async fn revoke(ui: &Ui, home: &Home, args: &RevokeArgs) -> Result<(), CommandError> {
    let device = home.find_device(&args.device).await?;
    let outcomes = home.revoke_device(device).await?;
    if !ui.is_json() {
        ui.talk("Revoked, for good. Publishers start new sessions when they see it.");
    }
    tell(ui, home, device, &outcomes, "sealcast device revoke")
}

/// Says what became of each stream, and fails where something is left to do.
fn tell(
    ui: &Ui,
    home: &Home,
    device: sealcast::DeviceId,
    outcomes: &[StreamOutcome],
    again: &str,
) -> Result<(), CommandError> {
    let line = |of: &StreamOutcome| StreamLine {
        name: of.name.to_string(),
        error: of.error.as_ref().map(|error| error.code().to_owned()),
    };
    if ui.is_json() {
        ui.json(&OutcomeLine {
            device: device.to_string(),
            streams: outcomes.iter().map(line).collect(),
        })?;
    }
    let left: Vec<_> = outcomes.iter().filter(|of| of.error.is_some()).collect();
    for of in &left {
        if let Some(error) = &of.error {
            ui.warn(format!("stream `{}`: {error}", of.name));
        }
    }
    let place = home.path().display();
    match left.is_empty() {
        true => Ok(()),
        false => Err(CommandError::new(
            Kind::Bus,
            "device.incomplete",
            format!("not done in all streams: {}", left.len()),
        )
        .with_hint(format!(
            "when their buses are back, run the same `{again}` again in `{place}`"
        ))),
    }
}
