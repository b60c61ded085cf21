//! On which condition key nodes release.

use clap::Args;
use sealcast::{Condition, Demand, Name};

use super::keynodes::show_entry;
use crate::context::Context;
use crate::error::CommandError;
use crate::time::{TimeArg, now, rfc3339};
use crate::ui::Ui;

/// Has key nodes release at certain times only
///
/// What holds besides the access log: nothing is released before `--after`, and nothing from `--before` on,
/// by the clocks of the key nodes. With `--when` there may be several spans of time: in any of them they release,
/// and all that stands in one must hold. Without any of these there is no condition any more. It concerns
/// key nodes alone: keyholders go on handing out keys.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.
A SPAN is `after TIME`, `before TIME`, or `after TIME and before TIME`.

Examples:
  sealcast stream condition boiler --after 2027-01-01
  sealcast stream condition boiler --before +90d
  sealcast stream condition boiler --when 'after 2027-01-01 and before 2027-02-01' --when 'after 2030-01-01'
  sealcast stream condition boiler")]
pub(super) struct ConditionArgs {
    /// The stream
    stream: Name,
    /// Nothing is released before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    after: Option<TimeArg>,
    /// Nothing is released from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    before: Option<TimeArg>,
    /// They release in this span of time, and in each other that is given
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["after", "before"])]
    when: Vec<String>,
}

pub(super) async fn run(
    ui: &Ui,
    context: &Context,
    args: &ConditionArgs,
) -> Result<(), CommandError> {
    let condition = condition_of(args)?;
    let (_home, stream) = context.stream(ui, &args.stream).await?;
    let says = text(&condition);
    let id = stream.set_condition(condition).await?;
    show_entry(ui, id)?;
    ui.talk(format!("From now on {says}."));
    Ok(())
}

fn condition_of(args: &ConditionArgs) -> Result<Condition, CommandError> {
    let now = now();
    let after = args
        .after
        .iter()
        .map(|time| Demand::After(time.position(now)));
    let before = args
        .before
        .iter()
        .map(|time| Demand::Before(time.position(now)));
    let plain: Vec<_> = after.chain(before).collect();
    let spans = args.when.iter().map(|span| span_of(span));
    let mut spans = spans.collect::<Result<Vec<_>, _>>()?;
    if !plain.is_empty() {
        spans.push(plain);
    }
    if let Some(none) = spans.iter().find(|span| is_empty(span)) {
        let says = format!("nothing would ever be released {}", span_text(none));
        return Err(CommandError::usage(says));
    }
    spans.sort();
    spans.dedup();
    Ok(Condition(spans))
}

/// Reads what stands in a `--when`.
fn span_of(text: &str) -> Result<Vec<Demand>, CommandError> {
    let wrong = || {
        let says = format!("this is no span of time: {text}");
        let hint = "say `after TIME`, `before TIME`, or `after TIME and before TIME`";
        CommandError::usage(says).with_hint(hint)
    };
    let now = now();
    let demand = |text: &str| {
        let (kind, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let time: TimeArg = time.trim().parse().map_err(|_| wrong())?;
        match kind {
            "after" => Ok(Demand::After(time.position(now))),
            "before" => Ok(Demand::Before(time.position(now))),
            _ => Err(wrong()),
        }
    };
    let mut all = text
        .split(" and ")
        .map(demand)
        .collect::<Result<Vec<_>, _>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}

/// Whether no time is in a span.
fn is_empty(span: &[Demand]) -> bool {
    let begins = span.iter().filter_map(|of| match of {
        Demand::After(time) => Some(*time),
        Demand::Before(_) => None,
    });
    let ends = span.iter().filter_map(|of| match of {
        Demand::Before(time) => Some(*time),
        Demand::After(_) => None,
    });
    begins
        .max()
        .zip(ends.min())
        .is_some_and(|(from, until)| from >= until)
}

/// A condition in plain words.
pub(super) fn text(condition: &Condition) -> String {
    match condition.0.as_slice() {
        [] => "key nodes release whenever the access log allows it".to_owned(),
        of => {
            let any: Vec<_> = of.iter().map(|span| span_text(span)).collect();
            format!(
                "key nodes release {}, and nothing at other times",
                any.join(", and ")
            )
        }
    }
}

fn span_text(span: &[Demand]) -> String {
    let demand = |of: &Demand| match of {
        Demand::After(time) => format!("not before {}", rfc3339(*time)),
        Demand::Before(time) => format!("no more from {} on", rfc3339(*time)),
    };
    let all: Vec<_> = span.iter().map(demand).collect();
    all.join(" and ")
}
