use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use sealcast::{BusError, Error, Name, RequestOptions};

use crate::commands::stream::tell_nodes_said;
use crate::context::{Context, Names};
use crate::deliveries::Printer;
use crate::error::{CommandError, Outcome};
use crate::time::{TimeArg, interval};
use crate::ui::Ui;

/// How long key nodes have to release what does not open.
const UNLOCK_FOR: Duration = Duration::from_secs(60);

/// Read what was published, then end
///
/// Prints each message that opens, and a newline. What does not open is summed up on stderr, and
/// the exit code is 3 then. Where the bus is damaged, what can still be read is printed, and the
/// exit code is 5. A message's time is its publisher's; an interval takes in its
/// beginning and leaves out its end.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast read boiler
  sealcast read boiler --from -2h
  sealcast read boiler --from 2026-03-01 --until 2026-03-08 --json")]
pub(crate) struct ReadArgs {
    /// The stream
    stream: Name,
    /// Read from this time on [default: start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArg>,
    /// Read up to this time [default: the end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<TimeArg>,
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: &ReadArgs,
) -> Result<Outcome, CommandError> {
    let interval = interval(args.from, args.until)?;
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let unlock = RequestOptions {
        interval,
        wait: UNLOCK_FOR,
    };
    let said = stream.unlock(unlock).await?;
    let mut reader = stream.read(interval).await?;
    let names = Names::of(&home)?;
    let mut printer = Printer::new(ui, names, home.user().to_string(), args.stream.to_string());
    let bar = ui.bar(Some(reader.progress().1), io::stdout().is_terminal());
    let (mut told, mut damage): (u64, _) = (0, None);
    loop {
        match reader.next().await {
            Ok(Some(delivery)) => printer.print(&delivery, &bar)?,
            Ok(None) => break,
            // What lies behind the damage is read all the same.
            Err(error @ Error::Bus(BusError::Damaged { .. })) => {
                damage = damage.or(Some(error));
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        told += 1;
        while let Some(lent) = reader.lend() {
            printer.print_lent(&lent, &bar)?;
            told += 1;
        }
        let (seen, total) = reader.progress();
        bar.set(seen, total);
    }
    bar.clear();
    ui.flush()?;
    if told == 0 && damage.is_none() {
        ui.talk("Nothing was published in this interval.");
    }
    let outcome = printer.finish();
    if outcome == Outcome::NotAllOpened {
        tell_nodes_said(ui, &stream, &Names::of(&home)?, &said);
    }
    ui.alarms(&stream);
    damage.map_or(Ok(outcome), |damage| Err(damage.into()))
}
