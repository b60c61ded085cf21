use clap::Args;
use sealcast::{AskingCounts, Name, RefusalReason, RequestEnd, RequestOptions, Requested};
use serde::Serialize;

use crate::commands::stream::tell_nodes_said;
use crate::context::{Context, Names};
use crate::error::{CommandError, Outcome};
use crate::time::{DurationArg, TimeArg, interval};
use crate::ui::{Ui, count};

/// How long to wait where nothing else is said.
const WAIT_MS: u64 = 30_000;

/// Ask for the keys of what does not open
///
/// Asks whoever is there and may hand the keys out: the publisher, an owner or admin, a reader who
/// may reshare. They answer while one of their commands runs that follows a stream, such as
/// `sub`. Prints `opened` when everything in the interval opens, also where nothing was missing;
/// otherwise the exit code is 3 for `partly` and `timed-out`, and 4 for `refused`. What no grant
/// covers may be asked for as well: where somebody decides on it later, this waits for a yes.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast request boiler
  sealcast request boiler --from -7d --wait 10m
  sealcast request boiler --from 2026-03-01 --until 2026-03-08 --json")]
pub(crate) struct RequestArgs {
    /// The stream
    stream: Name,
    /// Ask for what was published from this time on [default: start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArg>,
    /// Ask for what was published up to this time [default: the end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<TimeArg>,
    /// Wait this long for an answer [default: 30s]
    #[arg(long, value_name = "DURATION")]
    wait: Option<DurationArg>,
}

#[derive(Serialize)]
struct Line {
    end: &'static str,
    missing: usize,
    opened: usize,
    reason: Option<&'static str>,
    key_nodes: KeyNodes,
    others: Others,
}

/// What asking key nodes came to.
#[derive(Serialize)]
struct KeyNodes {
    asked: u64,
    segments: u64,
}

/// What asking others came to.
#[derive(Serialize)]
struct Others {
    asked: u64,
    given: u64,
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: &RequestArgs,
) -> Result<Outcome, CommandError> {
    let interval = interval(args.from, args.until)?;
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let wait = args.wait.unwrap_or(DurationArg { ms: WAIT_MS });
    let options = RequestOptions {
        interval,
        wait: wait.duration(),
    };
    let requested = stream.request(options).await?;
    ui.alarms(&stream);
    tell(ui, &requested, &home.asked())?;
    if requested.end != RequestEnd::Opened {
        tell_nodes_said(ui, &stream, &Names::of(&home)?, &requested.nodes);
    }
    Ok(match requested.end {
        RequestEnd::Opened => Outcome::Done,
        RequestEnd::Partly | RequestEnd::TimedOut => Outcome::NotAllOpened,
        RequestEnd::Refused(_) => Outcome::Refused,
    })
}

fn tell(ui: &Ui, requested: &Requested, asked: &AskingCounts) -> Result<(), CommandError> {
    let (end, reason) = words(requested.end);
    if ui.is_json() {
        return ui.json(&Line {
            end,
            missing: requested.missing,
            opened: requested.opened,
            reason,
            key_nodes: KeyNodes {
                asked: asked.nodes.requests,
                segments: asked.nodes.segments,
            },
            others: Others {
                asked: asked.others.requests,
                given: asked.others.opened,
            },
        });
    }
    ui.data(end)?;
    ui.flush()?;
    let missing = count(requested.missing as u64, "session");
    match requested.end {
        RequestEnd::Opened if requested.missing == 0 => ui.talk("No key was missing."),
        RequestEnd::Opened => ui.talk(format!("The keys came, of: {missing}")),
        RequestEnd::Partly => ui.talk(format!(
            "The keys of {} came, of these that were missing: {missing}",
            requested.opened
        )),
        RequestEnd::TimedOut => {
            ui.talk("Nobody gave keys in this time.");
            ui.hint(
                "somebody who holds them must follow the stream meanwhile: `sealcast sub STREAM`",
            );
        }
        RequestEnd::Refused(reason) => ui.talk(match reason {
            RefusalReason::NotEntitled => "Refused: no grant of yours covers the time.",
            RefusalReason::UnknownSession => "Refused: the session is not known there.",
            RefusalReason::PendingApproval => {
                "Somebody was asked and has not decided yet. A yes is a grant, and brings the keys."
            }
        }),
    }
    Ok(())
}

/// The stable name of how a request ended, and of the reason.
fn words(end: RequestEnd) -> (&'static str, Option<&'static str>) {
    match end {
        RequestEnd::Opened => ("opened", None),
        RequestEnd::Partly => ("partly", None),
        RequestEnd::TimedOut => ("timed-out", None),
        RequestEnd::Refused(RefusalReason::NotEntitled) => ("refused", Some("not-entitled")),
        RequestEnd::Refused(RefusalReason::UnknownSession) => ("refused", Some("unknown-session")),
        RequestEnd::Refused(RefusalReason::PendingApproval) => {
            ("refused", Some("pending-approval"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_end_and_every_reason() {
        let page = include_str!("../../../../docs/reference/command-line.md");
        let refused = [
            RefusalReason::NotEntitled,
            RefusalReason::UnknownSession,
            RefusalReason::PendingApproval,
        ]
        .map(RequestEnd::Refused);
        let ends = [RequestEnd::Opened, RequestEnd::Partly, RequestEnd::TimedOut];
        for end in ends.into_iter().chain(refused) {
            let (end, reason) = words(end);
            for word in std::iter::once(end).chain(reason) {
                assert!(page.contains(&format!("`{word}`")), "{word}");
            }
        }
    }
}
