use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::ui::Ui;

/// Print your user id, for others to grant to
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast id
  sealcast id --json")]
pub(crate) struct IdArgs {}

#[derive(Serialize)]
struct Line {
    user: String,
    device: String,
    name: Option<String>,
}

pub(crate) async fn run(ui: &Ui, context: &Context, _: &IdArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    if ui.is_json() {
        return ui.json(&Line {
            user: home.user().to_string(),
            device: home.device().to_string(),
            name: home.name().map(ToString::to_string),
        });
    }
    ui.data(home.user().to_string())
}
