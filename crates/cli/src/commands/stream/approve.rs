//! Approving of those whom key nodes release to.

use clap::Args;
use sealcast::{Name, Position};

use super::keynodes::show_entry;
use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::{TimeArg, now, rfc3339};
use crate::ui::Ui;

/// Say that key nodes may release to a user, where their condition asks for your approval
///
/// `sealcast stream condition` says whose approvals they ask for, and how many. It gives nobody a right to
/// read: that is what `sealcast grant` is for. Whoever is revoked needs it anew, and what you approved of is
/// void when you are: then `sealcast stream condition` has to name you anew.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast stream approve boiler bob
  sealcast stream approve boiler bob --until +7d
  sealcast stream approve boiler bob --withdraw")]
pub(super) struct ApproveArgs {
    /// The stream
    stream: Name,
    /// Contact or user id to whom they may release
    user: String,
    /// Up to this time, by the clocks of the key nodes [default: without an end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<TimeArg>,
    /// Take back what you approved of
    #[arg(long, conflicts_with = "until")]
    withdraw: bool,
}

pub(super) async fn run(
    ui: &Ui,
    context: &Context,
    args: &ApproveArgs,
) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let user = user_of(&home, &args.user)?;
    let until = match (args.withdraw, args.until) {
        (true, _) => Position::START,
        (false, None) => Position::END,
        (false, Some(time)) => time.position(now()),
    };
    let id = stream.approve_release(user, until).await?;
    show_entry(ui, id)?;
    let names = Names::of(&home)?;
    let whom = names.call(&user);
    let said = stream.release_approvals(&user).into_iter();
    let said = said.map(|(by, until)| match until {
        Position::END => names.call(&by),
        until => format!("{} until {}", names.call(&by), rfc3339(until)),
    });
    let said: Vec<_> = said.collect();
    ui.talk(match said.is_empty() {
        true => format!("Nobody approves that key nodes release to {whom}."),
        false => format!(
            "That key nodes release to {whom} approve: {}.",
            said.join(", ")
        ),
    });
    Ok(())
}
