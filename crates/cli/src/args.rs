//! The command line as a whole; each command's own part is with the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    agent, backup, bus, completions, contact, demo, device, doctor, grant, id, init, inspect, join,
    keynode, keys, man, proxy, publish, read, rekey, request, requests, restore, revoke, rotate,
    stream, subscribe, ticket, who,
};

/// The first page. Its list of commands is checked against the commands that there are.
const PAGE: &str = "\
{about-with-newline}
{usage-heading} {usage}

\x1b[1;4mStart\x1b[0m
  \x1b[1minit\x1b[0m        Make a home: your user and this device
  \x1b[1mid\x1b[0m          Print your user id, for others to grant to
  \x1b[1mcontact\x1b[0m     Give names to the ids of others
  \x1b[1mdevice\x1b[0m      Add devices of your own, list and revoke them
  \x1b[1mdemo\x1b[0m        Watch the whole of it work, in temporary folders

\x1b[1;4mStreams\x1b[0m
  \x1b[1mstream\x1b[0m      Make streams, list them, change their settings
  \x1b[1mticket\x1b[0m      Print the line that others need to join a stream
  \x1b[1mjoin\x1b[0m        Join a stream by its ticket

\x1b[1;4mMessages\x1b[0m
  \x1b[1mpub\x1b[0m         Publish sealed: a text, a file, standard input or its lines
  \x1b[1mread\x1b[0m        Read what was published, then end
  \x1b[1msub\x1b[0m         Follow what is being published
  \x1b[1mrequest\x1b[0m     Ask for the keys of what does not open

\x1b[1;4mWho may read\x1b[0m
  \x1b[1mgrant\x1b[0m       Give someone an interval, past or future
  \x1b[1mrevoke\x1b[0m      Take grants back
  \x1b[1mwho\x1b[0m         Show every grant and how far it came
  \x1b[1mrequests\x1b[0m    Say yes or no to those who ask without a grant
  \x1b[1mrekey\x1b[0m       Start a new session for what you publish next
  \x1b[1mrotate\x1b[0m      Make a cut that an interval can begin or end at
  \x1b[1mkeys\x1b[0m        Hand keys over in a file, or take them in

\x1b[1;4mCare\x1b[0m
  \x1b[1magent\x1b[0m       Keep running: hand out keys, archive, serve metrics and a local API
  \x1b[1mkeynode\x1b[0m     Be a key node: release keys to whom the access log entitles
  \x1b[1mproxy\x1b[0m       Seal and open for MQTT clients that know nothing of it
  \x1b[1mbus\x1b[0m         Look at buses, set them up, carry streams from one to another
  \x1b[1mbackup\x1b[0m      Write the whole home to one file, encrypted
  \x1b[1mrestore\x1b[0m     Make a home of a backup
  \x1b[1mdoctor\x1b[0m      Look for what is wrong or will be
  \x1b[1minspect\x1b[0m     Explain an envelope, or say what else a file is

\x1b[1;4mThis program\x1b[0m
  \x1b[1mcompletions\x1b[0m Print what completes the commands in your shell
  \x1b[1mman\x1b[0m         Write a manual page for each command into a folder

\x1b[1;4mOptions\x1b[0m
{options}{after-help}";

const FIRST_STEPS: &str = "\
\x1b[1;4mFirst steps\x1b[0m
  sealcast init
  sealcast stream create boiler
  sealcast pub boiler -m '61.4 C'
  sealcast grant boiler sc1... --from -7d --until now
  `sealcast COMMAND --help` shows the rest, with examples.

\x1b[1;4mExit codes\x1b[0m
  0 done; 1 internal; 2 usage; 3 done, but messages stayed sealed or were rejected; 4 not allowed;
  5 bus unreachable; 6 wrong passphrase or damaged store; 7 no such stream, user or file";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "sealcast",
    version,
    about = "Publish sealed. Give the keys later.",
    help_template = PAGE,
    after_help = FIRST_STEPS,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalArgs {
    /// Folder of the home [env: SEALCAST_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// File with the passphrase of the home [env: SEALCAST_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "F")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Print data as one JSON object a line, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print data and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::InitArgs),
    Id(id::IdArgs),
    Contact(contact::ContactArgs),
    Device(device::DeviceArgs),
    Stream(stream::StreamArgs),
    Ticket(ticket::TicketArgs),
    Join(join::JoinArgs),
    Pub(publish::PubArgs),
    Read(read::ReadArgs),
    Sub(subscribe::SubArgs),
    Request(request::RequestArgs),
    Grant(grant::GrantArgs),
    Revoke(revoke::RevokeArgs),
    Requests(requests::RequestsArgs),
    Rekey(rekey::RekeyArgs),
    Rotate(rotate::RotateArgs),
    Who(who::WhoArgs),
    Keys(keys::KeysArgs),
    Agent(agent::AgentArgs),
    Keynode(keynode::KeynodeArgs),
    Proxy(proxy::ProxyArgs),
    Bus(bus::BusArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Doctor(doctor::DoctorArgs),
    Inspect(inspect::InspectArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Demo(demo::DemoArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("sealcast").chain(line.iter().copied()))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_first_page_names_every_command_with_its_own_words() {
        for command in Cli::command().get_subcommands() {
            let about = command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            let name = format!("\x1b[1m{}\x1b[0m ", command.get_name());
            let line = PAGE.lines().find(|line| line.contains(&name));
            assert!(
                line.is_some_and(|line| line.ends_with(&about)),
                "{name}: {about}"
            );
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let after = sub
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(after.contains(&format!("  {path}")), "{path}");
                check(sub, &path);
            }
        }
        check(&Cli::command(), "sealcast");
    }

    #[test]
    fn texts_and_times_may_begin_with_a_hyphen() {
        for line in [
            &["pub", "boiler", "-m", "-5.2 C"][..],
            &["pub", "boiler", "-m", ""],
            &["pub", "boiler", "-m", "--json"],
            &["read", "boiler", "--from", "-10m", "--until", "-2m"],
            &["sub", "boiler", "--from", "-10m"],
            &["grant", "boiler", "kim", "--from", "-2h", "--until", "+30d"],
        ] {
            assert!(parse(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn global_options_stand_before_or_behind_the_command() {
        for line in [
            &["--json", "--home", "h", "id"],
            &["id", "--home", "h", "--json"],
        ] {
            let cli = parse(line).unwrap();
            assert!(
                cli.global.json && cli.global.home == Some("h".into()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            &["pub", "s", "-m", "x", "-l"][..],
            &["pub", "s", "-f", "x", "-m", "y"],
            &["pub", "s", "--backfill"],
            &["sub", "s", "--count", "0"],
            &["sub", "s", "--for", "-1m"],
            &["grant", "s", "kim", "--role", "owner"],
            &["grant", "s", "kim", "--role", "admin,reader"],
            &["read", "s", "--from", "10m"],
            &["join", "not-a-ticket"],
            &["stream", "create", ""],
        ] {
            let refused = parse(line).map(|_| ()).map_err(|error| error.exit_code());
            assert_eq!(refused, Err(2), "{line:?}");
        }
    }
}
