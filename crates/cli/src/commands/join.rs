use clap::Args;
use sealcast::{Name, Ticket};
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::shell::quoted;
use crate::ui::Ui;

/// Join a stream by its ticket
///
/// This publishes the card of this device on the stream's bus, so that keys can be sealed for
/// it, and prints the name that the stream has in this home.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast join sealcast1:...
  sealcast join sealcast1:... --as boiler")]
pub(crate) struct JoinArgs {
    /// The line that `sealcast ticket` prints
    ticket: Ticket,
    /// What to call the stream here; what the ticket calls it where not given
    #[arg(long = "as", value_name = "NAME")]
    name: Option<Name>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    stream: String,
    owner: String,
    bus: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &JoinArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    let stream = home.join(&args.ticket, args.name.as_ref()).await?;
    ui.alarms(&stream);
    if ui.is_json() {
        return ui.json(&Line {
            name: stream.name().to_string(),
            stream: stream.id().to_string(),
            owner: args.ticket.owner().to_string(),
            bus: args.ticket.bus().to_owned(),
        });
    }
    ui.data(stream.name().as_str())?;
    ui.flush()?;
    ui.talk(format!(
        "Joined. Its owner can grant to you: {}",
        home.user()
    ));
    ui.hint(format!(
        "read what you were granted with `sealcast read {}`",
        quoted(stream.name().as_str())
    ));
    Ok(())
}
