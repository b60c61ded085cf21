use clap::Args;
use sealcast::Name;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::time::rfc3339;
use crate::ui::Ui;

/// Make a cut that an interval can begin or end at
///
/// Prints its time. All that was published so far is before it, all that follows is at it or
/// later. Whoever's interval goes on follows at no cost; whoever's has ended does not.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast rotate boiler
  sealcast grant boiler bob --from \"$(sealcast rotate boiler)\"")]
pub(crate) struct RotateArgs {
    /// The stream
    stream: Name,
}

#[derive(Serialize)]
struct Line {
    time: String,
    position: u64,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &RotateArgs) -> Result<(), CommandError> {
    let (_home, stream) = context.stream(ui, &args.stream).await?;
    let cut = stream.rotate().await?;
    if ui.is_json() {
        return ui.json(&Line {
            time: rfc3339(cut),
            position: cut.0,
        });
    }
    ui.data(rfc3339(cut))
}
