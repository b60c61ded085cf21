//! Approving of those whom key nodes release to.

use clap::Args;
use sealcast::{Home, Name, Position, Stream};

use super::approvals::{ReaderLine, approved_text, missing_text, show};
use super::keynodes::show_entry;
use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::{TimeArg, now};
use crate::ui::Ui;

/// Say that key nodes may release to a user, where their condition asks for your approval
///
/// Without a USER it shows which readers wait for your approval. `sealcast stream condition` shows whose approvals are asked
/// for, how many, and who gave them. An approval gives nobody a right to read: that is what `sealcast grant` is for. It is
/// for all that the user may read, then and later, until you withdraw it, a grant of the user is revoked, or a condition
/// is set that does not name you. What is published after that opens by no key node; what was published before may have been
/// read. When you are revoked yourself, a condition has to name you anew first.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast stream approve boiler
  sealcast stream approve boiler bob
  sealcast stream approve boiler bob --until +7d
  sealcast stream approve boiler bob --withdraw")]
pub(super) struct ApproveArgs {
    /// The stream
    stream: Name,
    /// Contact or user id to whom they may release
    user: Option<String>,
    /// Up to this time, by the clocks of the key nodes [default: without an end]
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        requires = "user"
    )]
    until: Option<TimeArg>,
    /// Take back what you approved of; also when you are not asked any more
    #[arg(long, conflicts_with = "until", requires = "user")]
    withdraw: bool,
}

pub(super) async fn run(
    ui: &Ui,
    context: &Context,
    args: &ApproveArgs,
) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let names = Names::of(&home)?;
    let Some(user) = &args.user else {
        return show_waiting(ui, &stream, &home, &names).await;
    };
    let user = user_of(&home, user)?;
    let until = match (args.withdraw, args.until) {
        (true, _) => Position::START,
        (false, None) => Position::END,
        (false, Some(time)) => time.position(now()),
    };
    let id = stream.approve_release(user, until).await?;
    show_entry(ui, id)?;
    let whom = names.call(&user);
    let said = stream.release_approvals(&user);
    let said = approved_text(&said, |by| names.call(by));
    ui.talk(match said.is_empty() {
        true => format!("Nobody approves that key nodes release to {whom}."),
        false => format!("That key nodes release to {whom} is approved by: {said}."),
    });
    let readers = stream.reader_approvals();
    if let Some(reader) = readers.iter().find(|of| of.user == user && !of.releases) {
        let waits = missing_text(reader, |by| names.call(by));
        ui.talk(format!("Still missing: {waits}."));
    } else if !readers.iter().any(|of| of.user == user) {
        ui.talk(format!("No grant lets {whom} read anything so far."));
    }
    Ok(())
}

/// Shows readers of whom this user's approval is missing.
async fn show_waiting(
    ui: &Ui,
    stream: &Stream,
    home: &Home,
    names: &Names,
) -> Result<(), CommandError> {
    stream.sync().await?;
    ui.alarms(stream);
    let (me, condition) = (home.user(), stream.release_condition());
    let is_asked = condition.is_some_and(|(_, of)| of.approvers().any(|of| of == me));
    let mut readers = stream.reader_approvals();
    readers.retain(|of| of.waits_for(&me));
    if ui.is_json() {
        return readers
            .iter()
            .try_for_each(|of| ui.json(&ReaderLine::from(of)));
    }
    match readers.is_empty() {
        true if is_asked => ui.talk("Nobody waits for your approval."),
        true => ui.talk("Key nodes do not ask for your approval."),
        false => {
            show(ui, names, &readers)?;
            ui.flush()?;
            ui.hint("approve with `sealcast stream approve STREAM READER`, if you know whom you approve of");
        }
    }
    Ok(())
}
