use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use sealcast::{BusUrl, Home, InitOptions, Joined, Joining, Name, UserId};
use serde::Serialize;

use crate::commands::init::{passphrase, show};
use crate::context::{Context, bus_here};
use crate::error::{CommandError, Kind};
use crate::signals::asked_to_end;
use crate::time::DurationArg;
use crate::ui::Ui;

/// How long one look at the bus takes, at most.
const LOOK: Duration = Duration::from_secs(60);

/// Make this a device of a user who has one already
///
/// Makes a home with keys of its own and shows a code. Type it on the user's first device, with
/// `sealcast device add CODE`. Keep the code to yourself until then: whoever types it first gets
/// this device. With the user's id that cannot happen.
///
/// The command may be ended and run again. Both devices must use the bus that is named here; a
/// folder on a stick will do, if both commands are run in turn until they are done.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast device join --bus file:/srv/bus
  sealcast device join sc1... --bus file:/media/stick/pairing
  sealcast device join --wait 10m")]
pub(super) struct JoinArgs {
    /// The user whose device this becomes, and nobody else's
    user: Option<UserId>,
    /// Bus where the two devices meet; it stays the bus that new streams of this home use
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// What you call yourself, where it is not what the other device says
    #[arg(long, value_name = "N")]
    name: Option<Name>,
    /// Keep the key of the store in a file that only you may read
    #[arg(long)]
    no_passphrase: bool,
    /// End when nobody has added the device after so long
    #[arg(long, value_name = "DURATION")]
    wait: Option<DurationArg>,
}

#[derive(Serialize)]
struct CodeLine {
    code: String,
    bus: String,
}

pub(super) async fn run(ui: &Ui, context: &Context, args: JoinArgs) -> Result<(), CommandError> {
    let wait = args.wait;
    let mut joining = match begin_or_open(context, args).await? {
        Begun::Waits(joining) => joining,
        Begun::WasAdded(home) => return welcome(ui, &home),
    };
    if let Joined::Done(home) = joining.join(Duration::ZERO).await? {
        return welcome(ui, &home);
    }
    let code = joining.code().to_string();
    if ui.is_json() {
        let bus = joining.bus().to_string();
        ui.json(&CodeLine { code, bus })?;
    } else {
        ui.data(&code)?;
        ui.talk(format!(
            "Run this on your first device, with the same bus:\n  sealcast device add {code}"
        ));
        ui.talk("This waits for it. It may be ended, and run again.");
    }
    ui.flush()?;
    let until = wait.map(|wait| Instant::now() + wait.duration());
    tokio::select! {
        home = wait_for(&mut joining, until) => welcome(ui, &home?),
        ended = asked_to_end() => ended.and(Err(not_yet())),
    }
}

enum Begun {
    Waits(Box<Joining>),
    WasAdded(Box<Home>),
}

async fn begin_or_open(context: &Context, args: JoinArgs) -> Result<Begun, CommandError> {
    let path = context.home_path()?;
    if Home::exists(&path) {
        return open(context, &path).await;
    }
    let bus = args.bus.as_deref().map(BusUrl::parse).transpose();
    let bus = bus_here(bus.map_err(sealcast::Error::BusUrl)?.as_ref())?;
    if bus.is_none() {
        return Err(
            CommandError::usage("no bus is named where the two devices can meet")
                .with_hint("`sealcast stream list` on your first device shows it: `--bus URL`"),
        );
    }
    let options = InitOptions {
        name: args.name,
        bus,
        passphrase: passphrase(context, args.no_passphrase)?,
    };
    let joining = Joining::begin(&path, options, args.user).await?;
    Ok(Begun::Waits(Box::new(joining)))
}

/// Opens what is there: a device that waits, or one that was added meanwhile.
async fn open(context: &Context, path: &Path) -> Result<Begun, CommandError> {
    let mut key = None;
    let mut opened = Joining::open(path, None).await;
    if matches!(opened, Err(sealcast::Error::NeedsPassphrase)) {
        key = Some(context.passphrase()?);
        opened = Joining::open(path, key.as_ref()).await;
    }
    match opened {
        Err(sealcast::Error::HomeExists(path)) => {
            let home = Home::open(&path, key.as_ref()).await?;
            match home.is_added() {
                true => Ok(Begun::WasAdded(Box::new(home))),
                false => Err(sealcast::Error::HomeExists(path).into()),
            }
        }
        opened => Ok(Begun::Waits(Box::new(opened?))),
    }
}

async fn wait_for(joining: &mut Joining, until: Option<Instant>) -> Result<Home, CommandError> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let look = left.map_or(LOOK, |left| left.min(LOOK));
        match joining.join(look).await? {
            Joined::Done(home) => return Ok(*home),
            Joined::Waiting { .. } if left.is_some_and(|left| left.is_zero()) => {
                return Err(not_yet());
            }
            Joined::Waiting { .. } => {}
        }
    }
}

fn not_yet() -> CommandError {
    CommandError::new(
        Kind::Missing,
        "pairing.waiting",
        "no device has added this one yet",
    )
    .with_hint("run `sealcast device join` again to go on; the code stays the same")
}

fn welcome(ui: &Ui, home: &Home) -> Result<(), CommandError> {
    show(ui, home, "This is a device of this user now.")?;
    ui.hint("see that it is your id; `sealcast stream list` shows your streams");
    Ok(())
}
