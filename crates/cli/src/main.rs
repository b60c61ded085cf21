//! The sealcast command line.

mod agent;
mod args;
mod commands;
mod context;
mod deliveries;
mod demo;
mod error;
mod files;
mod input;
mod logging;
mod shell;
mod signals;
mod streams;
mod time;
mod ui;

use std::alloc::System;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use zeroizing_alloc::ZeroAlloc;

use crate::args::Cli;
use crate::context::Context;
use crate::error::{CommandError, Kind, Outcome};
use crate::ui::Ui;

/// A second line of defence, for what others allocate and do not wipe.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    sealcast_heap::share_one_heap();
    let given: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&given) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&given, &error)),
    };
    let ui = Ui::new(cli.global.json, cli.global.quiet);
    let ended = run(&ui, cli).and_then(|outcome| ui.flush().map(|()| outcome));
    ExitCode::from(match ended {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => {
            // What was printed before it went wrong still counts; a second fault would not be news.
            let _ = ui.flush();
            ui.error(&error);
            error.kind().exit_code()
        }
    })
}

fn run(ui: &Ui, cli: Cli) -> Result<Outcome, CommandError> {
    let context = Context::new(&cli.global);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|_| CommandError::new(Kind::Internal, "internal", "cannot start the runtime"))?;
    let outcome = runtime.block_on(commands::run(ui, &context, cli.command));
    runtime.shutdown_background();
    outcome
}

/// Says what is wrong with the command line, or prints the help that was asked for.
fn refuse(given: &[OsString], error: &clap::Error) -> u8 {
    if error.exit_code() == 0 {
        // Help that nobody reads to its end is fine.
        let _ = error.print();
        return 0;
    }
    if given.iter().any(|arg| arg == "--json") {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let error = CommandError::usage(message).with_hint("`sealcast --help` shows the commands");
        Ui::new(true, false).error(&error);
    } else {
        let _ = error.print();
    }
    let _ = std::io::stderr().flush();
    Kind::Usage.exit_code()
}
