use std::str::FromStr;

use clap::{Args, Subcommand};
use sealcast_agent::{PendingRequest, Requests};
use serde::Serialize;

use crate::agent::{self, Running};
use crate::context::Context;
use crate::error::CommandError;
use crate::time::{absolute, from_text};
use crate::ui::{Ui, count, short};

/// Say yes or no to those who ask without a grant
///
/// Where the config file of the agent says `policy = "ask"`, a request for keys that no grant covers
/// waits for you, for a day unless the file says otherwise. A yes is a grant of what was asked for,
/// and needs the right to write one. No answer is a no.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast requests list
  sealcast requests approve 1f0c55d2
  sealcast requests deny 1f0c55d2")]
pub(crate) struct RequestsArgs {
    #[command(subcommand)]
    command: RequestsCommand,
}

#[derive(Debug, Subcommand)]
enum RequestsCommand {
    List(ListArgs),
    Approve(ApproveArgs),
    Deny(DenyArgs),
}

/// List the requests that wait, the oldest first
///
/// LOG says why the access log does not allow it: `stranger`, no grant names the user; `granted`, the
/// user's grants cover something else; `revoked`, they were taken back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast requests list
  sealcast requests list --json")]
struct ListArgs {}

/// Grant what a request asks for
///
/// Exactly what `requests list` shows. To give less, use `grant`, then deny the request.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast requests approve 1f0c55d2")]
struct ApproveArgs {
    /// The request, as `requests list` shows it
    id: Id,
}

/// Refuse a request
///
/// The same request by the same user is refused as well, as long as one may wait.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast requests deny 1f0c55d2")]
struct DenyArgs {
    /// The request, as `requests list` shows it
    id: Id,
}

/// By which a request is named: eight letters of hexadecimal.
#[derive(Clone, Debug)]
struct Id(String);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() == 8 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_owned())),
            false => Err("an id has 8 letters, 0 to 9 and a to f"),
        }
    }
}

#[derive(Serialize)]
struct ApprovedLine {
    id: String,
    stream: String,
    user: String,
    grants: usize,
}

#[derive(Serialize)]
struct DeniedLine {
    id: String,
    stream: String,
    user: String,
}

pub(crate) async fn run(
    ui: &Ui,
    context: &Context,
    args: RequestsArgs,
) -> Result<(), CommandError> {
    let running = agent::of(context).await?;
    let agent = running.ok_or_else(|| {
        agent::missing().with_hint(
            "requests wait where `sealcast agent` runs, with `policy = \"ask\"` in its config file",
        )
    })?;
    match args.command {
        RequestsCommand::List(ListArgs {}) => list(ui, &agent.requests().await?),
        RequestsCommand::Approve(ApproveArgs { id }) => approve(ui, &agent, id).await,
        RequestsCommand::Deny(DenyArgs { id }) => deny(ui, &agent, id).await,
    }
}

fn list(ui: &Ui, waiting: &Requests) -> Result<(), CommandError> {
    if ui.is_json() {
        return waiting.requests.iter().try_for_each(|of| ui.json(of));
    }
    if waiting.requests.is_empty() {
        ui.talk("No request waits.");
        if waiting.policy != "ask" {
            ui.hint(format!(
                "the agent asks nobody: its config file says `policy = \"{}\"`",
                waiting.policy
            ));
        }
        return Ok(());
    }
    let head = [
        "ID",
        "STREAM",
        "USER",
        "DEVICE",
        "FROM",
        "UNTIL",
        "LOG",
        "WAITS UNTIL",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for of in &waiting.requests {
        rows.extend(rows_of(of));
    }
    ui.table(&rows)?;
    ui.flush()?;
    ui.hint("`sealcast requests approve ID` grants it, `sealcast requests deny ID` does not");
    Ok(())
}

/// One row for each interval; whose request it is stands in the first.
fn rows_of(of: &PendingRequest) -> impl Iterator<Item = [String; 8]> {
    of.wants.iter().enumerate().map(|(at, want)| {
        let first = |text: String| if at == 0 { text } else { String::new() };
        [
            first(of.id.clone()),
            first(of.stream.clone()),
            first(called(of)),
            first(of.device.get(..8).unwrap_or(&of.device).to_owned()),
            absolute(&want.from).map_or_else(|_| want.from.clone(), from_text),
            want.until.clone().unwrap_or_else(|| "no end".to_owned()),
            first(of.standing.clone()),
            first(of.expires.clone()),
        ]
    })
}

fn called(of: &PendingRequest) -> String {
    let user = short(&of.user);
    match &of.name {
        Some(name) => format!("{name} ({user})"),
        None => user,
    }
}

async fn approve(ui: &Ui, agent: &Running, Id(id): Id) -> Result<(), CommandError> {
    let approved = agent.approve(&id).await?;
    let (request, grants) = (approved.request, approved.grants);
    if ui.is_json() {
        return ui.json(&ApprovedLine {
            id: request.id,
            stream: request.stream,
            user: request.user,
            grants,
        });
    }
    let (who, stream) = (called(&request), &request.stream);
    ui.talk(match grants {
        0 => format!("The access log of `{stream}` allows it to {who} already."),
        _ => format!(
            "Granted to {who} in `{stream}`: {}",
            count(grants as u64, "interval")
        ),
    });
    Ok(())
}

async fn deny(ui: &Ui, agent: &Running, Id(id): Id) -> Result<(), CommandError> {
    let denied = agent.deny(&id).await?;
    if ui.is_json() {
        return ui.json(&DeniedLine {
            id: denied.id,
            stream: denied.stream,
            user: denied.user,
        });
    }
    ui.talk(format!(
        "Refused to {} in `{}`.",
        called(&denied),
        denied.stream
    ));
    Ok(())
}
