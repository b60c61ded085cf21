use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use clap::Args;
use sealcast::{BusUrl, Name, PairingCode};

use super::tell;
use crate::context::{Context, bus_here};
use crate::error::CommandError;
use crate::time::DurationArg;
use crate::ui::Ui;

/// How long to wait for the new device where nothing is said.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line that is read.
const LINE_MAX: u64 = 1024;

/// Add a new device by the code that it shows
///
/// The new device runs `sealcast device join`. It will read and do whatever you may, in all your
/// streams. Only the device that holds your root key can add others, and the key stays there.
///
/// Other users of this machine can see the arguments of a command while it runs. Where the code is left
/// out, it is asked for, or read from standard input. May be run again, and does what is left to do.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast device add
  sealcast device add 7K2M-9FQR-... --name phone --yes
  sealcast device add 7K2M-9FQR-... --bus file:/media/stick/pairing")]
pub(super) struct AddArgs {
    /// The code; hyphens, spaces and capitals do not matter
    code: Vec<String>,
    /// What to call the device
    #[arg(long, value_name = "N")]
    name: Option<Name>,
    /// Bus where the two devices meet, where it is not that of this home
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How long to wait for the new device [default: 60s]
    #[arg(long, value_name = "DURATION")]
    wait: Option<DurationArg>,
}

pub(super) async fn run(ui: &Ui, context: &Context, args: &AddArgs) -> Result<(), CommandError> {
    let typed = match args.code.is_empty() {
        true => hear("The code that the new device shows: ")?,
        false => args.code.concat(),
    };
    let code: PairingCode = typed.parse().map_err(|error| {
        let error: sealcast::CodeError = error;
        CommandError::usage(error.to_string())
            .with_hint("copy it again as the new device shows it: seven groups of four")
    })?;
    let home = context.open().await?;
    let bus = args.bus.as_deref().map(BusUrl::parse).transpose();
    let bus = bus_here(bus.map_err(sealcast::Error::BusUrl)?.as_ref())?;
    let patience = args.wait.map_or(PATIENCE, DurationArg::duration);
    let mut applicant = home.find_applicant(code, bus.as_ref(), patience).await?;
    if applicant.strangers() > 0 {
        ui.warn(format!(
            "alarm: somebody who does not know the code writes where the two devices meet: {}",
            applicant.strangers()
        ));
    }
    let device = applicant.device();
    if !args.yes {
        confirm(&device.to_string())?;
    }
    let outcomes = home
        .add_device(&mut applicant, args.name.as_ref(), patience)
        .await?;
    if !ui.is_json() {
        ui.data(device.to_string())?;
        ui.flush()?;
        ui.talk("Added. The new device goes on by itself.");
    }
    tell(ui, &home, device, &outcomes, "sealcast device add")
}

/// Asks on the terminal whether the device is to be added.
fn confirm(device: &str) -> Result<(), CommandError> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage(
            "there is no terminal to ask on whether to add the device",
        )
        .with_hint("look at the code once more, then add `--yes`"));
    }
    let answer = hear(&format!(
        "The new device {device} will read and do whatever you may, in all your streams.\n\
         Add it? Type `yes`: "
    ))?;
    match answer.trim().eq_ignore_ascii_case("yes") {
        true => Ok(()),
        false => Err(CommandError::usage("nothing was added")),
    }
}

/// A line of standard input; where that is a terminal, it is asked for.
fn hear(question: &str) -> Result<String, CommandError> {
    if io::stdin().is_terminal() {
        let mut asked = io::stderr().lock();
        let _ = asked.write_all(question.as_bytes());
        let _ = asked.flush();
    }
    let mut line = String::new();
    let heard = io::stdin().lock().take(LINE_MAX).read_line(&mut line);
    heard.map_err(|error| CommandError::input(&error))?;
    Ok(line)
}
