use clap::Args;
use sealcast::{BusUrl, Home, InitOptions, Name, Passphrase};
use serde::Serialize;

use crate::context::{Context, bus_here};
use crate::error::CommandError;
use crate::ui::Ui;

/// Make a home: your user and this device
///
/// The home holds your keys and knows your streams; where no folder is named, it is `sealcast` in
/// the platform's data folder. Its store is encrypted. With a passphrase the key of the store is
/// kept under it; without one the key lies in a file that only you may read.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast init
  sealcast init --name kim --bus file:/srv/bus
  sealcast init --no-passphrase --home ./sensor-home")]
pub(crate) struct InitArgs {
    /// What you call yourself; it stays in this home
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<Name>,
    /// Bus that new streams use: `file:` and a folder, made when missing, or a server, such as `nats://HOST/PREFIX`
    ///
    /// Where not given, `file:` on the folder `bus` in the home.
    #[arg(long, value_name = "URL")]
    pub(crate) bus: Option<String>,
    /// Keep the key of the store in a file that only you may read
    #[arg(long)]
    pub(crate) no_passphrase: bool,
}

#[derive(Serialize)]
struct Line {
    user: String,
    device: String,
    bus: String,
}

/// What a home is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For somebody.
    Anything,
    /// For a key node.
    KeyNode,
}

/// What is to be done where nobody types a passphrase.
const WITHOUT_TYPING: &str =
    "name a file that holds one with `--passphrase-file F`, or do without: `--no-passphrase`";

pub(crate) async fn run(ui: &Ui, context: &Context, args: InitArgs) -> Result<(), CommandError> {
    run_as(ui, context, args, Purpose::Anything).await
}

/// Makes a home for a purpose.
pub(crate) async fn run_as(
    ui: &Ui,
    context: &Context,
    args: InitArgs,
    purpose: Purpose,
) -> Result<(), CommandError> {
    let path = context.home_path()?;
    if Home::exists(&path) {
        return Err(sealcast::Error::HomeExists(path).into());
    }
    let is_asked_for = !args.no_passphrase && !context.has_passphrase_file();
    if purpose == Purpose::KeyNode && is_asked_for {
        return Err(CommandError::usage(
            "a key node starts when nobody is there to type a passphrase",
        )
        .with_hint(WITHOUT_TYPING));
    }
    let bus = args.bus.as_deref().map(BusUrl::parse).transpose();
    let bus = bus_here(bus.map_err(sealcast::Error::BusUrl)?.as_ref())?;
    let options = InitOptions {
        name: args.name,
        bus,
        passphrase: passphrase(context, args.no_passphrase)?,
    };
    let home = Home::init(&path, options).await?;
    if purpose == Purpose::KeyNode {
        show(ui, &home, "This is the id of the key node.")?;
        ui.hint("join the streams that it is for with `sealcast join TICKET`, then start it: `sealcast keynode run`");
        return Ok(());
    }
    show(ui, &home, "This is your id; others grant to it.")?;
    ui.hint("make a stream with `sealcast stream create NAME`, or join one with its ticket");
    ui.hint("`sealcast agent` keeps running and hands out keys whenever somebody is due some");
    ui.hint(
        "nobody can make this home anew: back it up once you own a stream, `sealcast backup FILE`",
    );
    Ok(())
}

/// Prints whose home was made, and says so.
pub(crate) fn show(ui: &Ui, home: &Home, says: &str) -> Result<(), CommandError> {
    if ui.is_json() {
        return ui.json(&Line {
            user: home.user().to_string(),
            device: home.device().to_string(),
            bus: home.bus().to_string(),
        });
    }
    ui.data(home.user().to_string())?;
    ui.flush()?;
    let place = home.path().display();
    ui.talk(format!("{says} Your home is in `{place}`."));
    Ok(())
}

/// What protects the key of a home that is made.
pub(crate) fn passphrase(context: &Context, without: bool) -> Result<Passphrase, CommandError> {
    if without && context.has_passphrase_file() {
        return Err(CommandError::usage(
            "there is a passphrase file, and `--no-passphrase` as well",
        )
        .with_hint("leave out one of them; `SEALCAST_PASSPHRASE_FILE` may name the file"));
    }
    if without {
        return Ok(Passphrase::None);
    }
    match context.new_passphrase()? {
        Some(passphrase) => Ok(Passphrase::Given(passphrase)),
        None => Err(
            CommandError::usage("there is no terminal to ask for a passphrase on")
                .with_hint(WITHOUT_TYPING),
        ),
    }
}
