//! On which condition key nodes release.

use clap::Args;
use sealcast::{Approvers, Condition, Demand, Home, Name, Position, Stream, UserId};
use serde::Serialize;

use super::approvals::{self, ReaderLine};
use super::keynodes::{show_entry, tell_void};
use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::{TimeArg, now, rfc3339};
use crate::ui::Ui;

/// Show or set the condition on which key nodes release, besides what the access log says
///
/// Without options it shows the condition, who approved of which reader, and what is missing. A new condition takes the
/// place of the one before. With `--after` nothing is released before that time, with `--before` nothing from that time
/// on, by the clocks of the key nodes. With `--approved-by` so many of those people must approve of the reader, with
/// `sealcast stream approve`; what was approved by others is over. With `--when` there may be several such conditions: they
/// release where any of them holds, and all that stands in one must hold. What is published after a `--before`,
/// or after an approval ended, opens by no key node. For that, under such a condition, they release nothing before a minute or so
/// has passed since it was published, and who follows the stream is behind by as much, unless a keyholder is there. Publishers begin
/// another session when they know of a new condition. It concerns key nodes alone: keyholders go on handing out keys, and an
/// owner or admin may set another one.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.
A SPAN is `after TIME`, `before TIME`, `approved by SOME`, or several with ` and ` between them.
SOME is so many of some contacts or user ids, such as `2 of ada bob cy`.

Examples:
  sealcast stream condition boiler
  sealcast stream condition boiler --after 2027-01-01
  sealcast stream condition boiler --before +90d
  sealcast stream condition boiler --approved-by '2 of ada bob cy'
  sealcast stream condition boiler --when 'after 2027-01-01 and before 2027-02-01' --when 'after 2030-01-01'
  sealcast stream condition boiler --none")]
pub(super) struct ConditionArgs {
    /// The stream
    stream: Name,
    #[command(flatten)]
    spans: SpanArgs,
    /// Have no condition any more
    #[arg(long, conflicts_with_all = ["after", "before", "approved_by", "when"])]
    none: bool,
}

// What is said above it would be said of the command.
#[derive(Args, Debug)]
pub(super) struct SpanArgs {
    /// Nothing is released before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    after: Option<TimeArg>,
    /// Nothing is released from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    before: Option<TimeArg>,
    /// Nothing is released but to those of whom so many approve, such as `2 of ada bob cy`
    #[arg(long, value_name = "SOME")]
    approved_by: Option<String>,
    /// They release where this holds, or another `--when` that is given
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["after", "before", "approved_by"])]
    when: Vec<String>,
}

/// Says what a condition that can end costs those who follow, and whether it has ended.
pub(super) fn tell_end(ui: &Ui, condition: &Condition) {
    if is_over(condition, now()) {
        ui.warn("the time for it is over, so key nodes release nothing any more");
    } else if condition.can_end() {
        ui.talk(
            "It can end, so they release what is published when about a minute has passed: who follows the stream is \
             behind by as much, unless a keyholder is there.",
        );
    }
}

/// Whether no alternative can hold any more.
fn is_over(condition: &Condition, now: Position) -> bool {
    let has_ended = |of: &Demand| matches!(of, Demand::Before(at) if *at <= now);
    let mut alternatives = condition.0.iter();
    !condition.0.is_empty() && alternatives.all(|of| of.iter().any(has_ended))
}

#[derive(Serialize)]
struct Line {
    entry: String,
    condition: String,
    readers: Vec<ReaderLine>,
}

pub(super) async fn run(
    ui: &Ui,
    context: &Context,
    args: &ConditionArgs,
) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let names = Names::of(&home)?;
    let call = |user: &UserId| names.call(user);
    let condition = condition_of(&args.spans, &home, call)?;
    if condition.0.is_empty() && !args.none {
        return show(ui, &stream, &names).await;
    }
    let says = text(&condition, call);
    let id = stream.set_condition(condition.clone()).await?;
    show_entry(ui, id)?;
    ui.talk(format!("From now on {says}."));
    tell_end(ui, &condition);
    Ok(())
}

/// Shows the condition, and how readers stand with it.
async fn show(ui: &Ui, stream: &Stream, names: &Names) -> Result<(), CommandError> {
    stream.sync().await?;
    ui.alarms(stream);
    tell_void(ui, stream);
    let Some((entry, condition)) = stream.release_condition() else {
        return Err(sealcast::Error::KeyNodes("the stream has no key nodes").into());
    };
    let readers = stream.reader_approvals();
    if ui.is_json() {
        return ui.json(&Line {
            entry: entry.to_string(),
            condition: text(&condition, ToString::to_string),
            readers: readers.iter().map(ReaderLine::from).collect(),
        });
    }
    ui.data(text(&condition, |user| names.call(user)))?;
    tell_end(ui, &condition);
    if !condition.0.is_empty() && !readers.is_empty() {
        approvals::show(ui, names, &readers)?;
    }
    Ok(())
}

