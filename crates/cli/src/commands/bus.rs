use clap::{Args, Subcommand};
use sealcast::BusUrl;

use crate::context::{Context, bus_here};
use crate::error::CommandError;
use crate::ui::Ui;

mod check;
mod copy;
mod setup;

/// Look at buses, set them up, carry streams from one to another
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast bus check nats://broker.example/plant
  sealcast bus setup file:/srv/bus
  sealcast bus copy file:/srv/bus nats://broker.example/plant")]
pub(crate) struct BusArgs {
    #[command(subcommand)]
    command: BusCommand,
}

#[derive(Debug, Subcommand)]
enum BusCommand {
    Check(check::CheckArgs),
    Setup(setup::SetupArgs),
    Copy(copy::CopyArgs),
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: BusArgs) -> Result<(), CommandError> {
    match args.command {
        BusCommand::Check(args) => check::run(ui, context, &args).await,
        BusCommand::Setup(args) => setup::run(ui, context, &args).await,
        BusCommand::Copy(args) => copy::run(ui, context, &args).await,
    }
}

/// The bus that a URL names, from the working folder.
fn parse(url: &str) -> Result<BusUrl, CommandError> {
    let bus = BusUrl::parse(url).map_err(sealcast::Error::BusUrl)?;
    Ok(bus_here(Some(&bus))?.unwrap_or(bus))
}
