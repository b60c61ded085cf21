use clap::Args;
use serde::Serialize;

use super::parse;
use crate::context::Context;
use crate::error::CommandError;
use crate::shell::quoted;
use crate::ui::Ui;

/// Make what a bus needs
///
/// Makes the folder, or what a server needs to hold a bus: on NATS a JetStream stream, on three servers
/// where there is a cluster, or on as many as `servers.toml` says (docs/reference/servers.md); in
/// PostgreSQL a schema; on RabbitMQ an exchange; on an MQTT broker nothing. What is there already is
/// left as it is, and said.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast bus setup file:/srv/bus
  sealcast bus setup nats://broker.example/plant")]
pub(crate) struct SetupArgs {
    /// The bus
    url: String,
}

#[derive(Serialize)]
struct Line {
    bus: String,
    made: Vec<String>,
    left: Vec<String>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &SetupArgs) -> Result<(), CommandError> {
    let bus = parse(&args.url)?;
    let setup = sealcast::setup_bus(&bus, &context.home_path()?).await?;
    if ui.is_json() {
        return ui.json(&Line {
            bus: bus.to_string(),
            made: setup.made,
            left: setup.left,
        });
    }
    let made = setup
        .made
        .iter()
        .map(|what| ["made".to_owned(), what.clone()]);
    let left = setup
        .left
        .iter()
        .map(|what| ["left".to_owned(), what.clone()]);
    ui.table(&made.chain(left).collect::<Vec<_>>())?;
    ui.flush()?;
    let bus = quoted(&bus.to_string());
    ui.hint(format!("`sealcast bus check {bus}` says what it offers"));
    Ok(())
}
