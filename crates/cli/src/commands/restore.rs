use std::path::PathBuf;

use clap::Args;
use sealcast::Home;

use crate::commands::init::{passphrase, show};
use crate::context::Context;
use crate::error::CommandError;
use crate::files::{KeyArgs, sealed};
use crate::ui::Ui;

/// Make a home of a backup
///
/// The home opens all that the old one opened, and may do what it might: it is the same device.
/// It goes on behind what the device did since, and starts a session of its own with its next
/// message, so nothing is repeated. Do not use both at once: have a device revoked that was
/// stolen.
///
/// `--passphrase-file` is the passphrase of the new home. With `--no-passphrase`, it is taken for
/// the file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast restore /media/stick/sealcast.age
  sealcast restore home.age --identity key.txt --home ./again --no-passphrase
  sealcast restore home.age --file-passphrase old.txt --passphrase-file new.txt")]
pub(crate) struct RestoreArgs {
    /// The file; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Keep the key of the store in a file that only you may read
    #[arg(long)]
    no_passphrase: bool,
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: &RestoreArgs,
) -> Result<(), CommandError> {
    let path = context.home_path()?;
    if Home::exists(&path) {
        return Err(sealcast::Error::HomeExists(path).into());
    }
    let file = sealed(&args.file)?;
    let key = args.key.key(ui, context, &file, args.no_passphrase)?;
    let without = args.no_passphrase;
    let ask = || match without && context.named_passphrase_file().is_some() {
        true => Ok(sealcast::Passphrase::None),
        false => passphrase(context, without),
    };
    let home = Home::restore_asking(&path, &file, key, ask).await?;
    show(ui, &home, "This is your id again.")?;
    ui.hint("use the old home no more; `sealcast doctor` looks whether all is well here");
    Ok(())
}
