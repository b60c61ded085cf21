use clap::Args;
use sealcast::Name;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::ui::Ui;

/// Print the line that others need to join a stream
///
/// It names the bus without credentials, the stream, its owner and a name. It gives no right to
/// read anything.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast ticket boiler")]
pub(crate) struct TicketArgs {
    /// The stream
    #[arg(value_name = "STREAM")]
    stream: Name,
}

#[derive(Serialize)]
struct Line {
    ticket: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &TicketArgs) -> Result<(), CommandError> {
    let (_, stream) = context.stream(ui, &args.stream).await?;
    let ticket = stream.ticket().to_string();
    match ui.is_json() {
        true => ui.json(&Line { ticket }),
        false => ui.data(ticket),
    }
}
