use clap::{Args, Subcommand};
use sealcast::{Home, Name, UserId};
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::shell::quoted;
use crate::ui::Ui;

/// Give names to the ids of others
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast contact add bob sc1...
  sealcast contact list
  sealcast contact verify bob")]
pub(crate) struct ContactArgs {
    #[command(subcommand)]
    command: ContactCommand,
}

#[derive(Debug, Subcommand)]
enum ContactCommand {
    Add(AddArgs),
    List(ListArgs),
    Verify(VerifyArgs),
}

/// Give an id a name in this home
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast contact add bob sc1...")]
struct AddArgs {
    /// The name
    name: Name,
    /// The id that `sealcast id` prints for the other person
    id: UserId,
}

/// List every contact
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast contact list --json")]
struct ListArgs {}

/// Show two fingerprints to compare with the other person
///
/// Read them to each other over the phone, or hold the screens side by side. When both are the
/// same on both screens, the id belongs to the person you speak to.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast contact verify bob")]
struct VerifyArgs {
    /// The contact
    name: Name,
}

#[derive(Serialize)]
struct ContactLine {
    name: String,
    user: String,
}

#[derive(Serialize)]
struct VerifyLine {
    name: String,
    user: String,
    yours: String,
    theirs: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: ContactArgs) -> Result<(), CommandError> {
    let home = context.open().await?;
    match args.command {
        ContactCommand::Add(args) => add(ui, &home, &args),
        ContactCommand::List(_) => list(ui, &home),
        ContactCommand::Verify(args) => verify(ui, &home, &args),
    }
}

fn add(ui: &Ui, home: &Home, args: &AddArgs) -> Result<(), CommandError> {
    home.add_contact(&args.name, args.id)?;
    ui.talk(format!("`{}` is a contact now.", args.name));
    ui.hint(format!(
        "compare fingerprints with `sealcast contact verify {}`",
        quoted(args.name.as_str())
    ));
    Ok(())
}

fn list(ui: &Ui, home: &Home) -> Result<(), CommandError> {
    let contacts = home.contacts()?;
    let width = contacts
        .iter()
        .map(|(name, _)| name.as_str().chars().count())
        .max();
    for (name, user) in &contacts {
        if ui.is_json() {
            ui.json(&ContactLine {
                name: name.to_string(),
                user: user.to_string(),
            })?;
        } else {
            ui.data(format!(
                "{:width$}  {user}",
                name.as_str(),
                width = width.unwrap_or_default()
            ))?;
        }
    }
    if contacts.is_empty() {
        ui.talk("There are no contacts yet.");
        ui.hint("add one with `sealcast contact add NAME ID`");
    }
    Ok(())
}

fn verify(ui: &Ui, home: &Home, args: &VerifyArgs) -> Result<(), CommandError> {
    let user = home.contact(&args.name)?;
    let yours = Home::fingerprint(&home.user());
    let theirs = Home::fingerprint(&user);
    if ui.is_json() {
        return ui.json(&VerifyLine {
            name: args.name.to_string(),
            user: user.to_string(),
            yours,
            theirs,
        });
    }
    let width = yours.chars().count().max("you".len());
    ui.data(format!("{:width$}    {}", "you", args.name))?;
    ui.data(format!("{yours:width$}    {theirs}"))?;
    ui.flush()?;
    ui.talk("The other person must see the same two, the other way round.");
    Ok(())
}
