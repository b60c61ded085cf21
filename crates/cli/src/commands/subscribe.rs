use std::collections::BTreeMap;
use std::future;
use std::num::NonZeroU64;

use clap::Args;
use sealcast::{
    AnswerOptions, Delivery, DeviceId, Name, Parked, Position, Reason, Stream, Subscription,
};
use sealcast_agent::{BusState, Messages, StreamLine};
use tokio::time::{Instant, sleep_until};

use crate::agent::{self, Running};
use crate::context::{Context, Names};
use crate::deliveries::{Printer, waits_text};
use crate::error::{CommandError, Outcome};
use crate::signals::asked_to_end;
use crate::time::{DurationArg, TimeArg, now};
use crate::ui::{self, Ui};

/// Follow what is being published
///
/// Prints each message that opens, and a newline, as it comes. Ctrl-C ends it. A message whose key
/// is not here waits on disk, and is printed when the key has come, by this `sub` or a later one.
/// Meanwhile it asks whoever is there for keys that are missing, and gives keys to others who ask,
/// as far as the access log lets it. What did not open is summed up on stderr, and the exit code is
/// 3 then. A bus that goes away while it runs is waited for, and that is said. What a damaged bus
/// cannot show is left out and said once, and the exit code is 5. Where the agent of the home runs, it is followed through it, and no passphrase is asked
/// for.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast sub boiler
  sealcast sub boiler --from -10m --json
  sealcast sub boiler --count 1 --for 30s")]
pub(crate) struct SubArgs {
    /// The stream
    stream: Name,
    /// Begin with what was published at this time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArg>,
    /// End after this many messages, opened or not; one that waited counts again when it opens
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End after this long, such as `30s`
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<DurationArg>,
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: &SubArgs,
) -> Result<Outcome, CommandError> {
    let end = args
        .duration
        .and_then(|duration| Instant::now().checked_add(duration.duration()));
    let from = match args.from {
        None | Some(TimeArg::Now) => None,
        Some(time) => Some(time.position(now())),
    };
    if let Some((agent, messages)) = by_agent(context, args, from).await? {
        return through(ui, &agent, messages, args, end).await;
    }
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let parked = stream.parked().await?.messages;
    if parked > 0 {
        ui.talk(waits_text(&ui::count(parked, "message"), parked));
    }
    let answering = stream.answer(AnswerOptions::default()).await?;
    let mut subscription = stream.subscribe(from).await?;
    let names = Names::of(&home)?;
    let mut printer = Printer::new(ui, names, home.user().to_string(), args.stream.to_string());
    let mut damage = None;
    tokio::select! {
        followed = follow(ui, (&stream, &mut subscription), &mut printer, &mut damage, args.count) => followed?,
        () = at(end) => {}
        ended = asked_to_end() => ended?,
    }
    ui.flush()?;
    drop(answering);
    let waiting = subscription.waiting();
    subscription.finish().await?;
    let outcome = printer.finish_waiting(&waiting);
    ui.alarms(&stream);
    damage.map_or(Ok(outcome), Err)
}

async fn follow(
    ui: &Ui,
    (stream, subscription): (&Stream, &mut Subscription),
    printer: &mut Printer<'_>,
    damage: &mut Option<CommandError>,
    count: Option<NonZeroU64>,
) -> Result<(), CommandError> {
    let no_bar = ui.bar(None, true);
    loop {
        let damages = subscription.damages_passed();
        let delivery = match subscription.next().await {
            Err(error) if subscription.damages_passed() > damages => {
                note_damage(ui, damage, error.into());
                continue;
            }
            Err(error) if error.is_bus_away() => {
                ui.bus_state(BusState::Away);
                stream.wait_for_bus().await?;
                ui.bus_state(BusState::Back);
                continue;
            }
            delivery => delivery?,
        };
        let mut ready = Some(delivery);
        while let Some(delivery) = ready {
            printer.print(&delivery, &no_bar)?;
            if count.is_some_and(|count| printer.messages() >= count.get()) {
                return Ok(());
            }
            ready = subscription.next_ready();
        }
        ui.flush()?;
        ui.alarms(stream);
    }
}

