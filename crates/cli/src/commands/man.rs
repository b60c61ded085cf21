use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde::Serialize;

use crate::args::Cli;
use crate::error::{CommandError, Kind};
use crate::ui::{Ui, count};

/// Write a manual page for each command into a folder
///
/// The folder is made when missing; pages that are there already are replaced.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder
    dir: PathBuf,
}

#[derive(Serialize)]
struct Line {
    page: String,
}

pub(crate) fn run(ui: &Ui, args: &ManArgs) -> Result<(), CommandError> {
    fs::create_dir_all(&args.dir).map_err(|error| CommandError::unwritten(&args.dir, &error))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = 0;
    write_all(ui, &command, &args.dir, &mut pages)?;
    ui.talk(format!("Wrote {}.", count(pages, "page")));
    Ok(())
}

/// Writes the page of a command and those of the commands below it.
fn write_all(ui: &Ui, command: &Command, dir: &Path, pages: &mut u64) -> Result<(), CommandError> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = dir.join(format!("{name}.1"));
    let page = page(command)
        .map_err(|_| CommandError::new(Kind::Internal, "internal", "cannot write a manual page"))?;
    fs::write(&path, page).map_err(|error| CommandError::unwritten(&path, &error))?;
    *pages += 1;
    if ui.is_json() {
        ui.json(&Line {
            page: path.display().to_string(),
        })?;
    }
    let below = command.get_subcommands();
    below
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| write_all(ui, command, dir, pages))
}

/// A page: what the definition says, and the examples of the help as they stand there.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let behind = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(behind) = behind {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES AND EXAMPLES"]);
        roff.control("nf", []);
        roff.text(
            behind
                .lines()
                .map(|line| roman(format!("{line}\n")))
                .collect::<Vec<_>>(),
        );
        roff.control("fi", []);
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}
