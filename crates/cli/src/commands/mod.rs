//! One file per command.

pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod bus;
pub(crate) mod completions;
pub(crate) mod contact;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod grant;
pub(crate) mod id;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod keynode;
pub(crate) mod keys;
pub(crate) mod man;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod read;
pub(crate) mod rekey;
pub(crate) mod request;
pub(crate) mod requests;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod rotate;
pub(crate) mod stream;
pub(crate) mod subscribe;
pub(crate) mod ticket;
pub(crate) mod who;

use crate::args::Command;
use crate::context::Context;
use crate::error::{CommandError, Outcome};
use crate::ui::Ui;

/// Does what was asked.
pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    command: Command,
) -> Result<Outcome, CommandError> {
    let done = match command {
        Command::Read(args) => return read::run(ui, context, &args).await,
        Command::Request(args) => return request::run(ui, context, &args).await,
        Command::Sub(args) => return subscribe::run(ui, context, &args).await,
        Command::Init(args) => init::run(ui, context, args).await,
        Command::Id(args) => id::run(ui, context, &args).await,
        Command::Contact(args) => contact::run(ui, context, args).await,
        Command::Device(args) => device::run(ui, context, args).await,
        Command::Stream(args) => stream::run(ui, context, args).await,
        Command::Ticket(args) => ticket::run(ui, context, &args).await,
        Command::Join(args) => join::run(ui, context, &args).await,
        Command::Pub(args) => publish::run(ui, context, &args).await,
        Command::Grant(args) => grant::run(ui, context, &args).await,
        Command::Revoke(args) => revoke::run(ui, context, &args).await,
        Command::Rekey(args) => rekey::run(ui, context, &args).await,
        Command::Rotate(args) => rotate::run(ui, context, &args).await,
        Command::Who(args) => who::run(ui, context, &args).await,
        Command::Agent(args) => agent::run(ui, context, args).await,
        Command::Keynode(args) => keynode::run(ui, context, args).await,
        Command::Proxy(args) => proxy::run(ui, context, args).await,
        Command::Requests(args) => requests::run(ui, context, args).await,
        Command::Keys(args) => keys::run(ui, context, args).await,
        Command::Bus(args) => bus::run(ui, context, args).await,
        Command::Backup(args) => backup::run(ui, context, &args).await,
        Command::Restore(args) => restore::run(ui, context, &args).await,
        Command::Inspect(args) => inspect::run(ui, context, &args).await,
        Command::Completions(args) => completions::run(ui, &args),
        Command::Man(args) => man::run(ui, &args),
        Command::Doctor(args) => doctor::run(ui, context, &args).await,
        Command::Demo(args) => demo::run(ui, &args).await,
    };
    done.map(|()| Outcome::Done)
}