/// The condition that was given; an empty one where none was.
pub(super) fn condition_of(
    args: &SpanArgs,
    home: &Home,
    call: impl Fn(&UserId) -> String,
) -> Result<Condition, CommandError> {
    let now = now();
    let after = args
        .after
        .iter()
        .map(|time| Demand::After(time.position(now)));
    let before = args
        .before
        .iter()
        .map(|time| Demand::Before(time.position(now)));
    let approved = args.approved_by.iter().map(|some| approved_of(some, home));
    let approved = approved.collect::<Result<Vec<_>, _>>()?;
    let plain: Vec<_> = after.chain(before).chain(approved).collect();
    let spans = args.when.iter().map(|span| span_of(span, home));
    let mut spans = spans.collect::<Result<Vec<_>, _>>()?;
    if !plain.is_empty() {
        spans.push(plain);
    }
    if let Some(none) = spans.iter().find(|span| is_empty(span)) {
        let says = format!("nothing would ever be released {}", span_text(none, &call));
        return Err(CommandError::usage(says));
    }
    spans.sort();
    spans.dedup();
    Ok(Condition(spans))
}

/// Reads what stands in a `--when`.
fn span_of(text: &str, home: &Home) -> Result<Vec<Demand>, CommandError> {
    let wrong = || {
        let says = format!("this is no condition: {text}");
        let hint = "say `after TIME`, `before TIME`, `approved by 2 of ada bob cy`, or several with ` and ` \
                    between them";
        CommandError::usage(says).with_hint(hint)
    };
    let now = now();
    let demand = |text: &str| {
        let (kind, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
        if let ("approved", Some(some)) = (kind, time.trim().strip_prefix("by ")) {
            return approved_of(some, home);
        }
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

/// Reads of whom so many must approve.
fn approved_of(text: &str, home: &Home) -> Result<Demand, CommandError> {
    let wrong = || {
        let says = format!("these are no approvals: {text}");
        CommandError::usage(says).with_hint("say how many of whom: `2 of ada bob cy`")
    };
    let (needed, of) = text.trim().split_once(" of ").ok_or_else(wrong)?;
    let needed: u8 = needed.trim().parse().map_err(|_| wrong())?;
    let of = of.split([' ', ',']).filter(|name| !name.is_empty());
    let of = of.map(|name| user_of(home, name));
    let mut of = of.collect::<Result<Vec<_>, _>>()?;
    of.sort();
    of.dedup();
    if needed == 0 || usize::from(needed) > of.len() {
        let says = format!("{needed} of {} cannot approve: {text}", of.len());
        return Err(CommandError::usage(says));
    }
    Ok(Demand::Approved(Approvers { needed, of }))
}

/// Whether no time is in a span.
fn is_empty(span: &[Demand]) -> bool {
    let begins = span.iter().filter_map(|of| match of {
        Demand::After(time) => Some(*time),
        Demand::Before(_) | Demand::Approved(_) => None,
    });
    let ends = span.iter().filter_map(|of| match of {
        Demand::Before(time) => Some(*time),
        Demand::After(_) | Demand::Approved(_) => None,
    });
    begins
        .max()
        .zip(ends.min())
        .is_some_and(|(from, until)| from >= until)
}

/// A condition in plain words.
pub(super) fn text(condition: &Condition, call: impl Fn(&UserId) -> String) -> String {
    match condition.0.as_slice() {
        [] => "key nodes release whenever the access log allows it".to_owned(),
        of => {
            let any: Vec<_> = of.iter().map(|span| span_text(span, &call)).collect();
            format!(
                "key nodes release {}, and nothing otherwise",
                any.join(", or ")
            )
        }
    }
}

fn span_text(span: &[Demand], call: &impl Fn(&UserId) -> String) -> String {
    let time = |of: &Demand| match of {
        Demand::After(time) => Some(format!("from {} on", rfc3339(*time))),
        Demand::Before(time) => Some(format!("until {}", rfc3339(*time))),
        Demand::Approved(_) => None,
    };
    let people = |of: &Demand| match of {
        Demand::Approved(Approvers { of, .. }) if of.len() == 1 => {
            of.first().map(|of| format!("approved by {}", call(of)))
        }
        Demand::Approved(_) => Some(format!("approved by {}", demand_text(of, call))),
        Demand::After(_) | Demand::Before(_) => None,
    };
    let times: Vec<_> = span.iter().filter_map(time).collect();
    let people: Vec<_> = span.iter().filter_map(people).collect();
    match (times.is_empty(), people.is_empty()) {
        (_, true) => times.join(" and "),
        (true, false) => format!("to readers who are {}", people.join(" and ")),
        (false, false) => {
            let (times, people) = (times.join(" and "), people.join(" and "));
            format!("{times} to readers who are {people}")
        }
    }
}

/// One demand in a few words.
pub(super) fn demand_text(demand: &Demand, call: &impl Fn(&UserId) -> String) -> String {
    match demand {
        Demand::After(time) => format!("after {}", rfc3339(*time)),
        Demand::Before(time) => format!("before {}", rfc3339(*time)),
        Demand::Approved(Approvers { needed, of }) => {
            let of: Vec<_> = of.iter().map(call).collect();
            format!("{needed} of {}", of.join(", "))
        }
    }
}
