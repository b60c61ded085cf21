use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::error::CommandError;
use crate::ui::Ui;

/// Print what completes the commands in your shell
///
/// Prints a script. Where a shell looks for it differs: the examples are of bash, zsh and fish.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast completions bash > ~/.local/share/bash-completion/completions/sealcast
  sealcast completions zsh > ~/.zfunc/_sealcast
  sealcast completions fish > ~/.config/fish/completions/sealcast.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(ui: &Ui, args: &CompletionsArgs) -> Result<(), CommandError> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "sealcast", &mut script);
    ui.bytes(&script)
}
