use std::str::FromStr;

use clap::Args;
use sealcast::{Bound, GrantOptions, Granted, Name, Position, Roles};
use serde::Serialize;

use crate::context::{Context, Names, user_of};
use crate::error::CommandError;
use crate::time::{TimeArg, bounds, from_text, rfc3339, until_text};
use crate::ui::{Ui, bytes, count};

/// Give someone an interval, past or future
///
/// Prints the id of the grant. The publisher need not be there, and nothing is encrypted again:
/// keys for the interval are sealed for each device of the user, and no others. To a user who
/// has not joined yet the keys follow with any keyholder's next command on the stream. An
/// admin holds every key: such a grant has no interval.
#[derive(Args, Debug)]
#[command(after_help = "\
A TIME is `now`, `start`, `-10m`, `+30d` (s m h d w), `2026-03-01` (midnight UTC), or RFC 3339.

Examples:
  sealcast grant boiler bob
  sealcast grant boiler sc1... --from 2026-03-01 --until 2026-03-08
  sealcast grant boiler bob --from -7d --until +30d
  sealcast grant boiler dana --role reader,publisher")]
pub(crate) struct GrantArgs {
    /// The stream
    stream: Name,
    /// Who receives: an id, or the name of a contact
    user: String,
    /// What the user may do: `reader`, `publisher`, both with a comma, or `admin`
    #[arg(long, value_name = "ROLE", default_value = "reader")]
    role: RoleArg,
    /// From when [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArg>,
    /// Until when, not included [default: no end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<TimeArg>,
    /// Let the user hand its keys on to others whom the access log entitles
    #[arg(long)]
    reshare: bool,
}

#[derive(Clone, Copy, Debug)]
struct RoleArg(Roles);

impl FromStr for RoleArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text == "admin" {
            return Ok(Self(Roles::ADMIN));
        }
        let mut roles = Roles::NONE;
        for role in text.split(',') {
            roles = roles.with(match role.trim() {
                "reader" => Roles::READER,
                "publisher" => Roles::PUBLISHER,
                _ => return Err("write `reader`, `publisher`, `reader,publisher` or `admin`"),
            });
        }
        Ok(Self(roles))
    }
}

/// Prints roles as the option takes them.
pub(crate) fn role_text(roles: Roles) -> String {
    let known = [
        (Roles::ADMIN, "admin"),
        (Roles::READER, "reader"),
        (Roles::PUBLISHER, "publisher"),
    ];
    let held = known.iter().filter(|(role, _)| roles.contains(*role));
    held.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

#[derive(Serialize)]
struct Line {
    grant: String,
    user: String,
    role: String,
    from: String,
    until: Option<String>,
    devices: usize,
    bundles: usize,
    bundle_bytes: usize,
}

/// The end of an interval as JSON has it; none for no end.
pub(crate) fn until_json(position: Position) -> Option<String> {
    (position != Position::END).then(|| rfc3339(position))
}

pub(crate) async fn run(ui: &Ui, context: &Context, args: &GrantArgs) -> Result<(), CommandError> {
    let first = match args.role.0.contains(Roles::ADMIN) {
        true => Bound::At(Position::START),
        false => Bound::Now,
    };
    let (from, until) = bounds(args.from, first, args.until)?;
    let (home, stream) = context.stream(ui, &args.stream).await?;
    let user = user_of(&home, &args.user)?;
    let options = GrantOptions {
        user,
        roles: args.role.0,
        from,
        until,
        reshare: args.reshare,
    };
    let granted = stream.grant(options).await?;
    ui.alarms(&stream);
    if ui.is_json() {
        return ui.json(&Line {
            grant: granted.id.to_string(),
            user: user.to_string(),
            role: role_text(args.role.0),
            from: rfc3339(granted.interval.from),
            until: until_json(granted.interval.until),
            devices: granted.devices,
            bundles: granted.bundles,
            bundle_bytes: granted.bundle_bytes,
        });
    }
    ui.data(granted.id.to_string())?;
    ui.flush()?;
    tell(ui, &Names::of(&home)?.call(&user), &granted);
    Ok(())
}

fn tell(ui: &Ui, user: &str, granted: &Granted) {
    let from = from_text(granted.interval.from);
    let until = until_text(granted.interval.until);
    ui.talk(format!("Granted to `{user}`, from {from} until {until}."));
    if granted.devices == 0 {
        ui.talk(
            "The user has no device on that bus yet: keys follow with any keyholder's next \
             command.",
        );
        ui.hint("send the user the ticket, to join with: `sealcast ticket STREAM`");
        return;
    }
    if granted.bundles > 0 {
        let bundles = count(granted.bundles as u64, "bundle");
        let size = bytes(granted.bundle_bytes as u64);
        ui.talk(format!("Delivered: {bundles} of keys, {size}."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_back_as_they_were_written() {
        for text in ["reader", "publisher", "reader,publisher", "admin"] {
            assert_eq!(role_text(text.parse::<RoleArg>().unwrap().0), text);
        }
        assert_eq!(
            role_text("publisher, reader".parse::<RoleArg>().unwrap().0),
            "reader,publisher"
        );
    }
}
