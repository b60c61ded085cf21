use clap::Args;
use sealcast::Name;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::ui::Ui;

/// Start a new session for what you publish next
///
/// The new session is given to those who are still entitled. Do this when a key may have got
/// out; grants and revocations need no rekey by hand.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast rekey boiler")]
pub(crate) struct RekeyArgs {
    /// The stream
    stream: Name,
}

#[derive(Serialize)]
struct Line {
    stream: String,
    rekeyed: bool,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &RekeyArgs) -> Result<(), CommandError> {
    let (_home, stream) = context.stream(ui, &args.stream).await?;
    stream.rekey().await?;
    if ui.is_json() {
        return ui.json(&Line {
            stream: args.stream.to_string(),
            rekeyed: true,
        });
    }
    ui.talk(format!("A new session begins in: `{}`", args.stream));
    Ok(())
}