/// Says once that the bus is damaged, and keeps the first error for the end.
fn note_damage(ui: &Ui, damage: &mut Option<CommandError>, error: CommandError) {
    if damage.is_none() {
        ui.bus_state(BusState::Damaged);
        *damage = Some(error);
    }
}

/// The agent of the home, and what it hands out; `None` where none runs, or none any more.
async fn by_agent(
    context: &Context,
    args: &SubArgs,
    from: Option<Position>,
) -> Result<Option<(Running, Messages)>, CommandError> {
    let Some(agent) = agent::of(context).await? else {
        return Ok(None);
    };
    let count = args.count.map(NonZeroU64::get);
    let messages = agent.messages(args.stream.as_str(), from, count).await?;
    Ok(messages.map(|messages| (agent, messages)))
}

/// Follows through the agent of the home, so that both stand at one place.
async fn through(
    ui: &Ui,
    agent: &Running,
    mut messages: Messages,
    args: &SubArgs,
    end: Option<Instant>,
) -> Result<Outcome, CommandError> {
    let stream = args.stream.to_string();
    let (mut waiting, mut damage) = (Waiting::default(), None);
    let mut printer = Printer::new(ui, agent.names()?, agent.user().to_owned(), stream);
    tokio::select! {
        followed = follow_through(ui, &mut messages, &mut printer, (&mut waiting, &mut damage), args.count) => followed?,
        () = at(end) => {}
        ended = asked_to_end() => ended?,
    }
    ui.flush()?;
    let outcome = printer.finish_waiting(&waiting.by_reason());
    damage.map_or(Ok(outcome), Err)
}

/// What was told to wait for its key, and was not told again.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<(DeviceId, u32), Reason>);

impl Waiting {
    fn note(&mut self, delivery: &Delivery) {
        let Some(envelope) = delivery.device.zip(delivery.seq) else {
            return;
        };
        match (delivery.parked, delivery.reason) {
            (Parked::No, _) => {}
            (Parked::Waits, Some(reason)) => drop(self.0.insert(envelope, reason)),
            _ => drop(self.0.remove(&envelope)),
        }
    }

    fn by_reason(&self) -> Vec<(Reason, u64)> {
        let mut counts: Vec<(Reason, u64)> = Vec::new();
        for reason in self.0.values() {
            match counts.iter_mut().find(|(of, _)| of == reason) {
                Some((_, count)) => *count += 1,
                None => counts.push((*reason, 1)),
            }
        }
        counts
    }
}

async fn follow_through(
    ui: &Ui,
    messages: &mut Messages,
    printer: &mut Printer<'_>,
    (waiting, damage): (&mut Waiting, &mut Option<CommandError>),
    count: Option<NonZeroU64>,
) -> Result<(), CommandError> {
    let no_bar = ui.bar(None, true);
    loop {
        match messages.next().await.map_err(agent::lost)? {
            StreamLine::Waiting(0) => {}
            StreamLine::Waiting(parked) => {
                ui.talk(waits_text(&ui::count(parked, "message"), parked));
            }
            StreamLine::Delivery(delivery) => {
                waiting.note(&delivery);
                printer.print(&delivery, &no_bar)?;
                if delivery.parked == Parked::Waited {
                    ui.flush()?;
                    messages.confirm().await.map_err(agent::lost)?;
                }
            }
            StreamLine::Alarm(alarm, hint) => ui.alarm(&alarm, &hint),
            StreamLine::Bus(BusState::Damaged) => note_damage(ui, damage, agent::bus_damaged()),
            StreamLine::Bus(state @ (BusState::Away | BusState::Back)) => ui.bus_state(state),
            StreamLine::End(fault) => return Err(agent::ended(fault)),
        }
        ui.flush()?;
        if count.is_some_and(|count| printer.messages() >= count.get()) {
            messages.end().await;
            return Ok(());
        }
    }
}

/// Waits until a time; for ever without one.
async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => future::pending().await,
    }
}
