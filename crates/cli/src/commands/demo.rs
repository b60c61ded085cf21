use clap::Args;

use crate::demo;
use crate::error::CommandError;
use crate::ui::Ui;

/// Watch the whole of it work, in temporary folders
///
/// Two people share one folder as their bus. One publishes a year of synthetic measurements and
/// this machine's own load, sealed; the other can read none of it. Then a week of the past is
/// granted, when the publisher has ended, and exactly that week opens. Every line comes from
/// commands that really ran, each a process of its own. Takes less than half a minute and leaves
/// nothing behind.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast demo
  sealcast demo --keep")]
pub(crate) struct DemoArgs {
    /// Leave the folders in place
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
    demo::run(ui, args.keep).await
}
