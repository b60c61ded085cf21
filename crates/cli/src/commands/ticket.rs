use clap::Args;
use sealcast::{BusUrl, Name, Ticket};
use serde::Serialize;

use crate::context::{Context, bus_here};
use crate::error::CommandError;
use crate::ui::Ui;

/// Print the line that others need to join a stream
///
/// It names the bus without credentials, the stream, its owner and a name. It gives no right to
/// read anything.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast ticket boiler
  sealcast ticket boiler --bus file:/srv/archive")]
pub(crate) struct TicketArgs {
    /// The stream
    #[arg(value_name = "STREAM")]
    stream: Name,
    /// Name another bus that has a copy of the stream, such as an archive
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
}

#[derive(Serialize)]
struct Line {
    ticket: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &TicketArgs) -> Result<(), CommandError> {
    let bus = args.bus.as_deref().map(BusUrl::parse).transpose();
    let bus = bus_here(bus.map_err(sealcast::Error::BusUrl)?.as_ref())?;
    let (_, stream) = context.stream(ui, &args.stream).await?;
    let own = stream.ticket();
    let ticket = match bus {
        None => own.to_string(),
        Some(bus) => {
            let other = Ticket::new(
                &bus.to_string(),
                own.stream(),
                own.owner(),
                own.name().clone(),
            );
            other.map_err(sealcast::Error::Ticket)?.to_string()
        }
    };
    match ui.is_json() {
        true => ui.json(&Line { ticket }),
        false => ui.data(ticket),
    }
}
