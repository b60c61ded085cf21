use clap::Args;
use sealcast::{Archived, BusCopy, BusUrl, Home, Name, StreamCopy, Ticket};
use serde::Serialize;

use super::parse;
use crate::context::Context;
use crate::error::{CommandError, Kind};
use crate::shell::quoted;
use crate::ui::{Bar, Ui, bytes, count};

/// How often to look whether more has come meanwhile.
const ROUNDS_MAX: usize = 16;

/// Carry streams to another bus, still sealed
///
/// Copies messages, access logs, device lists and keys as they lie there, item by item, until
/// nothing is left. No key is needed, and readers go on with those that they have. What is there
/// already is not copied again: run it again after whatever stopped it, and to carry what came
/// since. Where TO does not exist yet, make it with `sealcast bus setup`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast bus copy file:/srv/bus nats://broker.example/plant
  sealcast bus copy file:/srv/bus nats://broker.example/plant boiler --switch
  sealcast bus copy file:/srv/bus file:/mnt/bus sealcast1:...")]
pub(crate) struct CopyArgs {
    /// The bus that has them
    from: String,
    /// The bus to carry them to
    to: String,
    /// Streams, by name or by ticket; all of this home that are on FROM where not given
    #[arg(value_name = "STREAM")]
    streams: Vec<String>,
    /// Then have this home use TO for them, and, where no streams are named, for new ones
    #[arg(long)]
    switch: bool,
}

#[derive(Serialize)]
struct Line {
    name: String,
    stream: String,
    items: u64,
    bytes: u64,
    differed: bool,
    switched: bool,
}

/// One stream on its way.
struct Carried {
    name: Name,
    ticket: Ticket,
    copy: StreamCopy,
    sum: Archived,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &CopyArgs) -> Result<(), CommandError> {
    let (from, to) = (parse(&args.from)?, parse(&args.to)?);
    let is_of_tickets = !args.streams.is_empty() && args.streams.iter().all(|of| is_ticket(of));
    let home = match is_of_tickets && !args.switch {
        true => None,
        false => Some(context.open().await?),
    };
    let wanted = wanted(home.as_ref(), &from, args)?;
    let buses = BusCopy::open(&from, &to, &context.home_path()?).await?;
    let mut carried = Vec::new();
    for (name, ticket) in wanted {
        carried.push(Carried {
            copy: buses.stream(&ticket).await?,
            name,
            ticket,
            sum: Archived::default(),
        });
    }
    let bar = ui.bar(Some(0), false);
    carry(&mut carried, &bar).await?;
    if let Some(home) = home.as_ref().filter(|_| args.switch) {
        for of in &carried {
            home.switch_stream(&of.name, &buses).await?;
        }
        if args.streams.is_empty() && *home.bus() == from {
            home.switch_bus(&to).await?;
        }
        // What processes of this home published in between.
        carry(&mut carried, &bar).await?;
    }
    bar.clear();
    show(ui, &carried, args.switch)?;
    say_what_remains(ui, &from, &to, &carried, args.switch);
    Ok(())
}

fn is_ticket(text: &str) -> bool {
    text.trim_start().starts_with("sealcast1:")
}

fn wanted(
    home: Option<&Home>,
    from: &BusUrl,
    args: &CopyArgs,
) -> Result<Vec<(Name, Ticket)>, CommandError> {
    let mut wanted = Vec::new();
    for text in &args.streams {
        if is_ticket(text) {
            if args.switch {
                return Err(CommandError::usage(
                    "`--switch` takes streams of this home, by their names",
                ));
            }
            let ticket: Ticket = text.parse().map_err(sealcast::Error::Ticket)?;
            wanted.push((ticket.name().clone(), ticket));
        } else if let Some(home) = home {
            let unknown = || sealcast::Error::NoStream(text.clone());
            let name: Name = text.parse().map_err(|_| unknown())?;
            wanted.push((name.clone(), home.ticket(&name)?));
        }
    }
    if let Some(home) = home.filter(|_| args.streams.is_empty()) {
        for of in home.streams_on(from)? {
            wanted.push((of.name.clone(), home.ticket(&of.name)?));
        }
        // A home without any may make new ones there.
        if wanted.is_empty() && !(args.switch && home.bus() == from) {
            let says = format!("no stream of this home is on that bus: {from}");
            let error = CommandError::new(Kind::Missing, "stream.unknown", says);
            return Err(error.with_hint("`sealcast stream list` shows where they are"));
        }
    }
    Ok(wanted)
}

/// Copies until nothing is left.
async fn carry(carried: &mut [Carried], bar: &Bar) -> Result<(), CommandError> {
    let mut left = 0;
    for _ in 0..ROUNDS_MAX {
        left = 0;
        for of in &mut *carried {
            left += of.copy.look().await?;
        }
        let has_mended = drain(carried, bar, left).await?;
        if left == 0 && !has_mended {
            return Ok(());
        }
    }
    let says =
        format!("FROM is written to faster than it is copied: {left} items in the last round");
    let error = CommandError::new(Kind::Bus, "copy.behind", says);
    Err(error.with_hint("stop what publishes there, then run it again"))
}

/// Copies what there was at the last look; whether there was anything.
async fn drain(carried: &mut [Carried], bar: &Bar, left: u64) -> Result<bool, CommandError> {
    let done = |carried: &[Carried]| carried.iter().map(|of| of.sum.items).sum::<u64>();
    let before = done(carried);
    for at in 0..carried.len() {
        while let Some(step) = match carried.get_mut(at) {
            Some(of) => of.copy.next().await?,
            None => None,
        } {
            if let Some(of) = carried.get_mut(at) {
                of.sum.items += step.items;
                of.sum.bytes += step.bytes;
                of.sum.differed |= step.differed;
            }
            bar.set(done(carried), before + left);
        }
    }
    Ok(done(carried) > before)
}

fn show(ui: &Ui, carried: &[Carried], switched: bool) -> Result<(), CommandError> {
    if ui.is_json() {
        return carried.iter().try_for_each(|of| {
            ui.json(&Line {
                name: of.name.to_string(),
                stream: of.ticket.stream().to_string(),
                items: of.sum.items,
                bytes: of.sum.bytes,
                differed: of.sum.differed,
                switched,
            })
        });
    }
    let rows = carried.iter().map(|of| {
        let (items, size) = (count(of.sum.items, "item"), bytes(of.sum.bytes));
        [of.name.to_string(), items, size]
    });
    ui.table(&rows.collect::<Vec<_>>())?;
    ui.flush()
}

fn say_what_remains(ui: &Ui, from: &BusUrl, to: &BusUrl, carried: &[Carried], switched: bool) {
    if carried.iter().any(|of| of.sum.differed) {
        ui.talk("TO had other items, too; it keeps them, and what it lacked is there now.");
    }
    let [from, to] = [from, to].map(|bus| quoted(&bus.to_string()));
    if !switched {
        ui.talk("All of it is on TO. This home goes on using FROM.");
        ui.hint(format!(
            "stop what publishes, then `sealcast bus copy {from} {to} --switch` carries the rest and \
             has this home use TO"
        ));
        return;
    }
    ui.talk("All of it is on TO, and this home uses TO from now on. Start `sub` and `pub` anew.");
    if carried.is_empty() {
        return;
    }
    ui.hint("others join again, with the ticket that `sealcast ticket STREAM` prints now");
    let names = carried.iter().map(|of| quoted(of.name.as_str()));
    let names = names.collect::<Vec<_>>().join(" ");
    ui.hint(format!(
        "what they publish on FROM until then is carried by `sealcast bus copy {from} {to} {names}`"
    ));
}
