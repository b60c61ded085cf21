use clap::Args;
use sealcast::{Name, Stream};
use serde::Serialize;

use crate::context::{Context, user_of};
use crate::error::{CommandError, Kind};
use crate::time::rfc3339;
use crate::ui::{Ui, count};

/// Fewest letters that name a grant.
const GRANT_LETTERS_MIN: usize = 8;

/// Take grants back
///
/// Nothing opens for the user that is sealed by a publisher who has seen this. What was held
/// before stays held: nobody can take back what was already read. Where key nodes ask for approvals, those of
/// the user are void; and what the user approved of, where a user is named and not a grant.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sealcast revoke boiler bob
  sealcast revoke boiler sc1...
  sealcast revoke boiler 3f9a12c4")]
pub(crate) struct RevokeArgs {
    /// The stream
    stream: Name,
    /// Whose grants, or which: an id or name of a user, or a grant's id or its first 8 letters
    #[arg(value_name = "USER|GRANT")]
    what: String,
}

#[derive(Serialize)]
struct Line {
    revocation: String,
    grants: Vec<String>,
    time: String,
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &RevokeArgs) -> Result<(), CommandError> {
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let revoked = match user_of(&home, &args.what) {
        Ok(user) => stream.revoke_user(user).await?,
        Err(error) if error.kind() == Kind::Missing && may_be_grant(&args.what) => {
            revoke_grant(&stream, &args.what).await?
        }
        Err(error) => return Err(error),
    };
    ui.alarms(&stream);
    if ui.is_json() {
        return ui.json(&Line {
            revocation: revoked.id.to_string(),
            grants: revoked.grants.iter().map(ToString::to_string).collect(),
            time: rfc3339(revoked.position),
        });
    }
    let what = match revoked.grants.len() as u64 {
        0 => "approvals".into(),
        grants => count(grants, "grant"),
    };
    ui.talk(format!(
        "Revoked: {what}. What this device seals stays shut from: {}",
        rfc3339(revoked.position)
    ));
    Ok(())
}

async fn revoke_grant(stream: &Stream, prefix: &str) -> Result<sealcast::Revoked, CommandError> {
    let grant = stream.find_grant(&prefix.to_ascii_lowercase()).await?;
    Ok(stream.revoke_grant(grant).await?)
}

fn may_be_grant(text: &str) -> bool {
    text.len() >= GRANT_LETTERS_MIN && text.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_letters_of_hex_may_name_a_grant() {
        assert!(may_be_grant("3f9a12c4") && may_be_grant(&"AB".repeat(32)));
        assert!(!may_be_grant("3f9a12c") && !may_be_grant("3f9a12cg") && !may_be_grant(""));
    }
}
