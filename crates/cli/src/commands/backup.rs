use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::files::LockArgs;
use crate::ui::{Ui, bytes};

/// Write the whole home to one file, encrypted
///
/// Your identity, keys, contacts and streams; other commands may run meanwhile. What is on the bus
/// is not in it. The file is in the age format, under a passphrase or to an age key: keep that
/// apart from the file. Whoever opens it is you.
///
/// `--passphrase-file` is the passphrase of the home. Where the home has none, it is taken for
/// the file.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast backup /media/stick/sealcast.age
  sealcast backup home.age --recipient age1... --overwrite
  sealcast backup - --file-passphrase secret.txt | ssh backups 'cat > home.age'")]
pub(crate) struct BackupArgs {
    /// File to write; `-` for standard output
    file: PathBuf,
    #[command(flatten)]
    lock: LockArgs,
}

#[derive(Serialize)]
struct Line {
    file: String,
    bytes: usize,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &BackupArgs) -> Result<(), CommandError> {
    args.lock.check(ui, &args.file)?;
    let (home, is_home_open) = context.open_telling().await?;
    let lock = args.lock.lock(ui, context, is_home_open)?;
    let backup = home.backup(lock, args.lock.is_armored()).await?;
    args.lock.write(ui, &backup.file, &args.file).await?;
    home.note_backup(&backup).await?;
    let size = backup.file.as_bytes().len();
    if ui.is_json() {
        return ui.json(&Line {
            file: args.file.display().to_string(),
            bytes: size,
        });
    }
    ui.talk(format!(
        "The home is in the file, {}. Whoever opens the file is you: keep what opens it apart.",
        bytes(size as u64)
    ));
    ui.hint("bring it back one day with `sealcast restore FILE --home DIR`");
    Ok(())
}
