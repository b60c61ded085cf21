use clap::Args;
use sealcast::{GrantInfo, GrantStatus, Name};
use serde::Serialize;

use crate::commands::grant::{role_text, until_json};
use crate::context::{Context, Names};
use crate::error::CommandError;
use crate::time::{from_text, rfc3339, until_text};
use crate::ui::{Ui, short};

/// Show every grant and how far it came
///
/// `granted`: in the access log, but some keys are not on the bus yet. `delivered`: the keys are
/// on the bus. `ended`: the interval is over. `revoked`: taken back, or without effect.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast who boiler
  sealcast who boiler --json")]
pub(crate) struct WhoArgs {
    /// The stream
    stream: Name,
}

#[derive(Serialize)]
struct Line {
    grant: String,
    user: String,
    name: Option<String>,
    role: String,
    from: String,
    until: Option<String>,
    state: &'static str,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &WhoArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let grants = stream.who().await?;
    ui.alarms(&stream);
    if ui.is_json() {
        return grants.iter().try_for_each(|grant| ui.json(&line(grant)));
    }
    let names = Names::of(&home)?;
    let mut rows = vec![["GRANT", "USER", "ROLE", "FROM", "UNTIL", "STATE"].map(str::to_owned)];
    rows.extend(grants.iter().map(|grant| row(grant, &names)));
    ui.table(&rows)
}

fn line(grant: &GrantInfo) -> Line {
    Line {
        grant: grant.id.to_string(),
        user: grant.user.to_string(),
        name: grant.name.as_ref().map(ToString::to_string),
        role: role(grant),
        from: rfc3339(grant.interval.from),
        until: until_json(grant.interval.until),
        state: state(grant.status),
    }
}

fn row(grant: &GrantInfo, names: &Names) -> [String; 6] {
    let id = grant.id.to_string();
    let user = short(&grant.user.to_string());
    let called = names.call(&grant.user);
    [
        id.get(..8).unwrap_or(&id).to_owned(),
        match called == user {
            true => user,
            false => format!("{called} ({user})"),
        },
        role(grant),
        from_text(grant.interval.from),
        until_text(grant.interval.until),
        state(grant.status).to_owned(),
    ]
}

fn role(grant: &GrantInfo) -> String {
    match grant.is_owner {
        true => "owner".to_owned(),
        false => role_text(grant.roles),
    }
}

fn state(status: GrantStatus) -> &'static str {
    match status {
        GrantStatus::Granted => "granted",
        GrantStatus::Delivered => "delivered",
        GrantStatus::Ended => "ended",
        GrantStatus::Revoked => "revoked",
    }
}
